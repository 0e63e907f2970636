# SPDX-License-Identifier: Apache-2.0
"""Columns of attacks on predictions and of what pruning left: which number they show, and what a study of them refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from example_audits import audit, bound, inference, membership, near
from example_study import small_study
from sfumato.errors import ConfigError, RecipeError
from sfumato.membership_types import Bound, Membership
from sfumato.studies.column import read_column
from sfumato.studies.load import read_study
from sfumato.studies.measured import measured
from sfumato.studies.results import Cell, Results
from sfumato.studies.study import Study
from sfumato.studies.table import facts, remarks, study_table
from sfumato.types import Compression, DataFacts

COMPRESSED = Compression(61470, 3815, 246_000, 21_500, 416_520, 40_011, (0.151, 0.149))
FEW = Bound(None, None, None, "too few non-members (400): 0.1 % false alarms need at least 10,000; score more")


def table(**changes: Any) -> dict[str, Any]:
    """The small study, of predictions."""
    base = dict(small_study().table)
    base["columns"], base["extra"] = ["accuracy", "lira/attack_accuracy"], ["members/accuracy", "lira/tpr_at_01", "gap/auc"]
    base["size"] = {
        "smoke": {
            "data": {"name": "digits"},
            "model": {"name": "lenet5"},
            "membership": {"members": 20, "references": 4},
            "train": {"epochs": 1},
            "attacks": [{"name": "lira"}, {"name": "gap"}, {"name": "loss"}],
        }
    }
    base["rows"] = [{"label": "Plain", "published": [91.0, 60.0]}, {"label": "Smooth", "defenses": [{"name": "label_smoothing"}]}]
    return {**base, "averages": [], "gain": {}, "planned": [], **changes}


def study(**changes: Any) -> Study:
    return read_study(table(**changes), name="predictions")


def results(found: Membership | None, **changes: Any) -> Results:
    cell = Cell(row="Plain", seed=0, accuracy=near(0.9), membership=found)
    return Results(study=study(**changes), size="smoke", reading="scored", seeds=(0,), cells=(cell,))


@pytest.mark.parametrize(
    ("text", "heading", "source"),
    [
        ("nasr/attack_accuracy", "nasr: attack accuracy (%)", "inference"),
        ("lira/tpr_at_1", "lira: TPR at 1 % FPR (%)", "inference"),
        ("loss-per-class/auc", "loss-per-class: AUC", "inference"),
        ("members/accuracy", "members: accuracy (%)", "side"),
        ("nonmembers/accuracy", "nonmembers: accuracy (%)", "side"),
        ("compression/ratio", "ratio", "compression"),
        ("compression/kept", "weights after pruning (thousand)", "compression"),
        ("drop/nasr/attack_accuracy", "nasr: attack accuracy drop (points)", "inference"),
    ],
)
def test_headings(text: str, heading: str, source: str) -> None:
    column = read_column(text)
    assert (column.heading, column.source) == (heading, source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nasr/auk", "no measure 'auk' .did you mean 'auc'"),
        ("compression/ratios", "did you mean 'ratio'"),
        ("members/auc", "'members/auc': no measure 'auc'"),
        ("decoder/mse", "expected a column such as .*ATTACK/train/mse.* found 'decoder/mse'"),
    ],
)
def test_a_column_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_column(text)


def test_a_column_shows_the_number_of_its_attack() -> None:
    other = inference("nasr", 0.6, balanced_accuracy=near(0.55), epsilon=0.3)
    cell = results(membership(other, inference(tpr_at_1=bound(0.05)))).cells[0]
    for text, value in (
        ("nasr/attack_accuracy", 0.55),
        ("nasr/auc", 0.6),
        ("nasr/epsilon", 0.3),
        ("lira/auc", 0.7),
        ("lira/tpr_at_1", 0.05),
        ("lira/advantage", 0.2),
        ("members/accuracy", 0.98),
        ("nonmembers/accuracy", 0.874),
    ):
        interval = measured(cell, read_column(text), results(None))
        assert interval is not None, text
        assert interval.value == value
    assert measured(cell, read_column("loss/auc"), results(None)) is None
    assert measured(results(None).cells[0], read_column("lira/auc"), results(None)) is None


def test_where_each_model_in_turn_was_the_target_that_counts() -> None:
    found = membership(inference("lira", 0.7), inference("lira", 0.66, targets=16))
    interval = measured(results(found).cells[0], read_column("lira/auc"), results(found))
    assert interval is not None
    assert interval.value == 0.66


def test_a_share_that_is_not_quoted_is_no_number_and_a_remark_says_why() -> None:
    found = results(membership(inference("lira", tpr_at_01=FEW), inference("loss", tpr_at_01=replace(FEW, missing="other"))))
    assert study_table(found).rows[0].cells[-2] == "not measured"
    assert f"lira: TPR at 0.1 % FPR (%): {FEW.missing}" in remarks(found)
    assert not any("other" in remark for remark in remarks(found))


def test_numbers_are_in_percent_with_their_intervals_beside_the_papers() -> None:
    found = results(membership(inference("lira", balanced_accuracy=near(0.6, 0.02)), inference("gap", 0.553)))
    table = study_table(found)
    assert table.headings[:5] == ("", "accuracy (%)", "paper", "lira: attack accuracy (%)", "paper")
    cells = table.rows[0].cells
    assert cells[2].startswith("60.00 (")
    assert cells[3] == "60.00"
    assert cells[4].startswith("98.00 (")
    said = " ".join(facts(found))
    assert "50 % is a guess" in said
    assert "Attacks that choose among their weights" not in said


def test_what_pruning_left() -> None:
    pruned = replace(audit().target, compression=COMPRESSED)
    cell = Cell(row="Plain", seed=0, facts=pruned)
    shown = {
        "weights": "61.47", "kept": "3.81", "ratio": "16.11", "dense_megabytes": "0.246", "megabytes": "0.0215",
        "dense_macs": "0.4165", "macs": "0.04001", "dense_milliseconds": "0.151", "milliseconds": "0.149",
    }  # fmt: skip
    for key, text in shown.items():
        column = read_column(f"compression/{key}")
        interval = measured(cell, column, results(None))
        assert interval is not None
        assert column.ours(interval) == text
    untimed = replace(pruned, compression=replace(COMPRESSED, milliseconds=None))
    assert measured(replace(cell, facts=untimed), read_column("compression/milliseconds"), results(None)) is None
    assert measured(Cell(row="Plain", seed=0, facts=audit().target), read_column("compression/ratio"), results(None)) is None
    assert read_column("compression/weights").theirs(13830) == "13,830"
    assert read_column("compression/kept").theirs(3.8) == "3.8"


def test_only_attacks_that_a_column_shows_are_run_and_described() -> None:
    made = study()
    assert made.attacks == ("lira", "gap")
    recipe = made.recipe(made.rows[0], "smoke", seed=0)
    assert list(recipe.inference) == ["lira", "gap"]
    assert made.describe("smoke") == "digits, lenet5, 1 epochs, lira and gap, 2 rows"


def test_a_column_of_an_attack_that_the_size_has_not_is_refused() -> None:
    with pytest.raises(RecipeError, match="size.smoke: no attack 'nasr', which a column shows"):
        study(extra=["nasr/auc"])


def test_rows_of_a_setup_change_sizes_alike_and_may_change_them_further() -> None:
    setups = {"wide": {"smoke": {"model": {"width": 2.0}, "train": {"epochs": 3, "batch_size": 8}}}}
    rows = [
        {"label": "Plain", "setup": "wide"},
        {"label": "Short", "setup": "wide", "size": {"smoke": {"train": {"epochs": 2}}}},
    ]
    made = study(setups=setups, rows=rows)
    plain, short = (made.recipe(row, "smoke", seed=0) for row in made.rows)
    assert (plain.options["width"], short.options["width"]) == (2.0, 2.0)
    assert (plain.train.epochs, short.train.epochs, short.train.batch_size) == (3, 2, 8)
    assert made.describe("smoke").startswith("digits, lenet5, 2 to 3 epochs")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": [{"label": "Plain", "setup": "wide"}], "setups": {"wild": {}}}, "no setup 'wide' .did you mean 'wild'"),
        ({"setups": {"wide": {"smok": {}}}, "rows": [{"label": "Plain", "setup": "wide"}]}, "no size 'smok'"),
        ({"setups": [1]}, r"setups: expected tables written \[setups.NAME\], found \[1\]"),
        ({"traces": ["los"]}, "traces: expected a trace such as loss"),
        ({"traces": ["nasr/epochs"]}, "traces: 'nasr/epochs': no column shows an attack 'nasr'"),
        (
            {"rows": [{"label": "Plain"}, {"label": "Go", "start": "Plain"}]},
            "row 'Go': start: the model to start from was trained",
        ),
    ],
)
def test_what_a_study_of_predictions_cannot_mean_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        study(**changes)


def test_pictures_tell_members_from_the_others() -> None:
    data = DataFacts("digits", "f", {"private": 400, "test": 1000, "nonmembers": 400, "reference": 800, "pool": 800})
    said = facts(replace(results(None), data=data))[1]
    assert said == 'Ours: size "smoke", digits (400 private, 400 non-members, 800 reference, 1,000 test).'
