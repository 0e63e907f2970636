# SPDX-License-Identifier: Apache-2.0
"""What is said of the weights: never more than the numbers show, and nothing where the judge cannot judge."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from example_audits import audit, inversion, judge, membership, near, rebuilt, weighed
from sfumato.inversion_types import EvaluatorFacts, Inversion, PriorFacts
from sfumato.inversion_verdict import inversion_alone, inversion_compared, inversion_reservations, inversion_verdict
from sfumato.inversion_words import Leak, between, leak_of
from sfumato.types import Interval
from sfumato.verdict import verdict

JUDGE = (
    "The evaluator (resnet18) is right on 96.2 % (95.2 to 97.2) of held-out pictures of the classes, above its gate of 80.0 %."
)


def test_one_audit_says_strongest_prior_confidence_and_judge() -> None:
    assert inversion_alone(inversion()) == [
        "The strongest attack on the weights (kedmi, which sees the weights): of its pictures of 20 classes the evaluator takes "
        "60.0 % (54.0 to 66.0) for the class; chance is 2.5 %.",
        "Picking from what its prior makes the pictures that the target is surest of already reaches 12.0 % (11.9 to 12.1); the "
        "search adds the rest.",
        "The target itself gives the class 97.0 % (96.0 to 98.0) in these pictures, more than the evaluator does: some are false "
        "positives, which convince nobody but the target.",
        JUDGE,
    ]


def test_below_its_gate_the_evaluator_concludes_nothing_and_no_attack_is_named() -> None:
    (said,) = inversion_alone(inversion(evaluator=judge(0.61)))
    assert said.startswith("Nothing is concluded about the weights. The evaluator (resnet18) is right on 61.0 % (60.4 to 61.6)")
    assert "BELOW its gate of 80.0 %" in said
    assert "train the evaluator on more pictures or for longer" in said
    assert not {"kedmi", "gmi", "60.0 %"} & set(said.replace(",", "").split())


@pytest.mark.parametrize(
    ("top1", "attacks", "said"),
    [
        (Interval(0.03, 0.01, 0.05), 1, "no better than chance, 2.5 %."),
        (Interval(0.04, 0.028, 0.052), 1, "chance is 2.5 %."),
        (Interval(0.04, 0.028, 0.052), 9, "no better than chance, 2.5 % where the best of 9 was picked."),
    ],
)
def test_the_best_of_many_attacks_is_held_to_more(top1: Interval, attacks: int, said: str) -> None:
    weaker = [rebuilt(f"other {number}", 0.001) for number in range(attacks - 1)]
    assert inversion_alone(inversion(rebuilt(top1=top1), *weaker, priors=()))[0].endswith(said)


@pytest.mark.parametrize(
    ("ceiling", "end"),
    [
        (near(0.1), "; the search adds the rest."),
        (near(0.28), "; 20 classes are too few to tell whether the search adds anything."),
        (near(0.3), "; 20 classes are too few to tell whether the search adds anything."),
    ],
)
def test_an_attack_is_held_against_what_its_prior_reaches_alone(ceiling: Interval, end: str) -> None:
    said = inversion_alone(inversion(rebuilt(), priors=(PriorFacts("gan", 40.0, ceiling, 10),)))
    assert said[1].endswith(end)
    assert not any("prior" in sentence for sentence in inversion_alone(inversion(rebuilt(), priors=())))


@pytest.mark.parametrize(
    ("ceiling", "end"),
    [
        (Interval(0.32, 0.28, 0.36), "20 classes are too few to tell whether its search adds to picking alone or loses by it."),
        (near(0.5), "That is less than picking alone reaches: its search loses what an adversary has without it."),
    ],
)
def test_a_prior_that_reaches_more_than_the_attack_leads(ceiling: Interval, end: str) -> None:
    found = inversion(rebuilt(), priors=(PriorFacts("style", 1.0, near(0.2), 1), PriorFacts("gan", 40.0, ceiling, 10)))
    first, second, *others = inversion_alone(found)
    assert first.startswith(
        "Without any search, whoever picks of the pictures of the prior 'gan' those that the target is surest"
    )
    assert f"the evaluator takes {100 * ceiling.value:.1f} % ({100 * ceiling.low:.1f} to " in first
    assert first.endswith("for the class; chance is 2.5 %.")
    assert second.startswith("The strongest attack on the weights (gmi, which sees the weights): ")
    assert second.endswith(end)
    assert (len(others), others[-1]) == (2, JUDGE)


def test_a_prior_that_leads_by_luck_is_no_better_than_chance() -> None:
    found = inversion(rebuilt(accuracy=0.001), priors=(PriorFacts("gan", 40.0, Interval(0.03, 0.01, 0.05), 10),))
    assert inversion_alone(found)[0].endswith("no better than chance, 2.5 %.")


@pytest.mark.parametrize(
    ("found", "leak"),
    [
        (inversion(), Leak("kedmi", near(0.6, 0.1))),
        (inversion(priors=(PriorFacts("gan", 1.0, near(0.9), 1),)), Leak("prior 'gan' alone", near(0.9), "gan")),
        (inversion(priors=(PriorFacts("gan", 1.0, near(math.nan), 1),)), Leak("kedmi", near(0.6, 0.1))),
        (inversion(evaluator=judge(0.5)), None),
        (replace(inversion(), results=()), None),
    ],
)
def test_an_audit_leaks_the_most_of_attacks_and_priors(found: Inversion, leak: Leak | None) -> None:
    assert leak_of(found) == leak


def test_a_defense_against_the_search_alone_is_no_defense() -> None:
    after = inversion(rebuilt(), rebuilt("kedmi", 0.1), priors=(PriorFacts("gan", 40.0, near(0.6), 10),))
    said = inversion_compared("Hardening", inversion(), after, "costs 3.0 points of accuracy")
    assert said[:2] == [
        "Hardening: 20 classes are too few to tell whether it changes the accuracy of attacks on the weights (60.0 % by kedmi → "
        "60.0 % by prior 'gan' alone, the intervals overlap; chance 2.5 %), and costs 3.0 points of accuracy.",
        "Picking from the prior alone, which any adversary can do, counts as an attack here; the searches reach 60.0 % (54.0 to "
        "66.0) by kedmi → 30.0 % (27.0 to 33.0) by gmi.",
    ]


def test_a_target_as_sure_as_the_evaluator_has_no_false_positives() -> None:
    said = inversion_alone(inversion(rebuilt(accuracy=0.9, confidence=near(0.92))))
    assert said[2] == "The target itself gives the class 92.0 % (91.1 to 92.9) in these pictures."


def test_without_an_attack_the_evaluator_is_told_of_all_the_same() -> None:
    first, second = inversion_alone(replace(inversion(), results=()))
    assert first.startswith("No attack was run on the weights")
    assert second.startswith("The evaluator (resnet18) is right on 96.2 %")


def test_classes_that_were_not_reached_are_failures_and_no_protection() -> None:
    found = inversion(rebuilt("brepmi", unreached=3))
    expected = (
        "brepmi did not reach 3 of 20 classes{}: within its budget it found no picture that the target takes for them. They "
        "count as failures; a larger budget may reach them."
    )
    assert inversion_alone(found)[-1] == expected.format("")
    assert inversion_reservations(["a", "b", "c"], [found, None, found]) == [expected.format(" of “a” and “c”")]


def test_a_defense_that_lowers_attack_accuracy_is_told_with_its_cost_and_false_positives() -> None:
    after = inversion(rebuilt("kedmi", 0.2, prior="inversion"), rebuilt("gmi", 0.1))
    assert inversion_compared("Hardening", inversion(), after, "costs 3.0 points of accuracy") == [
        "Hardening lowers the accuracy of attacks on the weights (60.0 % → 20.0 %; chance 2.5 %), and costs 3.0 "
        "points of accuracy.",
        "The target stays as sure of the attacks' pictures (97.0 % → 97.0 %): more of them are false positives, which convince "
        "nobody but it.",
        JUDGE,
    ]


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        (
            0.58,
            ": 20 classes are too few to tell whether it changes the accuracy of attacks on the weights (60.0 % → 58.0 %, the",
        ),
        (0.9, " raises the accuracy of attacks on the weights (60.0 % → 90.0 %; chance"),
    ],
)
def test_no_difference_and_more_leakage_are_called_so(accuracy: float, said: str) -> None:
    after = inversion(rebuilt(), rebuilt("kedmi", accuracy, prior="inversion", confidence=near(0.9)))
    sentences = inversion_compared("Hardening", inversion(), after)
    assert sentences[0].startswith(f"Hardening{said}")
    assert sentences[1] == "The target's own confidence in the attacks' pictures: 97.0 % → 90.0 %."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluator": EvaluatorFacts("vgg11", near(0.96), 0.8, 1)}, "Not the same evaluator judged both"),
        ({"evaluator": judge(0.88)}, "Not the same evaluator judged both"),
        ({"outputs": 20}, "Not as many classes were attacked in both"),
        ({"results": (rebuilt("ppa", 0.2),)}, "Not both were attacked by gmi, kedmi, ppa"),
    ],
)
def test_what_may_explain_a_difference_otherwise_is_said(changes: dict[str, object], said: str) -> None:
    sentences = inversion_compared("Hardening", inversion(), inversion(**changes))
    assert sentences[-1].startswith(said)
    assert len(inversion_compared("Hardening", inversion(), inversion())) == 3


def test_two_evaluators_are_both_told_of() -> None:
    said = inversion_compared("Hardening", inversion(), inversion(evaluator=judge(0.95)))
    assert said[-1] == (
        "The evaluators (resnet18 and resnet18) are right on 96.2 % (95.2 to 97.2) and on 95.0 % (94.0 to 95.9) of held-out "
        "pictures of the classes."
    )


@pytest.mark.parametrize("found", [None, replace(inversion(), results=())])
def test_what_was_not_attacked_is_not_compared(found: Inversion | None) -> None:
    said = inversion_compared("Hardening", inversion(), found, "costs 3.0 points of accuracy")
    assert said == [
        "Hardening costs 3.0 points of accuracy.",
        "What the weights give away cannot be compared: not every audit has an attack on them.",
    ]


def test_below_the_gate_nothing_is_compared() -> None:
    said = inversion_compared("Hardening", inversion(), inversion(evaluator=judge(0.5)))
    assert len(said) == 1
    assert said[0].startswith("Nothing is concluded about the weights.")


def test_several_audits_are_each_held_against_the_first() -> None:
    said = inversion_verdict(["plain", "frozen"], [inversion(), inversion(rebuilt("kedmi", 0.1), rebuilt())])
    assert said[0].startswith("Compared with “plain”, “frozen” lowers the accuracy of attacks on the weights (60.0 %")


def test_audits_of_recipes_say_the_cost_once() -> None:
    after = weighed(inversion(rebuilt("kedmi", 0.1), rebuilt("gmi", 0.1), priors=()), "Freeze(depth=26)", accuracy=0.95)
    said = verdict([weighed(), after])
    assert said[0].startswith("Hardening lowers the accuracy of attacks on the weights (60.0 % → 10.0 %")
    assert said[0].endswith("and costs 3.0 points of accuracy.")
    assert " ".join(said).count("costs 3.0 points") == 1
    assert "predictions" not in " ".join(said)


def test_an_audit_of_everything_says_everything() -> None:
    said = " ".join(verdict([audit(membership=membership(), inversion=inversion())]))
    for expected in (
        "rebuilds pictures that it never trained on",
        "strongest attack on the predictions",
        "attack on the weights",
    ):
        assert expected in said
    pair = " ".join(verdict([audit(inversion=inversion()), audit(0.02, 0.9, "Noise(sigma=0.1)", inversion=inversion())]))
    assert "raises the adversary's error" in pair
    assert "too few to tell whether it changes the accuracy of attacks on the weights" in pair
    assert pair.count("points of accuracy") == 1


def test_an_audit_of_the_weights_alone_ends_with_the_accuracy_of_the_target() -> None:
    said = verdict([weighed()])
    assert said[0].startswith("The strongest attack on the weights")
    assert said[-1] == "The target is right on 98.0 % of the test pictures."


def test_a_distance_stands_between_its_yardsticks() -> None:
    assert between(inversion(), rebuilt()) == (
        "The squared distance of the pictures by gmi to the nearest private picture of the class is 412 (391 to 433); private "
        "pictures that were held out come to 210 (206 to 214), public ones to 980 (960 to 1,000)."
    )
