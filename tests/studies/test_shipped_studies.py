# SPDX-License-Identifier: Apache-2.0
"""The studies of CEM that come with Sfumato: their published numbers are the paper's, their pairs differ by CEM alone."""

from __future__ import annotations

import functools
import hashlib
import statistics

import pytest

from sfumato.studies.load import load_study, shipped
from sfumato.studies.results import Results
from sfumato.studies.study import SIZES, Study
from sfumato.studies.summary import gain_percent, published_average

NAMES = tuple(name for name in shipped() if name.startswith("cem"))
load = functools.cache(load_study)


def test_every_table_and_figure_of_the_paper_is_there() -> None:
    tables = [f"cem-table{number}" for number in (1, 2, 3, "S1", "S2", "S3", "S4", "S5", "S6")]
    assert {*tables, "cem-fig3", "cem-fig4a", "cem-fig4b", "cem-fig4c", "cem-fig5"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_has_every_size_and_no_defense_is_missing(name: str) -> None:
    study = load(name)
    assert tuple(study.sizes) == SIZES or name == "cem-effect"
    assert not any(row.missing for row in study.rows)
    assert all(study.describe(size) for size in study.sizes)


@pytest.mark.parametrize(
    ("name", "row", "column", "value"),
    [
        ("cem-table1", "No_defense", "accuracy", 91.86),
        ("cem-table1", "Bottleneck+CEM", "gan/infer/mse", 0.0080),
        ("cem-table1", "ResSFL", "decoder/train/mse", 0.0146),
        ("cem-table2", "PATROL+CEM", "decoder/train/mse", 0.0211),
        ("cem-table2", "Bottleneck+CEM", "accuracy", 52.25),
        ("cem-table3", "Noise_ARL+CEM", "gan/train/mse", 0.0212),
        ("cem-tableS5", "Bottleneck", "decoder/infer/mse", 0.0007),
        ("cem-tableS1", "Dropout", "decoder/infer/psnr", 19.82),
        ("cem-tableS2", "Noise_ARL+CEM", "decoder/infer/psnr", 16.27),
        ("cem-tableS3", "Bottleneck+CEM", "accuracy", 52.52),
        ("cem-tableS4", "DistCorr+CEM", "gan/infer/ssim", 0.795),
        ("cem-tableS6", "others", "tail/macs", 133.59),
    ],
)
def test_published_numbers_are_those_of_the_paper(name: str, row: str, column: str, value: float) -> None:
    study = load(name)
    (found,) = [line for line in study.rows if line.label == row]
    assert found.published[[item.text for item in study.columns].index(column)] == value


DIGESTS = {
    "cem-table1": "4afeec1e5ccd",
    "cem-table2": "72a58826ab25",
    "cem-table3": "2b546a972da9",
    "cem-tableS1": "e554946725a9",
    "cem-tableS2": "7cec31940096",
    "cem-tableS3": "8307637eb906",
    "cem-tableS4": "43ceb3e5bf2b",
    "cem-tableS5": "8004097c502a",
    "cem-tableS6": "e308dbc33957",
}


@pytest.mark.parametrize("name", [name for name in NAMES if "table" in name])
def test_published_numbers_are_as_they_were_checked(name: str) -> None:
    """Every number was compared with the paper once; a slip of the keyboard since shows here."""
    study = load(name)
    text = "\n".join(f"{line.label}: {line.published}" for line in (*study.rows, *study.averages))
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == DIGESTS[name]


def test_doubtful_numbers_say_so() -> None:
    notes = {(name, row.label): row.notes for name in NAMES for row in load(name).rows if row.notes}
    assert "52.25" in notes["cem-tableS3", "Bottleneck+CEM"]["accuracy"]
    assert "GAN" in notes["cem-tableS2", "Noise_ARL+CEM"]["decoder/infer/psnr"]
    assert "0.0092" in load("cem-tableS5").averages[1].notes["gan/train/mse"]


@pytest.mark.parametrize("name", [name for name in NAMES if "table" in name and name != "cem-tableS6"])
def test_the_printed_averages_follow_from_the_printed_rows(name: str) -> None:
    study = load(name)
    results = Results(study=study, size="full", reading="scored", seeds=())
    for line in study.averages:
        for column, printed in zip(study.columns, line.published, strict=True):
            if column.text in line.notes or (name, column.text) == ("cem-tableS3", "accuracy"):
                continue  # a contradiction that the study points out
            found = published_average(results, column, line.of)
            unit = 10.0 ** -len(f"{printed:{column.measure.printed}}".split(".")[1])
            assert found == pytest.approx(printed, abs=1.01 * unit)


@pytest.mark.parametrize(
    ("name", "train", "infer"), [("cem-table1", 24.0, 12.9), ("cem-table2", 19.4, 17.7), ("cem-table3", 48.2, 40.1)]
)
def test_the_printed_gains_follow_from_the_printed_averages(name: str, train: float, infer: float) -> None:
    study = load(name)
    assert study.keys.gain == {"train": train, "infer": infer}
    without, added = (line.published for line in study.averages)
    for part, printed in (("train", train), ("infer", infer)):
        places = [place for place, column in enumerate(study.columns) if column.part == part]
        assert gain_percent([(without[place], added[place]) for place in places]) == pytest.approx(printed, abs=0.11)


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_differs_by_cem_alone(name: str) -> None:
    study = load(name)
    rows = {row.label: row for row in study.rows}
    paired = [row for row in study.rows if row.over]
    assert all(row.defenses[:-1] == rows[row.over].defenses and row.defenses[-1]["name"] == "cem" for row in paired)
    for size in study.sizes:
        for row in study.rows_at(size):
            recipe = study.recipe(row, size, seed=0)
            assert row.label in ("No_defense",) or sum(part.noise_std > 0 for part in recipe.defenses) == 1


def sizes_without_rows(study: Study) -> object:
    return {size: (own.recipe, own.defenses) for size, own in study.sizes.items()}


@pytest.mark.parametrize(("study", "base"), [("S1", 1), ("S2", "S5"), ("S3", 2), ("S4", 3)])
def test_other_numbers_of_the_same_runs_cost_nothing(study: str, base: str | int) -> None:
    other, first = load(f"cem-table{study}"), load(f"cem-table{base}")
    rows = {row.label: row for row in first.rows}
    assert len(other.rows) == 14
    assert sizes_without_rows(other) == sizes_without_rows(first)
    for row in other.rows:
        for size in SIZES:
            assert other.recipe(row, size, seed=1).text == first.recipe(rows[row.label], size, seed=1).text


def test_the_variances_of_the_figures_are_the_papers() -> None:
    def variances(name: str, part: str) -> list[float]:
        found = {defense["sigma"] ** 2 for row in load(name).rows for defense in row.defenses if defense["name"] == part}
        return sorted(found)

    assert (variances("cem-fig3", "noise")[0], variances("cem-fig3", "noise")[-1]) == pytest.approx((0.01, 0.3), rel=0.01)
    for name in ("cem-fig4a", "cem-fig4b", "cem-fig4c"):
        found = variances(name, "noise_arl")
        assert (found[0], found[-1]) == pytest.approx((0.001, 0.5), rel=0.01)
    weights = {defense["weight"] for row in load("cem-fig4b").rows for defense in row.defenses if defense["name"] == "cem"}
    assert weights == {2, 8, 16, 32}
    assert {row.cut for row in load("cem-fig4c").rows} == {"c1", "c2", "c3"}
    assert statistics.fmean(len(load(name).rows_at("smoke")) for name in ("cem-fig4a", "cem-fig4b", "cem-fig4c")) <= 12
