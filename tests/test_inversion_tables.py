# SPDX-License-Identifier: Apache-2.0
"""The tables of the weights: every number under its heading, between its yardsticks, and nothing quoted below the gate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from example_audits import audit, inversion, judge, membership, near, rebuilt, weighed, yardstick
from sfumato.inversion_tables import (
    CLASS_COLUMNS,
    PRIOR_COLUMNS,
    brief_table,
    class_table,
    inversion_columns,
    inversion_rows,
    inversion_table,
    ordered,
    prior_of,
    prior_table,
)
from sfumato.inversion_types import ClassResult, Inversion, PriorFacts
from sfumato.inversion_words import describe_evaluator, show_distance
from sfumato.membership_tables import headline_table
from sfumato.types import Interval


def cells(found: Inversion, row: int) -> dict[str, str]:
    line = inversion_table(found)[row]
    return dict(zip(inversion_columns(found), (line.label, *line.cells), strict=True))


def test_every_number_stands_under_its_heading() -> None:
    assert cells(inversion(), 1) == {
        "Attack": "kedmi",
        "Top-1": "60.0 % (54.0 to 66.0)",
        "Top-5": "90.0 % (81.0 to 99.0)",
        "Target's confidence": "97.0 % (96.0 to 98.0)",
        "Named by target": "96.0 % (95.0 to 97.0)",
        "KNN distance": "412 (391 to 433)",
        "Centroid distance": "18.5 (17.6 to 19.4)",
        "Fréchet": "88.2",
        "KID": "−0.0125",
        "Access": "weights",
        "Prior": "inversion",
        "Seconds": "41.5",
        "Queries": "0",
    }


def test_attacks_stand_between_the_yardsticks_the_strongest_first() -> None:
    found = inversion(rebuilt("gmi", 0.3), rebuilt("lost", top1=near(math.nan)), rebuilt("ppa", 0.5))
    labels = [row.label for row in inversion_table(found)]
    assert labels == ["private pictures, held out", "ppa", "gmi", "lost", "public pictures"]
    floor, ceiling = cells(found, 0), cells(found, -1)
    assert (floor["KNN distance"], floor["Top-1"]) == ("210 (206 to 214)", "96.0 % (91.2 to 100.8)")
    assert (ceiling["KNN distance"], ceiling["Fréchet"], ceiling["KID"]) == ("980 (960 to 1,000)", "6.50", "0.00100")
    assert {floor[name] for name in ("Top-5", "Target's confidence", "Access", "Seconds")} == {"–"}


def test_what_only_some_audits_measure_has_a_column_where_it_is_measured() -> None:
    assert not {"Face distance", "Factor error", "Not reached", "Seed"} & set(inversion_columns(inversion()))
    known = rebuilt(factors=near(0.12), face=near(1.5), unreached=3, seed=1)
    found = inversion(known, rebuilt("ppa", 0.5), floor=replace(yardstick(1.0, 0.9), factors=near(0.04)))
    shown = cells(found, 2)
    assert shown["Factor error"] == "12.0 % (11.9 to 12.1)"
    assert shown["Face distance"] == "1.50 (1.48 to 1.52)"
    assert (shown["Not reached"], shown["Seed"]) == ("3 of 20", "1")
    assert cells(found, 1)["Factor error"] == cells(found, 1)["Face distance"] == "not measured"
    assert [cells(found, row)["Factor error"] for row in (0, -1)] == ["4.0 % (4.0 to 4.0)", "–"]


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.0125, "0.0125"),
        (-3.0, "−3.00"),
        (12.34, "12.3"),
        (412.4, "412"),
        (12345.6, "12,346"),
        (math.nan, "not a number"),
        (Interval(99.0, 95.0, 104.0), "99 (95 to 104)"),
        (Interval(1.5, 1.0, 2.0), "1.50 (1.00 to 2.00)"),
    ],
)
def test_distances_are_readable_at_any_scale(number: float | Interval, shown: str) -> None:
    assert show_distance(number) == shown


def test_classes_begin_with_the_most_exposed() -> None:
    far, near_by = ClassResult("far", 0.8, 0.9, 500.0), ClassResult("near", 0.8, 0.9, 300.0)
    rows = class_table([ClassResult("safe", 0.0, 0.031, 1200.0, reached=False), far, near_by])
    assert [row.label for row in rows] == ["near", "far", "safe"]
    assert dict(zip(CLASS_COLUMNS, (rows[2].label, *rows[2].cells), strict=True)) == {
        "Class": "safe",
        "Attack accuracy": "0 %",
        "Target's confidence": "3.1 %",
        "KNN distance": "1,200",
        "Reached": "no",
    }


def test_priors_say_what_they_reach_alone() -> None:
    first, second = prior_table(inversion().priors)
    assert dict(zip(PRIOR_COLUMNS, (first.label, *first.cells), strict=True)) == {
        "Prior": "gan",
        "Initial selection alone": "10.0 % (9.9 to 10.1)",
        "Fréchet distance to public": "41.5",
        "Training steps": "2,000",
        "Source": "trained on the public part",
    }
    assert second.cells[-1] == "not recorded"
    assert prior_of(inversion(), rebuilt(prior="style")) is None


def test_the_headline_holds_the_strongest_beside_chance_and_its_prior() -> None:
    rows = dict(inversion_rows([inversion(), None]))
    assert rows["Strongest attack on weights"] == ("kedmi, seed 0 (weights, inversion)", "not asked")
    assert rows["Attack accuracy, top-1"] == ("60.0 % (54.0 to 66.0)", "not asked")
    assert rows["Chance"] == ("2.5 %", "not asked")
    assert rows["Prior alone"] == ("12.0 % (11.9 to 12.1)", "not asked")
    assert rows["Target's own confidence"][0] == "97.0 % (96.0 to 98.0)"
    assert rows["Evaluator, held out"][0] == "96.2 % (95.2 to 97.2)"
    assert rows["Classes attacked"][0] == "20 of 40"
    assert dict(inversion_rows([inversion(rebuilt(prior="style"))]))["Prior alone"] == ("not measured",)


def test_a_prior_that_reaches_more_than_every_attack_is_the_strongest() -> None:
    ahead = inversion(priors=(PriorFacts("gan", 40.0, near(0.7), 10), PriorFacts("inversion", 44.0, near(0.65), 10)))
    rows = dict(inversion_rows([ahead, inversion()]))
    assert [*rows][:3] == ["Strongest attack on weights", "Strongest search", "Attack accuracy, top-1"]
    assert rows["Strongest attack on weights"] == (
        "prior 'gan' alone, 70.0 % (69.3 to 70.7)",
        "kedmi, seed 0 (weights, inversion)",
    )
    assert rows["Strongest search"] == ("kedmi, seed 0 (weights, inversion)",) * 2
    assert rows["Attack accuracy, top-1"] == ("60.0 % (54.0 to 66.0)",) * 2
    assert "Strongest search" not in dict(inversion_rows([inversion(), None]))


def test_below_the_gate_nothing_is_quoted_but_the_evaluator() -> None:
    rows = dict(inversion_rows([inversion(evaluator=judge(0.61))]))
    quoted = {label for label, (cell,) in rows.items() if cell != "not concluded"}
    assert quoted == {"Chance", "Target's own confidence", "Evaluator, held out", "Classes attacked"}
    surest = inversion(rebuilt(confidence=near(0.5)), rebuilt("kedmi", confidence=near(0.9)), evaluator=judge(0.61))
    assert dict(inversion_rows([surest]))["Target's own confidence"] == ("90.0 % (89.1 to 90.9), kedmi",)
    assert dict(inversion_rows([replace(surest, results=())]))["Target's own confidence"] == ("not run",)
    assert rows["Evaluator, held out"] == ("61.0 % (60.4 to 61.6)",)


def test_the_headline_without_attacks_or_questions() -> None:
    assert dict(inversion_rows([replace(inversion(), results=())]))["Attack accuracy, top-1"] == ("not run",)
    assert inversion_rows([None, None]) == []
    assert "Chance" not in dict(headline_table([audit()]))


def test_the_headline_of_an_audit_of_the_weights_says_nothing_of_features() -> None:
    rows = dict(headline_table([weighed()]))
    assert not {"Strongest attack", "MSE", "PSNR", "SSIM", "Head parameters", "AUC"} & set(rows)
    assert [*rows][:2] == ["Accuracy", "Strongest attack on weights"]
    both = dict(headline_table([audit(membership=membership(), inversion=inversion())]))
    assert {"MSE", "AUC", "Attack accuracy, top-1"} <= set(both)


@pytest.mark.parametrize(("accuracy", "side"), [(0.8, "above"), (0.79, "BELOW")])
def test_the_evaluator_says_on_which_side_of_its_gate_it_is(accuracy: float, side: str) -> None:
    assert describe_evaluator(judge(accuracy)).endswith(f"of held-out pictures of the classes, {side} its gate of 80.0 %.")


def test_a_terminal_gets_a_number_and_its_interval_below() -> None:
    headings, rows = brief_table(inversion(rebuilt(unreached=3), rebuilt("ppa", 0.5, prior="style", seed=1)))
    assert [row.label for row in rows] == ["ppa, 1\nweights, style", "gmi, 0\nweights, gan"]
    assert len(headings) == 1 + len(rows[0].cells)
    assert rows[1].cells[0] == "30.0 %\n27.0–33.0"
    assert (rows[0].cells[-2:], rows[1].cells[-2:]) == (("not known", "0 of 20"), ("10.0 %\n9.9–10.1", "3 of 20"))


def test_results_are_ordered_by_attack_accuracy() -> None:
    assert [result.name for result in ordered(inversion())] == ["kedmi", "gmi"]
