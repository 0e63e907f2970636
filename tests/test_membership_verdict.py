# SPDX-License-Identifier: Apache-2.0
"""The verdict on the predictions says in words what the numbers say, whichever way they come out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from example_audits import COMPRESSED, REFUSED, asked, audit, before_and_after, bound, inference, membership, near, turned
from sfumato.membership_types import Bound, Membership
from sfumato.membership_verdict import beyond, membership_alone, membership_compared, membership_verdict, over_models
from sfumato.types import Audit, Interval
from sfumato.verdict import verdict

FEW = Bound(None, None, None, "too few non-members (50): 1 % false alarms need at least 100; score more")
GAP = "The gap attack, which takes for a member what the target names right, goes from 55.3 % to 55.3 % balanced accuracy."


def found(area: float, share: float | None, name: str = "lira", **changes: object) -> Membership:
    """An audit with one attack; where no share is given, there are too few examples to say."""
    return membership(inference(name, area, tpr_at_1=FEW if share is None else bound(share), **changes))


def weak() -> Membership:
    return found(0.55, 0.02)


def test_one_audit_names_the_strongest_attack_and_the_yardstick() -> None:
    assert membership_alone(membership()) == [
        "The strongest attack (lira) finds 7.1 % (5.0 to 9.2) of the members at 1 % false alarms; AUC 0.700 (0.679 to 0.721), "
        "where 0.5 is a guess.",
        "Whoever takes for a member what the target names right already reaches balanced accuracy 55.3 % (the gap attack); lira "
        "reaches 60.0 % (58.2 to 61.8).",
    ]


def test_an_attack_that_is_a_guess_is_called_one() -> None:
    first, second = membership_alone(membership(inference(area=0.51, balanced_accuracy=near(0.56, 0.03))))
    assert first.endswith("AUC 0.510 (0.495 to 0.525), which is no better than a guess.")
    assert second.endswith("55.3 % (the gap attack), and these examples cannot show that any attack did better.")


def test_an_attack_that_learned_from_some_of_the_examples_says_on_how_many_it_was_measured() -> None:
    taught = inference("nasr", members=250, nonmembers=250)
    assert "0.679 to 0.721) on the 250 + 250 examples that it was not told of, where" in membership_alone(membership(taught))[0]
    assert "not told of" not in membership_alone(membership())[0]


def test_an_attack_that_finds_more_of_the_few_is_named() -> None:
    sure = inference("rmia", 0.6, tpr_at_1=bound(0.2))
    assert "At 1 % false alarms rmia finds more members: 20.0 % (14.0 to 26.0)." in membership_alone(
        membership(inference(), sure)
    )
    hardly = replace(sure, tpr_at_1=bound(0.072))
    assert not [told for told in membership_alone(membership(inference(), hardly)) if "finds more" in told]


def test_a_share_that_is_refused_is_not_quoted() -> None:
    first, second, *_ = membership_alone(membership(inference(tpr_at_1=FEW)))
    assert (
        first
        == "The strongest attack (lira) tells members from non-members with AUC 0.700 (0.679 to 0.721), where 0.5 is a guess."
    )
    assert second == f"How many members it finds at 1 % false alarms cannot be said: {FEW.missing}."


def test_an_audit_without_attacks_says_nothing() -> None:
    (told,) = membership_alone(replace(membership(), results=()))
    assert told.startswith("No attack was run on the predictions")


def test_what_makes_numbers_weaker_is_said() -> None:
    told = membership_alone(membership(inference(adaptive=False), inference("rmia", adaptive=False), canaries="mislabeled"))
    assert told[-2].startswith("NOT ADAPTIVE: lira, rmia. The reference models did not come about as the target did")
    assert told[-1].startswith("The examples are canaries (mislabeled): these numbers speak of the worst case")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (membership(), weak(), "lowers {} (AUC 0.700 → 0.550; {} 7.1 % → 2.0 %)"),
        (weak(), membership(), "increases {} (AUC 0.550 → 0.700; {} 2.0 % → 7.1 %)"),
        (
            membership(),
            found(0.69, 0.06),
            "makes no difference to {} that these examples can show (AUC 0.700 → 0.690, the intervals overlap; {} 7.1 % → 6.0 %, "
            "the intervals overlap)",
        ),
        (membership(), found(0.55, 0.2), "moves {} both ways (AUC 0.700 → 0.550; {} 7.1 % → 20.0 %)"),
        (membership(), found(0.69, 0.01), "lowers {} (AUC 0.700 → 0.690, the intervals overlap; {} 7.1 % → 1.0 %)"),
        (membership(), found(0.55, None), "lowers {} (AUC 0.700 → 0.550)"),
    ],
)
def test_two_audits_are_compared(old: Membership, new: Membership, said: str) -> None:
    told = membership_compared("Hardening", old, new)
    assert told[:2] == [f"Hardening {said.format('leakage from the predictions', 'found at 1 % false alarms')}.", GAP]


def test_a_number_of_another_attack_is_named_and_attacks_of_one_side_only_too() -> None:
    told = membership_compared("Hardening", membership(inference()), found(0.55, 0.02, "rmia"))
    assert told[0].startswith("Hardening lowers leakage from the predictions (AUC 0.700 by lira → 0.550 by rmia; ")
    assert told[2] == "Not both were attacked by lira, rmia, so part of the difference may come from the attacks."
    assert len(membership_compared("Hardening", membership(inference()), weak())) == 2


def test_intervals_that_are_not_numbers_show_no_difference() -> None:
    nan = Interval(float("nan"), float("nan"), float("nan"))
    (told, _) = membership_compared(
        "Hardening", membership(inference(auc=nan, tpr_at_1=FEW)), membership(inference(tpr_at_1=FEW))
    )
    assert "makes no difference" in told


def test_several_tables_are_compared_with_the_first() -> None:
    told = membership_verdict(["a", "b"], [membership(inference()), found(0.55, 0.02, adaptive=False)])
    assert told[:2] == [
        "Compared with “a”, “b” lowers what the attacks on the predictions find (AUC 0.700 → 0.550; found at 1 % false alarms "
        "7.1 % → 2.0 %).",
        "Whether less leaks from the predictions cannot be told: where less was found, attacks are NOT ADAPTIVE (lira), and "
        "adaptive ones may find more.",
    ]
    assert told[-1].startswith("NOT ADAPTIVE against “b”: lira.")


@pytest.mark.parametrize(
    ("before", "after", "verb", "doubted"),
    [
        (0.7, 0.55, "lowers leakage", False),
        (0.55, 0.7, "increases leakage", False),
        (0.7, 0.69, "makes no difference to leakage", False),
        (0.7, 0.55, "lowers what the attacks", True),
        (0.55, 0.7, "increases what the attacks", True),
        (0.7, 0.69, "makes no difference to leakage", True),
    ],
)
def test_only_attacks_that_adapt_can_tell_that_less_leaks(before: float, after: float, verb: str, doubted: bool) -> None:
    falls = after < before
    old = found(before, 0.05, adaptive=falls or not doubted)
    new = found(after, 0.05, adaptive=not falls or not doubted)
    told = membership_compared("Hardening", old, new)
    assert told[0].startswith(f"Hardening {verb}")
    doubts = [sentence for sentence in told if "cannot be told" in sentence]
    assert [sentence.split()[1] for sentence in doubts] == ([] if "leakage" in verb else ["less" if falls else "more"])


def test_attacks_that_do_not_adapt_are_believed_when_they_find_more() -> None:
    told = membership_compared("Hardening", weak(), found(0.7, 0.071, adaptive=False))
    assert told[0].startswith("Hardening increases leakage from the predictions")
    assert not [sentence for sentence in told if "cannot be told" in sentence]


def test_models_in_turn_get_a_sentence_of_their_own() -> None:
    told = membership_alone(membership(turned(balanced_accuracy=near(0.9)), inference()))
    assert told[0].startswith("The strongest attack (lira) finds 7.1 %")
    assert told[1].endswith("lira reaches 60.0 % (58.2 to 61.8).")
    assert told[2:] == [
        "Over 16 models in turn lira finds 7.1 % (5.0 to 9.2) of the members at 1 % false alarms and 1.20 % (0.84 to 1.56) at "
        "0.1 %, which 16,000 non-members are enough to quote; AUC 0.800 (0.776 to 0.824). "
        "These models came about as the target did: this speaks of models like it, and not of the target alone.",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"tpr_at_01": REFUSED},
            [
                "finds 7.1 % (5.0 to 9.2) of the members at 1 % false alarms; AUC 0.800 (0.776 to 0.824).",
                f"How many members it finds at 0.1 % false alarms cannot be said: {REFUSED.missing}.",
            ],
        ),
        (
            {"tpr_at_1": FEW, "tpr_at_01": REFUSED},
            [
                "tells members from non-members with AUC 0.800 (0.776 to 0.824).",
                f"How many members it finds at 1 % false alarms cannot be said: {FEW.missing}.",
            ],
        ),
    ],
)
def test_what_models_in_turn_are_too_few_for_is_said(changes: dict[str, object], said: list[str]) -> None:
    (told,) = over_models([""], [membership(inference(), turned(**changes))])
    assert told.startswith(" ".join(["Over 16 models in turn lira", *said, "These models"]))


def test_models_in_turn_that_came_about_otherwise_say_nothing_of_the_target() -> None:
    (told,) = over_models(["after"], [membership(inference(), turned(adaptive=False))])
    assert told.startswith("For “after”, over 16 models in turn lira finds")
    assert told.endswith("These models did not come about as the target did, so this does not speak of the target.")


def test_models_in_turn_are_judged_by_where_the_target_was_not_attacked() -> None:
    told = membership_alone(membership(turned()))
    assert told[0].startswith("The strongest attack (lira, 16 models in turn) finds")
    assert not [sentence for sentence in told if sentence.startswith("Over")]


def test_a_comparison_speaks_of_the_targets_and_not_of_models_in_turn() -> None:
    old, new = membership(inference()), weak()
    strong = turned(area=0.9, tpr_at_1=bound(0.6))
    several = replace(new, results=(*new.results, strong))
    assert membership_compared("Hardening", old, several) == membership_compared("Hardening", old, new)
    told = verdict([asked(old), asked(several, "MinMax()")])
    assert "For “after”, over 16 models in turn lira finds 60.0 % (42.0 to 78.0)" in told[2]
    assert membership_verdict(["before", "after"], [old, several])[2] == told[2]


def test_models_in_turn_on_one_side_only_are_named() -> None:
    told = membership_compared("Hardening", membership(inference()), membership(turned(area=0.5)))
    assert "AUC 0.700 by lira → 0.500 by lira, 16 models in turn" in told[0]
    assert "Not both were attacked by lira; lira, 16 models in turn, so part of" in told[-1]
    both = membership_compared("Hardening", membership(turned()), membership(turned(area=0.5)))
    assert "AUC 0.800 by lira, 16 models in turn → 0.500 by lira, 16 models in turn" in both[0]


def test_an_audit_of_the_predictions_only_says_nothing_of_features() -> None:
    told = verdict([asked()])
    assert told == [*membership_alone(membership()), "The target is right on 98.0 % of the test pictures."]


def test_an_audit_of_both_says_both_and_whose_attack_is_whose() -> None:
    features, predictions, _ = verdict([audit(membership=membership())])
    assert features.startswith("The strongest attack (decoder, which sees the features) rebuilds")
    assert predictions.startswith("The strongest attack on the predictions (lira) finds 7.1 %")


def pair(new: Membership, *defenses: str, **changes: object) -> list[Audit]:
    after = asked(new, *defenses)
    return [asked(membership(inference())), replace(after, accuracy=near(0.96, 0.001), target=replace(after.target, **changes))]  # type: ignore[arg-type]


def test_pruning_is_called_pruning_and_can_increase_leakage() -> None:
    strong = found(0.8, 0.2)
    told = verdict(pair(strong, "MCMIA(ratio=15.78)", compression=COMPRESSED))
    assert told[0] == (
        "Pruning increases leakage from the predictions (AUC 0.700 → 0.800; found at 1 % false alarms 7.1 % → 20.0 %) and costs "
        "2.0 points of accuracy."
    )
    both = verdict(pair(strong, "MCMIA(ratio=15.78)", "MinMax(weight=1.0)", compression=COMPRESSED))
    assert both[0].startswith("Hardening increases leakage")
    assert verdict(pair(strong, "MinMax(weight=1.0)"))[0].startswith("Hardening increases leakage")


def test_two_audits_of_both_are_compared_twice_and_the_cost_is_said_once() -> None:
    old, new = before_and_after()
    told = verdict([replace(old, membership=membership(inference())), replace(new, membership=weak())])
    assert told[0].startswith("Hardening raises the adversary's error 4.1 times")
    assert told[1].startswith("Hardening lowers leakage from the predictions")
    assert sum("points of accuracy" in sentence for sentence in told) == 1


def test_predictions_that_only_one_audit_asked_about_are_not_compared() -> None:
    old, new = before_and_after()
    assert verdict([replace(old, membership=membership()), new])[1] == (
        "What the predictions give away cannot be compared: not every audit has an attack on them."
    )
    lone = pair(replace(membership(), results=()), "MinMax()")
    assert verdict(lone)[0] == (
        "Hardening costs 2.0 points of accuracy. What the predictions give away cannot be compared: not every audit has an "
        "attack on them."
    )


def test_no_head_is_told_of_where_nothing_is_split() -> None:
    assert not [told for told in verdict(pair(weak(), "MinMax()")) if "head" in told]


@pytest.mark.parametrize(("attacks", "sure"), [(1, True), (3, True), (7, False)])
def test_the_best_of_many_attacks_must_be_further_from_a_guess(attacks: int, sure: bool) -> None:
    assert beyond(Interval(0.55, 0.51, 0.59), 0.5, attacks) == sure


def test_bonferronis_factor_is_that_of_the_tables() -> None:
    assert beyond(Interval(1.0, 0.0, 1.0), -0.31, 5) is False  # z at 0.995 over z at 0.975 is 2.576 / 1.960 = 1.314
    assert beyond(Interval(1.0, 0.0, 1.0), -0.32, 5)
