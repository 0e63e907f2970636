# SPDX-License-Identifier: Apache-2.0
"""The tables of the predictions: every number under its heading, the strongest first, and what is refused or weak by name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from example_audits import COMPRESSED, asked, audit, bound, inference, membership, near, target, turned
from sfumato.membership_tables import (
    SLICE_COLUMNS,
    brief_table,
    compression_table,
    describe_membership,
    headline_table,
    in_turn,
    judged,
    membership_columns,
    membership_rows,
    membership_table,
    slice_table,
)
from sfumato.membership_types import Membership, Slice
from sfumato.types import Interval


def cells(found: Membership, row: int = 0) -> dict[str, str]:
    line = membership_table(found)[row]
    return dict(zip(membership_columns(found), (line.label, *line.cells), strict=True))


def test_every_number_stands_under_its_heading() -> None:
    assert cells(membership()) == {
        "Attack": "lira",
        "AUC": "0.700 (0.679 to 0.721)",
        "TPR at 1 % FPR": "7.1 % (5.0 to 9.2)",
        "TPR at 0.1 % FPR": "too few non-members (500)",
        "Balanced accuracy": "60.0 % (58.2 to 61.8)",
        "Epsilon at least": "0.42",
        "References": "16, adaptive",
        "Access": "logits",
        "Members + non-members": "500 + 500",
        "Seconds": "0.2",
        "Queries": "2,000",
    }


def test_the_strongest_comes_first_and_what_is_no_number_last() -> None:
    nan = Interval(math.nan, math.nan, math.nan)
    found = membership(inference("none", auc=nan), inference("loss", 0.6), inference("rmia", 0.8), inference("lira", 0.7))
    assert [row.label for row in membership_table(found)] == ["rmia", "lira", "loss", "none"]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [({"adaptive": False}, "16, NOT ADAPTIVE"), ({"references": 0}, "none"), ({"references": 1}, "1, adaptive")],
)
def test_references_say_whether_they_came_about_as_the_target_did(changes: dict[str, object], shown: str) -> None:
    assert cells(membership(inference(**changes)))["References"] == shown


def test_seeds_have_a_column_where_there_are_several() -> None:
    assert "Seed" not in membership_columns(membership())
    found = membership(inference(seed=3), inference(seed=1, area=0.6))
    assert [cells(found, row)["Seed"] for row in (0, 1)] == ["3", "1"]


def test_models_in_turn_stand_below_the_target_and_are_called_so() -> None:
    nan = Interval(math.nan, math.nan, math.nan)
    found = membership(turned("loss"), turned(area=0.9), inference("none", auc=nan), inference(area=0.6), inference("loss", 0.7))
    names = ["loss", "lira", "none", "lira, 16 models in turn", "loss, 16 models in turn"]
    assert [row.label for row in membership_table(found)] == names
    assert [row.label.replace("\n", ", ", 1) for row in brief_table(found)[1]][3] == "lira, 16 models in turn\n8,000 + 16,000"
    assert [result.name for result in judged(found)] == ["loss", "lira", "none"]
    assert [result.targets for result in in_turn(found)] == [16, 16]


def test_without_the_target_it_is_judged_by_models_in_turn() -> None:
    alone = membership(turned())
    assert (judged(alone), in_turn(alone)) == ([turned()], [])
    rows = dict(membership_rows([alone]))
    assert rows["Strongest attack on predictions"] == ("lira, 16 models in turn, seed 0 (14 references, adaptive)",)
    assert rows["Epsilon at least"] == ("0.42 by lira, 16 models in turn",)


def test_slices_begin_with_the_most_exposed() -> None:
    first, second = slice_table(inference().slices)
    assert (first.label, second.label) == ("class 4", "class 3")
    assert dict(zip(SLICE_COLUMNS, (first.label, *first.cells), strict=True)) == {
        "Slice": "class 4",
        "Members": "50",
        "Non-members": "48",
        "Accuracy gap": "−1.0 points",
        "AUC": "0.900 (0.891 to 0.909)",
        "Balanced accuracy": "80.0 % (79.2 to 80.8)",
    }
    assert second.cells[2] == "+20.0 points"
    lost = Slice(1, 1, 0.0, Interval(math.nan, 0.0, 1.0), near(0.5))
    assert slice_table({"lost": lost, "found": replace(lost, auc=near(0.1))})[-1].label == "lost"


def test_the_headline_holds_the_strongest_and_the_yardstick() -> None:
    rows = dict(membership_rows([membership(), None, membership(inference("gap", tpr_at_1=bound(0.5)))]))
    assert rows["Strongest attack on predictions"] == (
        "lira, seed 0 (16 references, adaptive)",
        "not asked",
        "gap, seed 0 (16 references, adaptive)",
    )
    assert rows["TPR at 1 % FPR"] == ("7.1 % (5.0 to 9.2)", "not asked", "50.0 % (35.0 to 65.0)")
    assert rows["Gap attack, balanced accuracy"][0] == "55.3 %"
    assert rows["Accuracy on members"][0] == "98.0 % (97.0 to 99.0)"
    assert rows["Accuracy on non-members"][0] == "87.4 % (86.5 to 88.3)"
    assert rows["Members + non-members"][0] == "500 + 500"


def test_the_headline_shows_the_largest_of_each_number_and_by_which_attack() -> None:
    sure = inference("loss", 0.6, tpr_at_1=bound(0.2), balanced_accuracy=near(0.5))
    rows = dict(membership_rows([membership(sure, inference())]))
    assert rows["AUC"] == ("0.700 (0.679 to 0.721)",)
    assert rows["TPR at 1 % FPR"] == ("20.0 % by loss (14.0 to 26.0)",)
    assert rows["Balanced accuracy"] == ("60.0 % (58.2 to 61.8)",)


def test_the_headline_speaks_of_the_target_and_not_of_models_in_turn() -> None:
    strong = turned(area=0.9, tpr_at_1=bound(0.5), balanced_accuracy=near(0.9), epsilon=9.0)
    assert membership_rows([membership(strong, inference())]) == membership_rows([membership(inference())])


def test_the_headline_shows_epsilon_of_the_strongest_attack_and_seed_and_not_the_largest() -> None:
    found = membership(inference("loss", 0.6, epsilon=3.0), inference(seed=1, area=0.69, epsilon=2.0), inference())
    assert dict(membership_rows([found]))["Epsilon at least"] == ("0.42 by lira",)


def test_the_headline_without_attacks_or_questions() -> None:
    none = replace(membership(), results=())
    assert dict(membership_rows([none]))["AUC"] == ("not run",)
    assert membership_rows([None, None]) == []
    assert "Strongest attack on predictions" not in dict(headline_table([audit()]))


def test_the_headline_of_an_audit_of_the_predictions_says_nothing_of_features() -> None:
    rows = dict(headline_table([asked()]))
    assert not {"Strongest attack", "MSE", "PSNR", "SSIM", "Head parameters", "Bytes sent per picture (float32)"} & set(rows)
    assert (rows["Cut after"], rows["Model parameters"], rows["Model MACs"]) == (("not split",), ("100",), ("200",))
    assert [*rows][:3] == ["Accuracy", "Strongest attack on predictions", "AUC"]
    both = dict(headline_table([asked(), audit(membership=membership())]))
    assert both["MSE"] == ("not scored", "0.0100 (0.00990 to 0.0101)")
    assert both["Cut after"] == ("not split", "c2")


def test_an_attack_is_described_with_its_references() -> None:
    assert describe_membership(inference(references=1, adaptive=False)) == "lira, seed 0 (1 reference, NOT ADAPTIVE)"
    assert describe_membership(inference("loss", references=0)) == "loss, seed 0"


def test_what_pruning_left_stands_beside_what_was_not_pruned() -> None:
    pruned = audit(target=replace(target("MCMIA()"), compression=COMPRESSED))
    rows = dict(compression_table([audit(), pruned]))
    assert set(rows["Ratio of weights"]) == {"not pruned", "16.11 ×"}
    assert rows["Weights kept"][1] == "3,815"
    assert (rows["Bytes with every zero"][1], rows["Bytes on disk"][1]) == ("246 kB", "21.5 kB")
    assert (rows["MACs with every weight"][1], rows["MACs with a weight that is not zero"][1]) == ("416,520", "40,011")
    assert rows["Milliseconds per picture, before → after"][1] == "0.151 → 0.149"
    unmeasured = replace(pruned, target=replace(pruned.target, compression=replace(COMPRESSED, milliseconds=None)))
    assert dict(compression_table([unmeasured]))["Milliseconds per picture, before → after"] == ("not measured",)
    assert compression_table([audit()]) == []


def test_the_brief_table_puts_intervals_on_lines_of_their_own() -> None:
    headings, rows = brief_table(membership())
    assert len(headings) == len(rows[0].cells) + 1
    assert rows[0].label == "lira\n500 + 500"
    assert rows[0].cells == (
        "0.700\n0.679–0.721", "7.1 %\n5.0–9.2", "too few non-members\n500", "60.0 %\n58.2–61.8", "0.42", "16\nadaptive",
    )  # fmt: skip
    assert brief_table(membership(inference(seed=1), inference(seed=2)))[1][0].label == "lira, 1\n500 + 500"
