# SPDX-License-Identifier: Apache-2.0
"""The verdict says in words what the numbers say, and no more than they do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from example_audits import audit, before_and_after, certificate, near, private, recognition, result, searched
from sfumato.verdict import ONLY_BLIND, closest, failure, refuted, verdict


def test_verdict_when_it_got_better() -> None:
    assert verdict(before_and_after()) == [
        "Hardening raises the adversary's error 4.1 times (MSE 0.0100 → 0.0410) and costs 2.0 points of accuracy."
    ]


def test_verdict_says_where_the_head_ends_and_what_it_takes() -> None:
    old, new = before_and_after()
    for changes, told in (
        ({"cut": "c4", "head_memory": 301_000}, "The head ends after c4 in place of c2 and takes 301 kB in place of 272 kB."),
        ({"head_memory": 90_500}, "The head takes 90.5 kB in place of 272 kB."),
        ({"cut": "c4", "head_memory": None}, "The head ends after c4 in place of c2."),
    ):
        assert verdict([old, replace(new, target=replace(new.target, **changes))])[1:] == [told]


def test_verdict_when_it_got_worse() -> None:
    (sentence,) = verdict(before_and_after(mse=0.005, accuracy=0.985))
    assert sentence.startswith("Hardening makes it worse: the adversary's error is 2.0 times lower (MSE 0.0100 → 0.00500)")
    assert sentence.endswith("gains 0.5 points of accuracy.")


def test_verdict_when_intervals_overlap() -> None:
    (sentence,) = verdict(before_and_after(mse=0.0101, accuracy=0.979))
    assert "makes no difference to the adversary's error that these pictures can show (MSE 0.0100 → 0.0101)" in sentence
    assert sentence.endswith("costs 0.1 points of accuracy (the intervals overlap).")


def test_verdict_names_a_doubt_of_ssim() -> None:
    old, new = before_and_after()
    (sentence,) = verdict([old, replace(new, attacks=(result(0.041, ssim=near(0.95)),))])
    assert sentence.endswith("SSIM says the opposite: look at the pictures before you trust either.")


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"name": "likelihood", "access": "weights"}, "likelihood, which sees the weights"),
        ({"name": "mirror"}, "mirror, which sees the features"),
        ({"access": "weights"}, "decoder, which sees the weights"),
    ],
)
@pytest.mark.parametrize("mse", [0.041, 0.0101, 0.005])  # better, no difference, worse
def test_verdict_names_the_attack_behind_each_number_where_they_differ(changes: dict[str, str], seen: str, mse: float) -> None:
    old, new = before_and_after()
    (sentence,) = verdict([old, replace(new, attacks=(result(mse, **changes),))])
    assert f"(MSE 0.0100 by decoder, which sees the features → {mse:#.3g} by {seen})" in sentence


def test_verdict_without_attacks_or_with_other_data() -> None:
    old, new = before_and_after()
    assert "What leaks cannot be compared" in verdict([old, replace(new, attacks=())])[0]
    other = replace(new, data=replace(new.data, fingerprint="cd"))
    assert verdict([old, other])[1].startswith("The two audits used different data")


def test_verdict_of_a_perfect_reconstruction_gives_no_factor() -> None:
    (sentence,) = verdict([audit(0.0), audit(0.04, 0.98, "Noise()")])
    assert sentence == "Hardening raises the adversary's error (MSE 0.00 → 0.0400) and leaves accuracy at 98.0 %."


def test_verdict_of_a_search_speaks_of_ranks() -> None:
    (alone,) = verdict([searched()])
    assert alone.endswith("For 90.0 % of the queries the first picture that the target finds is of the same individual (rank-1).")
    (both,) = verdict([searched(), searched(0.8, "Noise()", mse=0.04)])
    assert both.endswith("and costs 10.0 points of rank-1.")
    (same,) = verdict([searched(), searched(0.9, "Noise()", mse=0.04)])
    assert same.endswith("and leaves rank-1 at 90.0 %.")


def test_verdict_does_not_compare_the_costs_of_different_tasks() -> None:
    (sentence,) = verdict([audit(), searched(0.8, "Noise()", mse=0.04)])
    assert sentence.endswith("(MSE 0.0100 → 0.0400) and has another task, so that what it costs cannot be compared.")


def test_verdict_of_one_audit() -> None:
    (sentence,) = verdict([audit()])
    assert "decoder, which sees the features" in sentence
    assert "MSE 0.0100, PSNR 20.0 dB and SSIM 0.80" in sentence


def test_a_blind_attack_alone_tells_nothing_of_what_leaks() -> None:
    blind = replace(audit(), attacks=(result(0.04, name="mean"),))
    assert verdict([blind]) == [f"{ONLY_BLIND} The target is right on 98.0 % of the test pictures."]
    for audits in ([blind, audit()], [audit(), blind], [blind, blind]):
        assert "What leaks cannot be compared: not every audit ran an attack that sees what is sent." in verdict(audits)[0]
    (sentence,) = verdict([replace(blind, attacks=(*blind.attacks, result(0.05)))])
    assert sentence.startswith("The strongest attack (mean, which sees nothing) rebuilds pictures")


def test_an_attack_below_the_floor_is_told_with_its_owner() -> None:
    old, new = before_and_after()
    new = replace(new, certificates=(certificate(0.05), certificate(0.03), certificate(None)))
    assert refuted([old, new]) == [
        "The assumption failed: decoder, best epoch, seed 0, on 512 pictures of inference time reached MSE 0.0410 (0.0406 to "
        "0.0414), below the floor 0.0500 that the entropy certificate of “after” claims; do not rely on this certificate."
    ]
    assert "the entropy certificate claims;" in refuted([new])[0]
    assert not failure(new, new.certificates[1])


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        (None, ""),
        (0.005, "No attack of this audit got below its floor, MSE 0.00500: the strongest, {}."),
        (0.01008, "These pictures cannot tell whether an attack got below its floor, MSE 0.0101: the strongest, {}."),
        (0.02, ""),
    ],
)
def test_how_near_the_attacks_came_to_a_floor(floor: float | None, expected: str) -> None:
    made = certificate(floor)
    shown = audit(attacks=(result(0.001, part="train"), result()), certificates=(made,))
    strongest = "decoder, best epoch, seed 0, on 512 pictures of inference time, reached 0.0100 (0.00990 to 0.0101)"
    assert closest(shown, made) == expected.format(strongest)
    assert bool(failure(shown, made)) == (floor == 0.02)


def test_a_floor_that_no_attack_was_run_against() -> None:
    assert closest(audit(attacks=()), certificate()) == "No attack was run against its floor, MSE 0.00500."


def test_verdict_tells_what_the_reconstructions_show() -> None:
    _, sentence = verdict([audit(attacks=(private(), private(0.7, name="mirror", mse=0.02), private(1.0, part="train")))])
    assert sentence == (
        "Of the reconstructions, 70.0 % show the right driver "
        "(by mirror, best epoch, seed 0; chance 25.0 %; of the pictures as sent 90.0 %)."
    )
    assert len(verdict([audit(attacks=(private(part="train"),))])) == 1


def test_verdict_of_two_tells_of_both_and_calls_a_guess_a_guess() -> None:
    old, new = before_and_after()
    old, new = replace(old, attacks=(private(),)), replace(new, attacks=(private(0.27, mse=0.041),))
    _, before, after = verdict([old, new])
    assert before.startswith("Of the reconstructions of “before”, 50.0 % show the right driver (by decoder, best epoch, seed 0; ")
    assert after.startswith("Of the reconstructions of “after”, 27.0 % show the right driver")
    assert after.endswith("; chance 25.0 %; of the pictures as sent 90.0 %), which is no more than a guess.")


@pytest.mark.parametrize("count", [1, 2])
def test_verdict_concludes_nothing_from_a_classifier_that_cannot_name_the_pictures_themselves(count: int) -> None:
    lost = private(recognized=recognition(0.2, sent=0.27))
    told = verdict([replace(made, attacks=(lost,)) for made in before_and_after()][:count])[1:]
    assert told == [
        "The classifier itself cannot name the driver: it is right on 27.0 % (24.3 to 29.7) of the pictures as sent, "
        "chance 25.0 %. What it names in reconstructions says nothing."
    ]
