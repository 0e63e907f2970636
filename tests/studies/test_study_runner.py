# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import inversion_recipes as tiny
from example_study import small_study
from sfumato.data.base import Data
from sfumato.errors import ConfigError, MissingDataError, StorageError, TrainingError, UnknownNameError
from sfumato.pipeline import run_attack
from sfumato.recipe import Recipe
from sfumato.studies import runner
from sfumato.studies.load import read_study
from sfumato.studies.report import save_study, study_html, study_markdown
from sfumato.studies.results import Results, read_results
from sfumato.studies.runner import run_study
from sfumato.studies.table import study_table
from sfumato.target import Target
from sfumato.targets import fit
from sfumato.types import Certificate
from sfumato.workplace import Workplace


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every target that is trained and every attack that is run."""
    done: list[str] = []

    def trained(target: Target, *args: object, **rest: object) -> object:
        done.append(f"train {target.defense!r}")
        return fit(target, *args, **rest)  # type: ignore[arg-type]

    def attacked(name: str, *args: object, **rest: object) -> object:
        done.append(f"attack {name}")
        return run_attack(name, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr("sfumato.targets.fit", trained)
    monkeypatch.setattr("sfumato.pipeline.run_attack", attacked)
    return done


def count(work: list[str]) -> tuple[int, int]:
    """How many targets were trained and how many attacks run, since the last count."""
    found = sum(name.startswith("train") for name in work), sum(name.startswith("attack") for name in work)
    work.clear()
    return found


def test_a_second_run_fills_gaps_only(workplace: Workplace, work: list[str]) -> None:
    first = run_study(small_study(), "smoke", workplace)
    assert count(work) == (3, 3)
    assert [(cell.row, bool(cell.error)) for cell in first.cells] == [
        ("Plain", False), ("Noise", False), ("Noise+Dropout", False), ("Magic", True), ("Magic+Dropout", True),
    ]  # fmt: skip
    again = run_study(small_study(), "smoke", workplace)
    assert count(work) == (0, 0)
    assert study_table(again) == study_table(first)
    run_study(small_study(), "smoke", workplace, seeds=(0, 1))
    assert count(work) == (3, 3)
    run_study(small_study(), "smoke", workplace, reading="trained")
    assert count(work) == (0, 3)
    other = small_study('"decoder/infer/mse"]', '"mean/infer/psnr"]')
    run_study(other, "smoke", workplace)
    assert count(work) == (0, 3)


def test_what_needs_no_attack_runs_none_and_is_recorded_all_the_same(workplace: Workplace, work: list[str]) -> None:
    table = small_study().table
    columns = {"columns": ["accuracy", "training/parameters"], "gain": {}, "averages": [], "traces": ["loss"]}
    quiet = read_study({**table, **columns, "rows": [{"label": "Plain"}]}, name="quiet")
    (cell,) = run_study(quiet, "smoke", workplace).cells
    assert count(work) == (1, 0)
    assert len(cell.traces["loss"].y) == 1


def test_rows_pretrained_on_other_people_have_pictures_of_their_own(tmp_path: Path) -> None:
    read: dict[object, Data] = {}
    others = '\n[pretrain]\nname = "portraits"\nidentities = 3\nper_identity = 6\nsize = 16\nepochs = 1\nseed = '
    recipes = [tiny.recipe(more=f"{others}{seed}\n") for seed in (5, 6, 5)]
    first, second, again = (runner._read(one, tiny.place(tmp_path), read) for one in recipes)
    assert first.part("pretrain").fingerprint != second.part("pretrain").fingerprint
    assert again is first


def test_the_target_is_trained_once_for_both_readings_and_the_adversaries_differ(workplace: Workplace) -> None:
    cell = run_study(small_study(), "smoke", workplace, reading="trained").cells[0]
    assert set(cell.attacks) == {"private", "test"}
    private, test = ({result.mse.value for result in cell.attacks[name]} for name in ("private", "test"))
    assert not private & test
    assert all(result.queries < 100 for result in cell.attacks["test"])  # 90 % of 48 test pictures


def test_a_seed_is_that_of_target_and_attack(workplace: Workplace) -> None:
    cells = run_study(small_study(), "smoke", workplace, seeds=(0, 1)).of("Noise")
    assert [cell.seed for cell in cells] == [0, 1]
    assert len({cell.target for cell in cells}) == len({cell.recipe for cell in cells}) == 2
    assert {result.seed for cell in cells for result in cell.attacks["private"] if cell.seed == 1} == {1}


@pytest.mark.parametrize("error", [TrainingError("the loss is not finite"), RuntimeError("out of memory")])
def test_a_cell_that_fails_stops_no_other(
    error: Exception, workplace: Workplace, monkeypatch: pytest.MonkeyPatch, work: list[str]
) -> None:
    audited = runner.audit_recipe

    def failing(recipe: object, *args: object) -> object:
        if recipe.name.startswith("Noise,"):  # type: ignore[attr-defined]
            raise error
        return audited(recipe, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "audit_recipe", failing)
    found = run_study(small_study(), "smoke", workplace)
    (cell,) = found.failed
    assert (cell.row, str(error) in cell.error) == ("Noise", True)
    assert len(found.of("Plain")) == len(found.of("Noise+Dropout")) == 1
    monkeypatch.undo()


def test_data_that_are_not_there_end_a_study_at_once(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise MissingDataError("faces: its files are not there. Put them there")

    monkeypatch.setattr(runner, "read_data", missing)
    with pytest.raises(MissingDataError, match="Put them there"):
        run_study(small_study(), "smoke", workplace)


def test_data_of_any_row_that_are_not_there_end_a_study_before_it_trains(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, work: list[str]
) -> None:
    read = runner.read_data

    def missing(recipe: Recipe, place: Workplace) -> Data:
        if recipe.train.epochs == 2:
            raise MissingDataError("faces: its files are not there. Put them there")
        return read(recipe, place)

    monkeypatch.setattr(runner, "read_data", missing)
    other = 'size.smoke = { data = { name = "folder", path = "x" }, train = { epochs = 2 } }'
    with pytest.raises(MissingDataError, match="Put them there"):
        run_study(small_study("p = 0.5 }]", f"p = 0.5 }}]\n{other}"), "smoke", workplace)
    assert count(work) == (0, 0)


def test_a_size_that_is_not_there(workplace: Workplace) -> None:
    with pytest.raises(UnknownNameError, match="the study 'small' has no size 'gpu'; it has smoke"):
        run_study(small_study(), "gpu", workplace)


def test_what_was_found_is_not_told_again(workplace: Workplace) -> None:
    news: list[str] = []
    told = dataclasses.replace(workplace, watch=lambda name, *_: news.append(name))
    run_study(small_study(), "smoke", told)
    assert set(news) == {
        f"{what}{row}, seed 0" for what in ("train ", "decoder on ") for row in ("Plain", "Noise", "Noise+Dropout")
    }
    news.clear()
    run_study(small_study(), "smoke", told)
    assert news == []


def test_the_record_holds_everything_that_is_shown(workplace: Workplace, tmp_path: Path) -> None:
    found = run_study(small_study("gain =", "pictures = 3\ngain ="), "smoke", workplace)
    save_study(found, tmp_path / "small-smoke")
    read = read_results(tmp_path / "small-smoke" / "study.json")
    assert study_table(read) == study_table(found)
    assert (study_markdown(read), study_html(read)) == (study_markdown(found), study_html(found))
    record = json.loads((tmp_path / "small-smoke" / "study.json").read_text())
    assert record["cells"][0]["facts"]["head_parameters"] > 0
    assert record["study"]["rows"][1]["published"] == [90.5, 0.002, 0.004]
    assert len(record["cells"][0]["pictures"]["sent"]) == len(record["cells"][0]["pictures"]["decoder"]) == 3


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    with pytest.raises(StorageError, match="expected the record of a study"):
        read_results(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="expected JSON"):
        read_results(path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="expected the record of a study, format 1"):
        read_results(path)


def test_what_head_and_tail_cost_needs_no_attack(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, work: list[str]) -> None:
    monkeypatch.setattr(runner, "TIMED", 2)
    columns = 'columns = ["head/parameters", "tail/macs", "head/milliseconds"]'
    study = small_study('columns = ["accuracy", "decoder/train/mse", "decoder/infer/mse"]', columns).table
    rows = [{"label": "Noise", "defenses": [{"name": "noise", "sigma": 0.1}], "published": [0.085, 1, 2]}]
    from sfumato.studies.load import read_study

    made = read_study({**study, "rows": rows, "averages": []}, name="cost")
    found = run_study(made, "smoke", workplace)
    assert count(work) == (1, 0)
    (cell,) = found.cells
    assert cell.facts is not None
    assert cell.milliseconds["head"] > 0
    assert cell.milliseconds["tail"] > 0
    assert study_table(found).rows[0].cells[0] == f"{cell.facts.head_parameters / 1e6:#.3g}"


def test_a_row_starts_from_the_trained_model_of_another_whatever_their_cuts(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[dict[str, torch.Tensor]] = []
    after: list[dict[str, torch.Tensor]] = []

    def trained(target: Target, *args: object, **rest: object) -> object:
        before.append({name: value.clone() for name, value in target.split.state_dict().items()})
        history = fit(target, *args, **rest)  # type: ignore[arg-type]
        after.append({name: value.clone() for name, value in target.split.state_dict().items()})
        return history

    monkeypatch.setattr("sfumato.targets.fit", trained)
    study = small_study("sigma = 0.1 }]", 'sigma = 0.1 }]\ncut = "c2"\nstart = "Plain"')
    found = run_study(study, "smoke", workplace)
    assert not found.failed

    def named(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name.partition(".")[2]: value for name, value in state.items()}

    first, noise = named(after[0]), named(before[1])
    assert first.keys() == noise.keys()
    assert all(torch.equal(value, noise[name]) for name, value in first.items())
    assert not all(torch.equal(value, named(before[0])[name]) for name, value in first.items())
    assert "Noise starts from the trained model of Plain" in study_markdown(found)
    assert [cell.data is not None for cell in found.cells] == [True, True, True, False, False]


def test_a_row_that_starts_from_another_model_fails_with_one_message(workplace: Workplace) -> None:
    study = small_study("sigma = 0.1 }]", 'sigma = 0.1 }]\nstart = "Plain"\nsize.smoke.model = { name = "vgg11", cut = "c2" }')
    (cell,) = [cell for cell in run_study(study, "smoke", workplace).failed if cell.row == "Noise"]
    assert "holds the weights of another model" in cell.error


def test_a_curve_has_a_series_for_each_row_that_is_varied(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.studies.report import curves

    audited = runner.audit_recipe
    certificate = Certificate("entropy", "said", None, {"information_nats": 5.0})

    def certified(*args: object) -> object:
        made, stage = audited(*args)  # type: ignore[arg-type]
        return dataclasses.replace(made, certificates=(certificate,)), stage

    monkeypatch.setattr(runner, "audit_recipe", certified)
    text = 'chart = { x = "certificate/entropy/information_nats", y = "decoder/infer/mse" }\ncolumns = '
    made = small_study('columns = ["accuracy",', text + '["certificate/entropy/information_nats",').table
    from sfumato.studies.load import read_study

    rows = [*made["rows"]]
    rows[1] = {**rows[1], "vary": {"noise.sigma": [0.1, 0.3]}, "published": []}
    found: Results = run_study(read_study({**made, "rows": rows}, name="curve"), "smoke", workplace)
    ((drawn, *_),) = curves(found)
    assert [(series.name, len(series.points)) for series in drawn] == [("Plain", 1), ("Noise", 2), ("Noise+Dropout", 2)]
    assert drawn[0].points[0].x.value == 5.0
    assert "<svg" in study_html(found)
