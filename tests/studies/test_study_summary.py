# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from example_audits import audit, near, result
from example_study import small_study
from sfumato.studies.column import read_column
from sfumato.studies.compared import drop, number
from sfumato.studies.load import read_study
from sfumato.studies.measured import measured, over_seeds
from sfumato.studies.results import Cell, Reading, Results
from sfumato.studies.study import Study
from sfumato.studies.summary import average, gain, over_settings, pairs, published_gain
from sfumato.studies.table import facts, gains, remarks, study_table
from sfumato.types import DataFacts, Interval, Recognition


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


def leaning() -> Study:
    """The small study with its rows against Plain, and columns that are drops."""
    columns = '["drop/accuracy", "drop/decoder/infer/psnr", "drop/decoder/infer/ssim"]\nextra = ["decoder/infer/psnr"]'
    table = dict(small_study('["accuracy", "decoder/train/mse", "decoder/infer/mse"]', columns).table)
    table["rows"] = [{**row, **({"against": "Plain"} if row["label"] != "Plain" else {})} for row in table["rows"][:3]]
    table["rows"][2] |= {"over": "", "defenses": [{"name": "noise", "sigma": 0.1}], "adds": [], "vary": {"noise.sigma": [1, 2]}}
    table["averages"] = [{"label": "Mean", "of": "Noise+Dropout", "published": [1.0, 2.0, 3.0]}]
    return read_study({**table, "selection": "best", "gain": {}}, name="leaning")


def scored(row: str, accuracy: float, psnr: float, ssim: float, *, seed: int = 0) -> Cell:
    made = result(psnr=Interval(psnr, psnr - 1, psnr + 1), ssim=Interval(ssim, ssim, ssim))
    return Cell(row=row, seed=seed, recipe="r", accuracy=Interval(accuracy, 0, 1), attacks={"private": (made,)}, hardware="cpu")


def test_a_drop_is_what_the_paper_means_by_it() -> None:
    """0.84 dB of 18.15 and 0.04 of 0.45 are 4.6 % and 8.9 % in its text; Table VI means 13.6 % and 14.0 %."""
    pairs = ((18.15, 18.15 - 0.84), (0.45, 0.45 - 0.04), (17.18, 14.85), (0.43, 0.37))
    assert [round(100 * drop(*pair, relative=True), 1) for pair in pairs] == [4.6, 8.9, 13.6, 14.0]
    assert drop(0.9, 0.95, relative=False) == pytest.approx(-0.05)
    assert math.isnan(drop(0.0, 1.0, relative=True))


def test_drops_are_from_the_same_seed_of_the_row_that_a_row_stands_against() -> None:
    cells = (
        scored("Plain", 0.90, 20.0, 0.80), scored("Plain", 0.80, 10.0, 0.40, seed=1),
        scored("Noise", 0.85, 18.0, 0.60), scored("Noise", 0.79, 9.0, 0.20, seed=1),
    )  # fmt: skip
    found = results(*cells, study=leaning(), seeds=(0, 1))
    plain, noise = found.study.rows[:2]
    assert [number(found, plain, column).value for column in found.study.columns[:2]] == pytest.approx([0.85, 15.0])  # type: ignore[union-attr]
    drops = [number(found, noise, column) for column in found.study.columns]
    assert [one and one.value for one in drops] == pytest.approx([(0.05 + 0.01) / 2, 0.1, (0.25 + 0.5) / 2, 13.5])
    assert drops[0] is not None
    assert drops[0].high - drops[0].value == pytest.approx(12.706 * 0.02, rel=1e-3)
    first, second = study_table(found).rows[:2]
    assert [cell.split(" (")[0] for cell in first.cells[::2]] == ["85.00 %", "15.00 dB", "0.600", "15.00"]
    assert [cell.split(" (")[0] for cell in second.cells[::2]] == ["3.0", "10.0", "37.5", "13.50"]
    assert first.cells[1::2] == ("91.86 %", "0.00 dB", "0.002")
    assert second.cells[1::2] == ("90.5", "0.002", "0.004")  # as the study has them
    assert any(sentence.startswith("A drop is how far") for sentence in facts(found))


def test_a_drop_of_one_seed_has_no_interval_and_a_whole_number_has() -> None:
    found = results(scored("Plain", 0.9, 20.0, 0.8), scored("Noise", 0.85, 18.0, 0.6), study=leaning())
    plain, noise = study_table(found).rows[:2]
    assert plain.cells[2] == "20.00 dB (19.00 to 21.00)"
    assert noise.cells[2] == "10.0"


def test_rows_against_one_without_numbers_have_no_drops_and_one_remark_says_why() -> None:
    labels = ("Noise", "Noise+Dropout, sigma = 1")
    found = results(*(scored(row, 0.85, 18.0, 0.6) for row in labels), study=leaning())
    table = study_table(found)
    assert table.rows[1].cells[::2] == ("not measured", "not measured", "not measured", "18.00 (17.00 to 19.00)")
    said = [remark for remark in remarks(found) if "drops" in remark]
    assert said == ["'Plain' has no numbers, so these have no drops: Noise, Noise+Dropout, sigma = 1"]


def test_an_average_over_settings_is_that_of_what_a_row_was_varied_into() -> None:
    rows = (
        ("Plain", 0.9, 20.0, 0.8),
        ("Noise+Dropout, sigma = 1", 0.85, 18.0, 0.6),
        ("Noise+Dropout, sigma = 2", 0.8, 17.0, 0.4),
    )
    found = results(*(scored(*row) for row in rows), study=leaning())
    means = [over_settings(found, column, "Noise+Dropout") for column in found.study.columns]
    assert [mean and mean.value for mean in means] == pytest.approx([0.075, 0.125, 0.375, 17.5])
    assert study_table(found).rows[-1] == ("Mean", ("7.5", "1.0", "12.5", "2.0", "37.5", "3.0", "17.50"))
    some = results(*(scored(*row) for row in rows[:2]), study=leaning())
    assert study_table(some).rows[-1].label == "Mean (1 of 2 settings)"
    assert study_table(some).rows[-1].cells[::2] == ("5.0", "10.0", "25.0", "18.00")
    assert study_table(results(study=leaning())).rows[-1].cells[::2] == ("not run",) * 4


def test_what_a_classifier_sees_where_and_how_well_the_target_finds() -> None:
    seen = Recognition("driver", near(0.25), 0.125, near(0.9))
    made = result(regions={"inside": near(0.03), "outside": near(0.01)}, recognized=seen)
    one = Cell(row="Plain", seed=0, attacks={"private": (made,)}, utility={"mAP": near(0.4)}, facts=audit().target)
    found = results(one)
    for text, value in (
        ("decoder/infer/inside", 0.03),
        ("decoder/infer/outside", 0.01),
        ("decoder/infer/recognized", 0.25),
        ("utility/mAP", 0.4),
        ("head/megabytes", 271560.0),
    ):
        interval = measured(one, read_column(text), found)
        assert interval is not None
        assert interval.value == value
    blind = Cell(row="Plain", seed=0, attacks={"private": (result(),)})
    assert [measured(blind, read_column(f"decoder/infer/{key}"), found) for key in ("inside", "recognized")] == [None, None]
    assert measured(blind, read_column("utility/mAP"), found) is None


def test_rows_on_other_pictures_say_which() -> None:
    small, large = (DataFacts("street", "f", {"private": 100, "test": count}) for count in (10, 20))
    cells = [replace(cell(row, 1, 1), data=data) for row, data in (("Plain", small), ("Noise", large), ("Noise+Dropout", small))]
    said = [sentence for sentence in facts(results(*cells)) if sentence.startswith("Ours")]
    assert said == [
        'Ours: size "smoke", street (100 private, 10 test); Plain, Noise+Dropout.',
        'Ours: size "smoke", street (100 private, 20 test); Noise.',
    ]
    assert facts(replace(results(), data=small))[1] == 'Ours: size "smoke", street (100 private, 10 test).'


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
