# SPDX-License-Identifier: Apache-2.0
"""The studies of MCMIA that come with Sfumato: their published numbers are the paper's, what they say of them is arithmetic."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

import pytest
import torch

from sfumato.data.base import Data, Reading
from sfumato.data.game import play
from sfumato.data.partition import partition
from sfumato.models.resolve import build_model
from sfumato.pruning.weights import divide, single
from sfumato.recipe import Recipe
from sfumato.settings import Train
from sfumato.split import whole
from sfumato.store import Store
from sfumato.studies.compared import number
from sfumato.studies.load import load_study, read_study, shipped
from sfumato.studies.report import study_html, traced
from sfumato.studies.results import Results, read_results, write_results
from sfumato.studies.runner import run_study
from sfumato.studies.study import SIZES, Study, merge
from sfumato.studies.table import paper_table, remarks, study_table
from sfumato.workplace import Workplace

NAMES = tuple(name for name in shipped() if name.startswith("mcmia"))
TABLES = tuple(name for name in NAMES if "table" in name)
FIGURES = tuple(name for name in NAMES if "fig" in name)
ATTACKED = "nasr/attack_accuracy"
load = functools.cache(load_study)


def published(name: str, label: str) -> dict[str, float]:
    study = load(name)
    return dict(zip(study.keys.columns, study.row(label).published, strict=True))


def test_every_table_and_figure_of_the_paper_is_there() -> None:
    tables = {f"mcmia-table{number}" for number in range(1, 7)}
    assert {*tables, *(f"mcmia-fig{number}" for number in range(2, 6)), "mcmia-effect"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_has_every_size_and_every_cell_is_a_recipe_of_predictions(name: str) -> None:
    study = load(name)
    assert tuple(study.sizes) == (("smoke",) if name == "mcmia-effect" else SIZES)
    for size in study.sizes:
        assert "cut at" not in study.describe(size)
        for one in study.rows_at(size):
            recipe = study.recipe(one, size, seed=0)
            assert not recipe.attacks
            assert recipe.inference
            assert recipe.membership is not None
            assert recipe.membership.adaptive
            assert recipe.data.reference > 0  # members are the same with Min-Max and without


@pytest.mark.parametrize(
    ("name", "label", "column", "value"),
    [
        ("mcmia-table1", "CIFAR-10 CNN, DP", "accuracy", 68.10),
        ("mcmia-table1", "MNIST LeNet-5, DP", ATTACKED, 78.54),
        ("mcmia-table1", "MNIST LeNet-5, MCMIA", "accuracy", 99.30),
        ("mcmia-table2", "MNIST LeNet-5, baseline", ATTACKED, 67.00),
        ("mcmia-table2", "CIFAR-10 VGG16, Min-Max", ATTACKED, 60.35),
        ("mcmia-table2", "CIFAR-100 VGG16, baseline", ATTACKED, 67.628),
        ("mcmia-table2", "CIFAR-100 MobileNetV2, MCMIA-Pruning", "accuracy", 57.72),
        ("mcmia-table2", "CIFAR-100 ResNet-18, MCMIA-Pruning", ATTACKED, 74.31),
        ("mcmia-table3", "ImageNet ResNet-18, MCMIA-Pruning", ATTACKED, 61.27),
        ("mcmia-table4", "CIFAR-100 VGG16, MCMIA-Pruning & Min-Max", "accuracy", 54.71),
        ("mcmia-table5", "ImageNet ResNet-18, MCMIA-Pruning", "compression/ratio", 3.37),
        ("mcmia-table5", "MNIST LeNet-5, MCMIA-Pruning", "compression/kept", 3.8),
        ("mcmia-table6", "MCMIA-Pruning & Min-Max", "members/accuracy", 92.86),
    ],
)
def test_published_numbers_are_those_of_the_paper(name: str, label: str, column: str, value: float) -> None:
    assert published(name, label)[column] == value


DIGESTS = {
    "mcmia-table1": "d34082649a1f",
    "mcmia-table2": "a59efeeb1bd9",
    "mcmia-table3": "828d1c9d7e3c",
    "mcmia-table4": "9ae929074abf",
    "mcmia-table5": "5f279fbdc3cb",
    "mcmia-table6": "080481a7a20b",
}


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_are_as_they_were_checked(name: str) -> None:
    """Every number was compared with the paper once; a slip of the keyboard since shows here."""
    text = "\n".join(f"{one.label}: {one.published}" for one in load(name).rows if one.published)
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == DIGESTS[name]


def test_numbers_that_occur_twice_agree_but_where_a_note_says_so() -> None:
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for name in TABLES[:4]:
        for one in load(name).rows:
            label = one.label.replace("LeNet-5, MCMIA-Pruning", "LeNet-5, MCMIA")
            for column, value in published(name, one.label).items() if one.published else ():
                found.setdefault((label, column), []).append((value, one.notes.get(column, "")))
    assert len(found[("MNIST LeNet-5, MCMIA", "accuracy")]) == 3
    for values in found.values():
        assert len({value for value, _ in values}) == 1 or any(" in Table " in note for _, note in values)


def gap_at_most(accuracy: float) -> float:
    """What the gap attack reaches where every member is named right, in percent."""
    return 50 + (100 - accuracy) / 2


def test_the_yardstick_of_the_gap_attack_is_arithmetic() -> None:
    for label in ("baseline", "MCMIA-Pruning"):
        note = load("mcmia-table2").row(f"MNIST LeNet-5, {label}").notes[ATTACKED]
        values = published("mcmia-table2", f"MNIST LeNet-5, {label}")
        assert f"{values['accuracy']} %" in note
        assert float(re.findall(r"reaches (\S+) % at most", note)[0]) == pytest.approx(gap_at_most(values["accuracy"]), abs=0.006)
    for one in load("mcmia-table6").rows:
        values = published("mcmia-table6", one.label)
        reached = 50 + (values["members/accuracy"] - values["accuracy"]) / 2
        assert float(re.findall(r"reaches (\S+) %", one.notes[ATTACKED])[0]) == pytest.approx(reached, abs=0.006)
        assert reached < values[ATTACKED]


def test_what_notes_say_of_the_numbers_is_so() -> None:
    def value(table: int, label: str, column: str = ATTACKED) -> float:
        return published(f"mcmia-table{table}", label)[column]

    setups = {one.setup for one in load("mcmia-table2").rows}
    better = [setup for setup in setups if value(2, f"{setup}, MCMIA-Pruning") < value(2, f"{setup}, Min-Max")]
    assert (len(setups), len(better)) == (6, 3)
    assert value(2, "CIFAR-100 VGG16, Min-Max") > value(2, "CIFAR-100 VGG16, baseline")
    assert value(2, "CIFAR-100 ResNet-18, MCMIA-Pruning") > value(2, "CIFAR-100 ResNet-18, baseline") == 69.85
    assert value(1, "MNIST LeNet-5, DP") > value(2, "MNIST LeNet-5, baseline")
    assert value(4, "MNIST LeNet-5, MCMIA-Pruning & Min-Max") > value(4, "MNIST LeNet-5, MCMIA-Pruning") == 53.41
    mobile = [value(2, f"CIFAR-100 MobileNetV2, {row}", "accuracy") for row in ("baseline", "MCMIA-Pruning", "Min-Max")]
    assert [mobile[0] - one for one in mobile[1:]] == pytest.approx([6.42, 0.78])
    vgg = [published("mcmia-table4", f"CIFAR-100 VGG16, MCMIA-Pruning{both}") for both in ("", " & Min-Max")]
    assert [vgg[0][key] - vgg[1][key] for key in ("accuracy", ATTACKED)] == pytest.approx([12.22, 0.96])
    ten = [value(4, f"CIFAR-10 VGG16, MCMIA-Pruning{both}") for both in ("", " & Min-Max")]
    assert ten[0] - ten[1] == pytest.approx(3.09)
    assert f"{100 * 60_000 / 70_000:.1f} %" in " ".join(load("mcmia-table2").keys.notes)


def test_the_ratios_of_table_5_are_those_of_its_weights_but_where_a_note_says_so() -> None:
    for one in load("mcmia-table5").rows:
        values = published("mcmia-table5", one.label)
        ratio = values["compression/weights"] / values["compression/kept"]
        if "compression/ratio" in one.notes:
            assert f"{ratio:.2f}" in one.notes["compression/ratio"]
        else:  # weights after pruning have two or three digits
            assert ratio == pytest.approx(values["compression/ratio"], rel=0.015)


@pytest.mark.parametrize(
    ("label", "classes", "said"),
    [
        ("CIFAR-10 MobileNetV2, MCMIA-Pruning", (10, 100), ("2.20", "2.32")),
        ("ImageNet ResNet-18, MCMIA-Pruning", (1000,), ("11.68",)),
    ],
)
def test_what_a_note_says_of_our_networks_is_so(label: str, classes: tuple[int, ...], said: tuple[str, ...]) -> None:
    study = load("mcmia-table5")
    shape = (3, 224, 224) if "ImageNet" in label else (3, 32, 32)
    recipe = study.recipe(study.row(label), "full", seed=0)
    for count, text in zip(classes, said, strict=True):
        model = build_model(recipe.model, classes=count, shape=shape, options=recipe.options, seed=0)
        weights = sum(group.size for group in single(whole(model)))
        assert f"{weights / 1e6:.2f}" == text
        assert text in study.row(label).notes["compression/weights"]


@pytest.mark.parametrize("setup", ["MNIST LeNet-5", "CIFAR-10 VGG16", "CIFAR-100 ResNet-18", "ImageNet MobileNetV2"])
def test_a_network_is_pruned_by_the_papers_ratio(setup: str) -> None:
    study, label = load("mcmia-table5"), f"{setup}, MCMIA-Pruning"
    recipe, printed = study.recipe(study.row(label), "full", seed=0), published("mcmia-table5", label)
    classes = {"MNIST": 10, "CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}[setup.split()[0]]
    shape = {"MNIST": (1, 28, 28), "ImageNet": (3, 224, 224)}.get(setup.split()[0], (3, 32, 32))
    groups = single(whole(build_model(recipe.model, classes=classes, shape=shape, options=recipe.options, seed=0)))
    (defense,) = recipe.defenses
    assert defense.ratio == printed["compression/ratio"]
    kept = sum(divide(groups, defense.ratio))
    assert sum(group.size for group in groups) / kept == pytest.approx(defense.ratio, rel=1e-3)


def test_a_setup_is_pruned_by_one_ratio_in_all_studies() -> None:
    ratios: dict[str, set[float]] = {}
    for name in NAMES:
        for one in load(name).rows:
            for part in one.defenses:
                if part["name"] == "mcmia":
                    ratios.setdefault(one.setup or "MNIST LeNet-5", set()).add(part["ratio"])
    assert ratios["MNIST LeNet-5"] == {15.78}
    assert len(ratios) == 9
    assert all(len(found) == 1 for found in ratios.values())


def key(recipe: Recipe) -> object:
    """What the weights of a target and its reference models depend on."""
    defenses = [defense.describe() for defense in recipe.defenses]
    return recipe.source, recipe.data, recipe.model, recipe.options, defenses, recipe.train, recipe.membership


@pytest.mark.parametrize("size", SIZES)
def test_tables_and_figures_share_their_runs(size: str) -> None:
    known: dict[object, object] = {}
    twice = 0
    for name in (*TABLES, *FIGURES):
        for one in load(name).rows:
            row = (one.setup, *(part["name"] for part in one.defenses))
            found = key(load(name).recipe(one, size, seed=0))
            twice += row in known
            assert known.setdefault(row, found) == found
    assert twice > 25


def test_what_differential_privacy_cannot_train_is_not_asked_of_it() -> None:
    private = [one for one in load("mcmia-table1").rows if any(part["name"] == "dpsgd" for part in one.defenses)]
    assert len(private) == 2
    for one in private:
        recipe = load("mcmia-table1").recipe(one, "full", seed=0)
        model = build_model(recipe.model, classes=10, shape=(3, 32, 32), options=recipe.options, seed=0)
        assert not any("BatchNorm" in type(part).__name__ for part in model.modules())
        assert recipe.train.augment == Train().augment  # as many pictures of one count as one


def test_the_attack_of_figure_2_is_trained_for_as_many_epochs_as_its_name_says() -> None:
    study = load("mcmia-fig2")
    for size in SIZES:
        attacks = study.recipe(study.rows[0], size, seed=0).inference
        named = {name: int(found[1]) for name in attacks if (found := re.fullmatch(r"nasr-(\d+)", name))}
        assert list(named.values()) == [1, 2, 5, 10, 20, 50]
        assert all(attacks[name].epochs == epochs for name, epochs in named.items())  # type: ignore[attr-defined]
        rest = {tuple(sorted({**vars(attacks[name]), "epochs": 0}.items())) for name in (*named, "nasr")}
        assert len(rest) == 1


def test_figures_have_traces_and_no_numbers() -> None:
    for name in FIGURES:
        study = load(name)
        assert study.keys.traces
        assert not any(one.published for one in study.rows)
        assert "not readable as numbers" in " ".join(study.keys.notes)
        assert {one.setup for one in study.rows} == {"CIFAR-10 VGG16"}


def test_the_page_of_a_study_shows_the_papers_numbers() -> None:
    _, lines = paper_table(load("mcmia-table5"))
    assert lines[0].cells[1:] == ("60", "3.8", "15.78")
    assert lines[1].cells[1:3] == ("13,830", "1,080")
    _, lines = paper_table(load("mcmia-table2"))
    assert lines[0].cells == ("none", "99.30", "67.00")


LABELS = ("Baseline", "MCMIA-Pruning", "Min-Max Game", "MCMIA-Pruning & Min-Max")


@pytest.fixture
def place(tmp_path: Path, blobs: Data, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A place whose only pictures are the blobs, with a game."""

    def read(recipe: Recipe, _: Workplace) -> Data:
        assert recipe.membership is not None
        parted = partition(blobs, reference=recipe.data.reference, seed=recipe.seed)
        return play(parted, members=recipe.membership.members, seed=recipe.seed)

    monkeypatch.setattr("sfumato.studies.runner.read_data", read)
    return Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))


def tiny(name: str, labels: tuple[str, ...] = LABELS) -> Study:
    """A study with some of its rows, at a size that takes seconds."""
    small = {
        "model": {"name": "cnn4", "width": 0.125},
        "membership": {"members": 40, "references": 4, "workers": 1},
        "train": {"epochs": 3, "batch_size": 20},
        "defenses": {"minmax": {"passes": 1, "batch_size": 8}},
    }
    table = {**merge(load(name).table, {"size": {"smoke": small}}), "setups": {"CIFAR-10 VGG16": {}}}
    return read_study({**table, "rows": [one for one in table["rows"] if one["label"] in labels]}, name="tiny")


@pytest.mark.timeout(300)
def test_table_6_runs_from_pictures_to_numbers(place: Workplace, tmp_path: Path) -> None:
    found = run_study(tiny("mcmia-table6", LABELS[::3]), "smoke", place)
    assert not found.failed, found.failed[0].error
    for one in found.study.rows:
        for column in found.study.columns:
            if column.text != "lira/tpr_at_1":
                assert number(found, one, column) is not None, (one.label, column.text)
    assert {cell.membership.references for cell in found.cells if cell.membership} == {4}
    assert len({cell.target for cell in found.cells}) == 2
    assert [cell.facts.compression is not None for cell in found.cells if cell.facts] == [False, True]
    assert study_table(found).sources[2:4] == (("ours", "paper"), ("ours",))
    said = " ".join(remarks(found))
    assert "too few non-members (40)" in said
    assert "the gap attack reaches 54.19 %" in said
    assert all(not result.roc.fpr for cell in found.cells if cell.membership for result in cell.membership.results)
    read = read_results(write_results(found, tmp_path / "study.json"))
    assert read == found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_every_row(name: str, place: Workplace) -> None:
    found: Results = run_study(tiny(name, LABELS[:2]), "smoke", place)
    assert not found.failed, found.failed[0].error
    drawn = traced(found)
    assert len(drawn) == len(found.study.keys.traces)
    for _, series in drawn:
        assert [one.name for one in series] == ["Baseline", "MCMIA-Pruning"]
        assert all(one.points for one in series)
    assert study_html(found).count("<svg") == 2 * len(drawn)


@pytest.mark.timeout(300)
def test_other_members_are_other_pictures(place: Workplace) -> None:
    study = tiny("mcmia-table6", LABELS[:1])
    row = {"label": "More", "size": {"smoke": {"membership": {"members": 60}}}}
    more = read_study({**study.table, "rows": [*study.table["rows"], row]}, name="more")
    found = run_study(more, "smoke", place)
    assert [cell.membership.members for cell in found.cells if cell.membership] == [40, 60]
