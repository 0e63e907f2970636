# SPDX-License-Identifier: Apache-2.0
"""Rows beside others: drops, what a lost point of accuracy buys, and what is left of a drop at the same accuracy."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from example_audits import near
from sfumato.errors import ConfigError, RecipeError
from sfumato.studies.column import read_column
from sfumato.studies.compared import number
from sfumato.studies.load import read_study
from sfumato.studies.report import traced
from sfumato.studies.results import Cell, Results, Training, read_results, write_results
from sfumato.studies.study import Study
from sfumato.studies.subject import Trace
from sfumato.studies.table import facts, gains, study_table
from sfumato.types import DataFacts

SIZE = {"data": {"name": "digits"}, "model": {"name": "lenet5", "cut": "c1"}, "train": {"epochs": 4, "batch_size": 8}}
TABLE: dict[str, Any] = {
    "title": "t",
    "source": "s",
    "columns": ["accuracy", "utility/mAP", "ratio/utility/mAP", "matched/utility/mAP", "training/ratio", "training/parameters"],
    "matched": "Plain",
    "size": {"smoke": SIZE},
    "rows": [
        {"label": "Plain", "vary": {"train.stop": [1.0, 2.0, 4.0]}},
        {"label": "Defended", "against": "Plain, stop = 4", "defenses": [{"name": "noise", "sigma": 0.1}]},
    ],
}
"""Any share stands for the attack's here; nothing is trained."""


def study(**changes: Any) -> Study:
    return read_study({**TABLE, **changes}, name="tiny")


def cell(row: str, accuracy: float, attack: float, *, seed: int = 0, seconds: float = 2.0) -> Cell:
    return Cell(row=row, seed=seed, accuracy=near(accuracy), utility={"mAP": near(attack)}, training=Training(seconds, 2_000_000))


def run(*defended: Cell, seeds: tuple[int, ...] = (0,)) -> Results:
    """A run without the defense at three checkpoints, with each seed, and a row with the defense."""
    points = [(1, 0.5, 0.2), (2, 0.7, 0.4), (4, 0.9, 0.8)]
    plain = [cell(f"Plain, stop = {stop}", x, y, seed=seed) for seed in seeds for stop, x, y in points]
    return Results(study=study(), size="smoke", reading="scored", seeds=seeds, cells=(*plain, *defended))


def shown(results: Results, text: str, row: str = "Defended") -> float | None:
    found = number(results, results.study.row(row), read_column(text))
    return None if found is None else found.value


def test_a_row_is_varied_along_its_training() -> None:
    made = study()
    assert [row.label for row in made.rows[:3]] == ["Plain, stop = 1", "Plain, stop = 2", "Plain, stop = 4"]
    recipes = [made.recipe(row, "smoke", seed=0) for row in made.rows]
    assert [recipe.train.stop for recipe in recipes] == [1, 2, 4, 0]
    assert {recipe.train.batch_size for recipe in recipes} == {8}
    varied = study(rows=[{"label": "Plain", "vary": {"train.epochs": [2.0, 3.0]}}], matched="", columns=["accuracy"])
    assert [varied.recipe(row, "smoke", seed=0).train.epochs for row in varied.rows] == [2, 3]


def test_a_key_that_training_does_not_have_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"vary: expected one argument of one of its defenses, or of train"):
        study(rows=[{"label": "Plain", "vary": {"train.stopp": [1.0]}}])


def test_the_ratio_of_drops_is_that_of_the_mean_drops() -> None:
    one = run(cell("Defended", 0.85, 0.6))
    assert shown(one, "ratio/utility/mAP") == pytest.approx(0.2 / 0.05)
    assert shown(one, "ratio/utility/mAP", "Plain, stop = 4") is None
    two = run(cell("Defended", 0.85, 0.6), cell("Defended", 0.89, 0.5, seed=1), seeds=(0, 1))
    assert shown(two, "ratio/utility/mAP") == pytest.approx((0.2 + 0.3) / (0.05 + 0.01))


@pytest.mark.parametrize("accuracy", [0.9, 0.95])
def test_where_no_accuracy_is_lost_there_is_no_ratio(accuracy: float) -> None:
    assert shown(run(cell("Defended", accuracy, 0.6)), "ratio/utility/mAP") is None


@pytest.mark.parametrize(
    ("accuracy", "attack", "expected"),
    [
        (0.7, 0.3, 0.1),  # at a checkpoint
        (0.8, 0.3, 0.3),  # half way between two: 0.6
        (0.9, 0.3, 0.5),
        (0.97, 0.3, 0.5),  # more accurate than all: the best of them
        (0.5, 0.2, 0.0),
        (0.6, 0.5, -0.2),  # worse than stopping early
        (0.4, 0.1, None),  # less accurate than all of them
    ],
)
def test_what_is_left_of_a_drop_at_the_same_accuracy(accuracy: float, attack: float, expected: float | None) -> None:
    found = shown(run(cell("Defended", accuracy, attack)), "matched/utility/mAP")
    assert found == (None if expected is None else pytest.approx(expected))


def test_each_seed_is_compared_with_the_run_of_the_same_seed() -> None:
    both = run(cell("Defended", 0.9, 0.3), seeds=(0, 1))
    other = [one for one in both.cells if one.seed == 1]
    moved = [Cell(**{**vars(one), "utility": {"mAP": near(one.utility["mAP"].value / 2)}}) for one in other]
    mixed = run(cell("Defended", 0.9, 0.3), cell("Defended", 0.9, 0.3, seed=1), seeds=(0, 1))
    cells = tuple(one for one in mixed.cells if one.seed == 0 or one.row == "Defended") + tuple(moved)
    found = shown(Results(study=study(), size="smoke", reading="scored", seeds=(0, 1), cells=cells), "matched/utility/mAP")
    assert found == pytest.approx(((0.8 - 0.3) + (0.4 - 0.3)) / 2)


def test_training_times_are_told_beside_those_of_the_row_that_a_row_stands_against() -> None:
    found = run(cell("Defended", 0.85, 0.6, seconds=3.0))
    assert shown(found, "training/ratio") == pytest.approx(1.5)
    assert shown(found, "training/ratio", "Plain, stop = 4") == 1.0
    assert shown(found, "training/seconds") == 3.0
    assert shown(found, "training/parameters") == 2_000_000


def test_the_table_says_where_there_is_nothing_to_compare() -> None:
    table = study_table(run(cell("Defended", 0.4, 0.1)))
    plain, defended = table.rows[2].cells, table.rows[3].cells
    assert (plain[2], defended[2]) == ("", "1.40")
    assert (plain[3], defended[3]) == ("", "no comparison")
    assert table.columns[2:4] == ("drop of mAP / drop of accuracy", "mAP below a run as accurate (points)")
    assert table.columns[4:] == ("training time, times", "trained parameters (million)")
    assert any("stopping earlier does as much" in sentence for sentence in facts(run()))


def test_what_training_cost_is_kept(tmp_path: Path) -> None:
    results = run(cell("Defended", 0.85, 0.6, seconds=3.25))
    assert read_results(write_results(results, tmp_path / "study.json")).of("Defended")[0].training == Training(3.25, 2_000_000)


def test_comparisons_of_what_is_no_share_are_refused() -> None:
    for text in ("ratio/gmi/knn", "matched/head/parameters", "matched/drop/accuracy"):
        with pytest.raises(ConfigError, match="expected a column in percent, such as 'gmi/top1'"):
            read_column(text)


def test_a_comparison_needs_a_run_to_compare_with() -> None:
    with pytest.raises(RecipeError, match=r"matched: expected the label of a row.*found 'Plane' .did you mean 'Plain'"):
        study(matched="Plane")


def test_a_ratio_needs_a_row_to_stand_against() -> None:
    with pytest.raises(RecipeError, match=r"'ratio/\.\.\.' compares rows with those that they stand against, found none"):
        study(rows=TABLE["rows"][:1])


def test_a_ratio_has_no_interval() -> None:
    results = run(cell("Defended", 0.85, 0.6))
    found = number(results, results.study.row("Defended"), read_column("ratio/utility/mAP"))
    assert found is not None
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_row_is_varied_over_names_too() -> None:
    rows = [
        {"label": "Noise", "defenses": [{"name": "noise", "sigma": 0.1}], "vary": {"noise.distribution": ["gaussian", "laplace"]}}
    ]
    made = study(rows=rows, matched="", columns=["accuracy"])
    assert [row.label for row in made.rows] == ["Noise, distribution = gaussian", "Noise, distribution = laplace"]
    told = [made.recipe(row, "smoke", seed=0).defenses[0].describe() for row in made.rows]
    assert told == ["Noise(sigma=0.1, distribution='gaussian')", "Noise(sigma=0.1, distribution='laplace')"]


def test_a_paper_need_not_print_every_number() -> None:
    row = {"label": "Plain", "published": [91.25, "-"]}
    made = study(rows=[row], matched="", columns=["accuracy", "training/seconds"])
    shown = study_table(Results(study=made, size="smoke", reading="scored", seeds=(0,)))
    assert shown.rows[0].cells == ("not run", "91.25", "not run", "")
    with pytest.raises(RecipeError, match="expected '-', found 'none'"):
        study(rows=[{**row, "published": [91.25, "none"]}], matched="", columns=["accuracy", "training/seconds"])


def test_the_interval_of_a_share_ends_at_0_and_1() -> None:
    found = run(cell("Defended", 0.99, 0.02), cell("Defended", 0.91, 0.3, seed=1), seeds=(0, 1))
    spans = [number(found, found.study.row("Defended"), read_column(text)) for text in ("accuracy", "utility/mAP")]
    assert [(round(one.low, 6), round(one.high, 6)) for one in spans if one is not None] == [(0.44176, 1.0), (0.0, 1.0)]
    drops = number(found, found.study.row("Defended"), read_column("drop/utility/mAP"))
    assert drops is not None
    assert drops.high > 1  # a drop is no share


def test_pictures_that_a_seed_draws_anew_are_told_once() -> None:
    facts_of = [DataFacts("portraits", f"hash {seed}", {"private": 10}) for seed in (0, 1)]
    cells = [replace(cell("Defended", 0.9, 0.3, seed=seed), data=facts_of[seed]) for seed in (0, 1)]
    other = replace(cell("Plain, stop = 4", 0.9, 0.3), data=DataFacts("faces", "hash", {"private": 10}))
    several = Results(study=study(), size="smoke", reading="scored", seeds=(0, 1), cells=tuple(cells))
    assert [told for told in facts(several) if told.startswith("Ours")] == ['Ours: size "smoke", portraits (10 private).']
    mixed = replace(several, cells=(*several.cells, other))
    assert [told for told in facts(mixed) if told.startswith("Ours")] == [
        'Ours: size "smoke", portraits (10 private); Defended.',
        'Ours: size "smoke", faces (10 private); Plain, stop = 4.',
    ]


def test_which_rows_do_better_than_a_run_as_accurate_is_said_best_first() -> None:
    rows = [*TABLE["rows"], *({"label": label, "defenses": [{"name": "noise", "sigma": 0.2}]} for label in ("Other", "Worse"))]
    made = study(rows=rows)
    base = run(seeds=(0, 1, 2))
    cells = [
        cell(label, 0.9, value + 0.001 * seed, seed=seed)
        for label, value in (("Defended", 0.6), ("Other", 0.5), ("Worse", 0.85))
        for seed in (0, 1, 2)
    ]
    found = replace(base, study=made, cells=(*base.cells, *cells))
    better, worse = gains(found)
    assert better.startswith("At the same accuracy mAP finds less, in points: Other 29.9 (")
    assert better.index("Other") < better.index("Defended 19.9 (")
    assert worse.startswith("At the same accuracy mAP finds more, in points: Worse −5.1 (")


def test_what_cannot_be_shown_is_said_too() -> None:
    cells = [cell("Defended", 0.9, value, seed=seed) for seed, value in enumerate((0.5, 0.9, 1.0))]
    assert gains(run(*cells, seeds=(0, 1, 2))) == ["At the same accuracy no difference in mAP can be shown for Defended."]
    (one,) = gains(run(cell("Defended", 0.9, 0.5)))
    assert one.startswith("At the same accuracy mAP finds least with Defended, 30.0 points below; without several seeds")
    assert gains(run()) == []


def test_a_drop_of_a_row_that_stands_against_none_is_a_share() -> None:
    found = run(seeds=(0, 1))
    cells = tuple(replace(one, accuracy=near(0.99 if one.seed else 0.7)) for one in found.cells)
    shown = number(replace(found, cells=cells), found.study.row("Plain, stop = 4"), read_column("drop/accuracy"))
    assert shown is not None
    assert (shown.low, shown.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("rebuilding", "told"),
    [
        ((70.0, 20.0, 10.0), "more, by 20.0 (19.8 to 20.2) points"),
        ((30.0, 50.0, 20.0), "less, by 20.0 (19.8 to 20.2) points"),
        ((50.0, 30.0, 20.0), "no difference can be shown"),
    ],
)
def test_whether_rebuilding_weighs_the_first_layers_more_is_said(rebuilding: tuple[float, ...], told: str) -> None:
    cells = []
    for seed, shift in enumerate((0.0, 0.1, -0.1)):
        first, *rest = rebuilding
        traces = {
            "fisher/task": Trace(x=(1, 2, 3, 4), y=(40.0, 24.0, 16.0, 20.0)),  # 50 % without the last layer
            "fisher/gmi": Trace(x=(1, 2, 3), y=(first + shift, rest[0] - shift, rest[1])),
        }
        cells.append(replace(cell("Defended", 0.9, 0.3, seed=seed), traces=traces))
    keys = replace(study().keys, traces=("fisher/task", "fisher/gmi"), matched="")
    bare = replace(study(matched="", columns=["accuracy"]), keys=keys)
    found = Results(study=bare, size="smoke", reading="scored", seeds=(0, 1, 2), cells=tuple(cells))
    (sentence,) = gains(found)
    assert sentence.startswith("Defended: of the layers before the last, the first third has 50.0 %")
    assert told in sentence


def test_profiles_of_one_row_are_drawn_as_one() -> None:
    traces = {"fisher/task": Trace(x=(1, 2), y=(60.0, 40.0)), "fisher/gmi": Trace(x=(1, 2), y=(70.0, 30.0))}
    keys = replace(study().keys, traces=("fisher/task", "fisher/gmi"), matched="")
    bare = replace(study(matched="", columns=["accuracy"]), keys=keys)
    one = replace(cell("Defended", 0.9, 0.3), traces=traces)
    results = Results(study=bare, size="smoke", reading="scored", seeds=(0,), cells=(one,))
    ((kind, series),) = traced(results)
    assert kind.title == "Share of the information, by layer"
    assert [(line.name, len(line.points)) for line in series] == [
        ("Fisher information for naming people", 2),
        ("gmi: Fisher information for rebuilding, l2", 2),
    ]
    two = replace(results, cells=(one, replace(one, row="Plain, stop = 4")))
    assert [len(series) for _, series in traced(two)] == [2, 2]
