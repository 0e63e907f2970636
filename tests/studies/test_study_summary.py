# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from example_audits import near, result
from example_study import small_study
from sfumato.studies.results import Cell, Reading, Results
from sfumato.studies.study import Study
from sfumato.studies.summary import average, gain, number, over_seeds, pairs, published_gain
from sfumato.studies.table import facts, gains, remarks, study_table
from sfumato.types import Interval


def cell(row: str, train: float, infer: float, *, seed: int = 0, accuracy: float = 0.9, tested: float = 0.5) -> Cell:
    """A cell whose adversary with the pictures of the test part got another error."""
    results = {
        "private": (result(train, part="train"), result(infer), result(7.0, selection="last")),
        "test": (result(tested), result(8.0, part="train")),
    }
    return Cell(row=row, seed=seed, recipe="r", accuracy=near(accuracy), attacks=results, hardware="cpu")


def results(*cells: Cell, study: Study | None = None, reading: Reading = "scored", seeds: tuple[int, ...] = (0,)) -> Results:
    best = study or small_study("gain =", 'selection = "best"\ngain =')
    return Results(study=best, size="smoke", reading=reading, seeds=seeds, cells=cells, versions={"sfumato": "0"})


def test_the_interval_over_seeds_is_students() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 31, 40, 200):
        values = rng.normal(size=count)
        found = over_seeds([Interval(value, -9, 9) for value in values])
        low, high = stats.t.interval(0.95, count - 1, values.mean(), values.std(ddof=1) / math.sqrt(count))
        assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high), rel=1e-3, abs=1e-3)
    assert over_seeds([Interval(1, 0.5, 1.5)]) == Interval(1, 0.5, 1.5)


@pytest.mark.parametrize(("reading", "train", "infer"), [("scored", 0.01, 0.02), ("trained", 0.02, 0.03)])
def test_the_two_readings_of_train_and_infer(reading: Reading, train: float, infer: float) -> None:
    found = results(cell("Plain", 0.01, 0.02, tested=0.03), reading=reading)
    numbers = [number(found, found.study.rows[0], column) for column in found.study.columns]
    assert [interval and interval.value for interval in numbers] == [0.9, train, infer]
    assert any(reading in sentence for sentence in facts(found))


def test_the_weights_that_the_study_scores() -> None:
    found = results(cell("Plain", 0.01, 0.02), study=small_study())
    last = number(found, found.study.rows[0], found.study.columns[2])
    assert last is not None
    assert last.value == 7.0


def test_averages_and_gains_are_those_of_the_pairs_that_were_run() -> None:
    missing = Cell(row="Magic", seed=0, error="needs the defense 'magic', which this version does not have")
    found = results(cell("Plain", 9, 9), cell("Noise", 0.02, 0.04), cell("Noise+Dropout", 0.03, 0.05), missing)
    assert [(one.label, other.label) for one, other in pairs(found)] == [("Noise", "Noise+Dropout")]
    assert [average(found, found.study.columns[1], of).value for of in ("without", "with")] == [0.02, 0.03]  # type: ignore[union-attr]
    assert gain(found, "train").value == pytest.approx(50)  # type: ignore[union-attr]
    assert published_gain(found, "train") == pytest.approx(100)
    first, second = gains(found)
    assert first == (
        "Gain in MSE by what rows add, train: 50.0 % over 1 of 2 pairs; the paper's own rows over these pairs 100.0 %; "
        "the paper says 50.0 % over all."
    )
    assert second.startswith("Gain in MSE by what rows add, infer: 25.0 % over 1 of 2 pairs")


def test_a_gain_over_seeds_is_the_mean_of_those_of_each_seed() -> None:
    cells = [cell(row, train, train, seed=seed) for row, seed, train in (
        ("Noise", 0, 0.1), ("Noise+Dropout", 0, 0.2), ("Noise", 1, 0.1), ("Noise+Dropout", 1, 0.4),
    )]  # fmt: skip
    found = gain(results(*cells, seeds=(0, 1)), "infer")
    assert found is not None
    assert found.value == pytest.approx(200)
    assert (found.high - found.value) == pytest.approx(12.706 * 100, rel=1e-3)


def test_a_pair_of_which_a_seed_failed_is_in_no_average() -> None:
    cells = (cell("Noise", 0.1, 0.1), cell("Noise", 0.1, 0.1, seed=1), cell("Noise+Dropout", 0.2, 0.2))
    found = results(*cells, Cell(row="Noise+Dropout", seed=1, error="boom"), seeds=(0, 1))
    assert pairs(found) == []
    assert gain(found, "train") is None
    cells = ("not run", "94.50", "not run", "0.2520", "not run", "0.2530")
    assert study_table(found).rows[-1] == ("Average with (0 of 2 pairs)", cells)


def test_a_table_leaves_no_row_out_and_says_why_one_is_empty() -> None:
    missing = Cell(row="Magic", seed=0, error="needs the defense 'magic', which this version does not have")
    failed = Cell(row="Noise+Dropout", seed=0, error="TrainingError: the loss is not finite")
    noted = small_study("[90.5, 0.002, 0.004]", '[90.5, 0.002, 0.004]\nnotes.accuracy = "printed elsewhere as 91.5"')
    noted = replace(noted, keys=replace(noted.keys, selection="best"))
    found = results(cell("Plain", 0.01, 0.02), failed, missing, study=noted)
    table = study_table(found)
    assert table.headings == ("", "accuracy (%)", "paper", "decoder train: MSE", "paper", "decoder infer: MSE", "paper")
    assert [row.label for row in table.rows][:5] == ["Plain", "Noise", "Noise+Dropout", "Magic", "Magic+Dropout"]
    assert table.rows[0].cells[:4] == ("90.00 (89.10 to 90.90)", "91.86", "0.0100 (0.00990 to 0.0101)", "0.0010")
    assert [row.cells[0] for row in table.rows[1:4]] == ["not run", "failed", "not run"]
    assert remarks(found) == [
        "Magic: needs the defense 'magic', which this version does not have",
        "Noise+Dropout, seed 0: failed: TrainingError: the loss is not finite",
        "Noise, accuracy (%): printed elsewhere as 91.5",
        "Numbers are made up.",
    ]


def test_one_seed_is_said_to_be_one() -> None:
    assert any("One seed" in sentence for sentence in facts(results(cell("Plain", 1, 1))))
    assert any("Means over 3 seeds" in sentence for sentence in facts(results(seeds=(0, 1, 2))))


def test_a_row_with_some_of_its_seeds_says_so_and_has_no_interval() -> None:
    failed = Cell(row="Noise", seed=1, error="out of memory")
    found = replace(results(cell("Noise", 0.02, 0.04), failed), seeds=(0, 1))
    row = next(row for row in found.study.rows if row.label == "Noise")
    interval = number(found, row, found.study.columns[1])
    assert interval is not None
    assert interval.value == pytest.approx(0.02)
    assert math.isnan(interval.low)
    labels = [line.label for line in study_table(found).rows]
    assert "Noise (1 of 2 seeds)" in labels
