# SPDX-License-Identifier: Apache-2.0
"""Columns of attacks on weights: which number they show, what is left out where nobody can judge, what is said beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from example_audits import Page, exhibit, inversion, judge, near, pixels, rebuilt
from sfumato.data.base import Reading
from sfumato.errors import ConfigError, RecipeError
from sfumato.inversion_types import Inversion
from sfumato.png import picture, png
from sfumato.store import Store
from sfumato.studies.column import read_column
from sfumato.studies.compared import number
from sfumato.studies.inverted import gallery, kept
from sfumato.studies.load import read_study
from sfumato.studies.measured import measured
from sfumato.studies.report import curves, save_study, study_html
from sfumato.studies.results import Cell, Results, read_results, write_results
from sfumato.studies.runner import run_study
from sfumato.studies.study import Study
from sfumato.studies.table import facts, remarks, study_table
from sfumato.types import DataFacts, Interval
from sfumato.workplace import Workplace

COLUMNS = ["accuracy", "gmi/top1", "gmi/knn"]
TABLE: dict[str, Any] = {
    "title": "Two targets and their weights",
    "source": "nobody2026, Table 3",
    "columns": COLUMNS,
    "extra": ["evaluator/accuracy", "prior/gan/ceiling"],
    "chart": {"x": "accuracy", "y": "gmi/top1"},
    "pictures": 2,
    "size": {
        "smoke": {
            "data": {"name": "portraits", "identities": 8, "per_identity": 6, "size": 16, "private_identities": 4},
            "model": {"name": "cnn4", "width": 0.25},
            "train": {"epochs": 1, "batch_size": 8},
            "evaluator": {"model": "lenet5", "epochs": 1, "gate": 0.0},
            "prior": {"gan": {"width": 4, "latent": 8, "steps": 2, "batch_size": 4}},
            "attacks": [
                {"name": "gmi", "steps": 1, "per_class": 2},
                {"name": "brepmi", "budget": 16, "draws": 8, "directions": 2, "per_class": 1},
            ],
        }
    },
    "rows": [
        {"label": "No defense", "published": [89.0, 30.2, 1600.0]},
        {
            "label": "Smooth",
            "against": "No defense",
            "defenses": [{"name": "label_smoothing"}],
            "published": [83.41, 7.8, 1845.0],
        },
    ],
}


def study(**changes: Any) -> Study:
    return read_study({**TABLE, **changes}, name="weights")


def results(*found: Inversion | None, rows: tuple[str, ...] = ("No defense",), **changes: Any) -> Results:
    """A cell for each record: the seeds of the first row, then those of the next."""
    seeds = len(found) // len(rows)
    cells = tuple(
        Cell(row=rows[place // seeds], seed=place % seeds, accuracy=near(0.9), inversion=kept(one))
        for place, one in enumerate(found)
    )
    return Results(study=study(**changes), size="smoke", reading="scored", seeds=tuple(range(seeds)), cells=cells)


def shown(found: Inversion, text: str) -> Interval | None:
    made = results(found)
    return measured(made.cells[0], read_column(text), made)


@pytest.mark.parametrize(
    ("text", "heading", "source"),
    [
        ("kedmi/top1", "kedmi: attack accuracy (%)", "inversion"),
        ("lomma-gmi/top5", "lomma-gmi: top-5 attack accuracy (%)", "inversion"),
        ("ppa/face", "ppa: face distance", "inversion"),
        ("evaluator/accuracy", "evaluator: accuracy (%)", "evaluator"),
        ("floor/knn", "floor: KNN distance", "yardstick"),
        ("ceiling/factors", "ceiling: error of the factors (%)", "yardstick"),
        ("prior/style/ceiling", "prior style: initial selection alone (%)", "prior"),
        ("drop/kedmi/top1", "kedmi: attack accuracy drop (points)", "inversion"),
        ("drop/kedmi/knn", "kedmi: KNN distance drop (%)", "inversion"),
        ("gap/attack_accuracy", "gap: attack accuracy (%)", "inference"),
    ],
)
def test_headings(text: str, heading: str, source: str) -> None:
    column = read_column(text)
    assert (column.heading, column.source) == (heading, source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kedmi/top", "no measure 'top' .did you mean 'top[15]'"),
        ("prior/style/top1", "'prior/style/top1': no measure 'top1'.*known: ceiling, frechet"),
        ("prior/styl/ceiling", "no kind of prior 'styl' .did you mean 'style'"),
        ("floor/confidence", "'floor/confidence': no measure 'confidence'"),
        ("evaluator/gate", "'evaluator/gate': no measure 'gate'"),
        ("prior/ceiling/style/x", "expected a column such as .*prior/gan/ceiling"),
    ],
)
def test_a_column_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_column(text)


VALUES = {
    "gmi/top1": 0.3, "kedmi/top1": 0.6, "gmi/top5": 0.45, "gmi/confidence": 0.97, "gmi/named": 0.96, "gmi/knn": 412.0,
    "gmi/centroid": 18.5, "gmi/frechet": 88.25, "gmi/kid": -0.0125, "gmi/factors": 0.21, "gmi/face": 1.25, "gmi/unreached": 3,
    "gmi/queries": 4000, "gmi/seconds": 41.5, "evaluator/accuracy": 0.962, "floor/knn": 210.0, "ceiling/knn": 980.0,
    "floor/frechet": 6.5, "ceiling/top1": 0.026, "prior/gan/ceiling": 0.1, "prior/inversion/frechet": 44.0,
}  # fmt: skip
FULL = inversion(rebuilt(factors=near(0.21), face=near(1.25), unreached=3, queries=4000), rebuilt("kedmi", 0.6))
OTHERS = ("confidence", "named", "factors", "face", "unreached", "queries", "seconds")


@pytest.mark.parametrize("text", VALUES)
def test_a_column_shows_the_number_of_its_attack(text: str) -> None:
    interval = shown(FULL, text)
    assert interval is not None
    assert interval.value == pytest.approx(VALUES[text])


def test_what_has_an_interval_keeps_it() -> None:
    assert shown(FULL, "gmi/top1") == near(0.3, 0.1)
    assert shown(FULL, "gmi/frechet") == Interval(88.25, 88.25, 88.25)


@pytest.mark.parametrize("text", ["ppa/top1", "kedmi/factors", "floor/factors", "prior/style/ceiling"])
def test_what_was_not_measured_is_no_number(text: str) -> None:
    assert shown(FULL, text) is None
    empty = results(None)
    assert measured(empty.cells[0], read_column(text), empty) is None


@pytest.mark.parametrize("text", VALUES)
def test_below_the_gate_only_what_the_evaluator_does_not_see_is_quoted(text: str) -> None:
    poor = replace(FULL, evaluator=judge(0.5))
    own = text.split("/")[-1] in OTHERS or text == "evaluator/accuracy"
    assert (shown(poor, text) is not None) == own
    (said,) = [remark for remark in remarks(results(poor)) if "gate" in remark]
    assert said.startswith("No defense, seed 0: The evaluator (resnet18) is right on 50.0 %")
    assert said.endswith("BELOW its gate of 80.0 %. What it says of reconstructions is left out")


def test_several_seeds_of_one_audit_and_of_a_study_are_means() -> None:
    twice = inversion(rebuilt(accuracy=0.3), rebuilt(accuracy=0.5, seed=1))
    interval = shown(twice, "gmi/top1")
    assert interval is not None
    assert interval.value == pytest.approx(0.4)
    made = results(inversion(rebuilt(accuracy=0.29)), inversion(rebuilt(accuracy=0.31)))
    over = number(made, made.study.rows[0], read_column("gmi/top1"))
    assert over is not None
    # two seeds: t(1) = 12.706, s = 0.02 / sqrt(2), over sqrt(2)
    assert (over.value, over.high - over.value) == pytest.approx((0.3, 12.706 * 0.01))
    assert facts(made)[-1] == "Means over 2 seeds, each of which trains and attacks anew, with 95 % t-intervals over the seeds."


def test_defenses_are_rows_and_natural_accuracy_stands_beside() -> None:
    made = results(
        inversion(rebuilt(accuracy=0.3)),
        inversion(rebuilt(accuracy=0.1, knn=near(1845.0))),
        rows=("No defense", "Smooth"),
        extra=["drop/gmi/top1", "drop/gmi/knn"],
    )
    table = study_table(made)
    assert table.headings[:7] == ("", "accuracy (%)", "paper", "gmi: attack accuracy (%)", "paper", "gmi: KNN distance", "paper")
    plain, smooth = (row.cells for row in table.rows)
    assert (plain[1], plain[2], plain[3], plain[5]) == ("89.00", "30.00 (27.00 to 33.00)", "30.20", "1600.00")
    assert smooth[2:4] == ("10.00 (9.00 to 11.00)", "7.80")
    assert smooth[6] == "20.0"  # points
    assert smooth[7] == "−347.8"  # percent: it is farther from the private pictures
    ((series, x, y),) = curves(made)
    assert (x.title, y.title) == ("accuracy", "gmi attack accuracy")
    assert [one.points[0].y.value for one in series] == pytest.approx([30, 10])


@pytest.mark.parametrize(
    ("text", "value", "written"),
    [("gmi/knn", 12345.6, "12,346"), ("floor/frechet", 6.5, "6.5"), ("gmi/kid", -0.0125, "−0.0125"), ("gmi/unreached", 3, "3"),
     ("gmi/queries", 4_000_000, "4,000"), ("gmi/seconds", 1234.56, "1,234.6"), ("gmi/factors", 0.213, "21.30")],
)  # fmt: skip
def test_numbers_are_written_without_powers_of_ten(text: str, value: float, written: str) -> None:
    assert read_column(text).ours(Interval(value, value, value)) == written


def test_who_judged_how_many_classes_and_what_chance_is_stands_above_the_table() -> None:
    counts = {"train": 160, "private": 160, "test": 40, "public": 800, "pretrain": 0, "auxiliary": 800}
    made = results(inversion(), inversion(evaluator=judge(0.9)))
    said = facts(replace(made, data=DataFacts("portraits", "f", counts)))
    assert 'Ours: size "smoke", portraits (160 private, 40 test, 800 public).' in said
    assert (
        "The evaluators (resnet18) are right on 90.0 to 96.2 % of held-out pictures of the classes, with a gate of 80.0 %."
        in said
    )
    assert "20 of 40 classes were attacked; chance is 2.5 %." in said
    assert not any("evaluator" in sentence for sentence in facts(results(None)))
    alone = facts(results(inversion()))
    assert any(sentence.startswith("The evaluator (resnet18) is right on 96.2 %") for sentence in alone)
    assert "those of attacks on weights over classes," in alone[-1]


def test_classes_that_were_not_reached_are_a_remark() -> None:
    made = results(inversion(rebuilt("brepmi", unreached=2)), inversion(rebuilt("brepmi", unreached=4), rebuilt()))
    assert "brepmi did not get to every class, up to 4 of 20 in one audit: these count as failures" in remarks(made)
    assert not any("did not get" in remark for remark in remarks(results(inversion())))


def test_a_record_comes_back_without_galleries_and_single_classes(tmp_path: Path) -> None:
    made = results(FULL)
    path = write_results(made, tmp_path / "study.json")
    (cell,) = read_results(path).cells
    assert cell.inversion is not None
    assert cell.inversion == made.cells[0].inversion
    assert cell.inversion.gallery == ()
    assert all(one.classes == () for one in cell.inversion.attacks)
    assert "anna" not in path.read_text()


def test_a_record_of_before_has_no_attack_on_weights(tmp_path: Path) -> None:
    path = write_results(results(None), tmp_path / "study.json")
    record = json.loads(path.read_text())
    for cell in record["cells"]:
        del cell["inversion"]
    path.write_text(json.dumps(record))
    assert read_results(path).cells[0].inversion is None


def test_pictures_are_what_attacks_rank_first_of_classes_spread_over_the_gallery_and_never_private() -> None:
    exhibits = [exhibit(name, private=pixels(3, seed=9)) for name in ("most", "more", "less", "least")]
    first = exhibits[0].rebuilt[0]
    exhibits[3] = replace(exhibits[3], rebuilt=(replace(first, pixels=pixels(3, seed=7)), exhibits[3].rebuilt[1]))
    found = gallery(exhibits, 2)
    assert list(found) == ["kedmi", "brepmi"]
    assert found["kedmi"] == (png(first.pixels[0]), png(pixels(3, seed=7)[0]))
    assert torch.equal(picture(found["kedmi"][0], (3, 4, 5)), first.pixels[0])
    assert gallery(exhibits, 0) == gallery([], 3) == {}
    page = study_html(replace(results(inversion()), cells=(Cell(row="No defense", seed=0, pictures=found),)))
    assert "Pictures that attacks made of classes" in Page(page).text
    assert len(Page(page).all("img")) == 4


def test_only_attacks_that_a_column_shows_are_run() -> None:
    made = study()
    assert made.attacks == ("gmi",)
    assert list(made.recipe(made.rows[1], "smoke", seed=0).inverting) == ["gmi"]
    assert made.describe("smoke") == "portraits, cnn4, 1 epochs, gmi, 2 rows"
    with pytest.raises(RecipeError, match="size.smoke: no attack 'kedmi', which a column shows"):
        study(extra=["kedmi/top1"])


def test_a_study_of_weights_runs_and_a_second_time_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    extra = ["evaluator/accuracy", "prior/gan/ceiling", "brepmi/unreached", "gmi/factors", "ceiling/factors"]
    made = study(extra=extra, rows=TABLE["rows"][:1])
    place = Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))
    found = run_study(made, "smoke", place, reading="trained")  # without a column of a part both readings are the same
    assert not [cell.error for cell in found.cells if cell.error]
    for row in made.rows:
        assert all(number(found, row, column) is not None for column in made.columns)
    assert [sorted(cell.pictures) for cell in found.cells] == [["brepmi", "gmi"]]
    assert all(len(shown) == 2 for cell in found.cells for shown in cell.pictures.values())
    save_study(found, tmp_path / "out")
    assert study_table(read_results(tmp_path / "out" / "study.json")) == study_table(found)
    monkeypatch.setattr("sfumato.targets.fit", None)
    monkeypatch.setattr("sfumato.attacks.weights.base.InversionAttack.__call__", None)
    assert study_table(run_study(made, "smoke", place)) == study_table(found)
