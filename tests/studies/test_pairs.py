# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from example_pairs import ran, telling_pairs
from inversion_recipes import place
from sfumato.errors import ConfigError, DataError, StorageError
from sfumato.files import read_tensors
from sfumato.studies.pairs import load_pairs
from sfumato.studies.results import Results, read_results
from sfumato.workplace import read_data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """The small study, run, and the folder of runs."""
    root = tmp_path_factory.mktemp("runs")
    return ran(root)[0], root


def test_pairs_are_what_the_attack_ranks_first_beside_a_private_picture_of_the_class(study: tuple[Results, Path]) -> None:
    results, root = study
    pairs = load_pairs(results, place(root))
    assert pairs.facts.rows == ("Plain", "Smoothed")
    assert (pairs.facts.attack, pairs.facts.seed, pairs.facts.data) == ("gmi", 0, "portraits")
    assert pairs.made.shape == (2, 3, 3, 16, 16)
    assert not torch.equal(pairs.made[0], pairs.made[1])
    for number, row in enumerate(pairs.facts.rows):
        (folder,) = [
            folder
            for folder in (root / "stages").glob("inversion-*")
            if json.loads((folder / "definition.json").read_text())["target"] == results.of(row)[0].target
        ]
        stored = read_tensors(folder / "pictures.safetensors")[0]
        assert json.loads((folder / "definition.json").read_text())["classes"] == list(pairs.facts.classes)
        assert torch.equal(pairs.made[number], stored["pixels"][:, 0])
        assert pairs.facts.unreached[number] == int((~stored["reached"]).sum())
    train = read_data(results.study.recipe(results.study.rows[0], "smoke", seed=0), place(root)).part("train")
    for real, number in zip(pairs.real, pairs.facts.classes, strict=True):
        own = train.read((train.labels == number).nonzero().flatten())
        assert any(torch.equal(real, one) for one in own)


def test_a_study_that_is_read_again_has_the_same_pairs_and_nothing_is_computed(
    study: tuple[Results, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, root = study
    monkeypatch.setattr("sfumato.targets.fit", None)
    again = read_results(root / "studies" / "two-smoke" / "study.json")
    first, second = load_pairs(results, place(root)), load_pairs(again, place(root), rows=("Plain", "Smoothed"), attack="gmi")
    assert first.facts == second.facts
    assert torch.equal(first.real, second.real)


def test_rows_in_the_other_order_are_other_pairs(study: tuple[Results, Path]) -> None:
    results, root = study
    pairs, turned = load_pairs(results, place(root)), load_pairs(results, place(root), rows=("Smoothed", "Plain"))
    assert torch.equal(turned.made, pairs.made.flip(0))
    assert turned.facts.fingerprint != pairs.facts.fingerprint


def test_fewer_pairs_are_some_of_all(study: tuple[Results, Path]) -> None:
    results, root = study
    some = load_pairs(results, place(root), count=2)
    assert len(some) == 2
    assert set(some.facts.classes) < set(load_pairs(results, place(root)).facts.classes)
    assert list(some.facts.classes) == sorted(some.facts.classes)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"rows": ("Plain",)},
            "expected two different rows of the study 'two', got 'Plain'; give --rows twice, each time one of",
        ),
        ({"rows": ("Plain", "Plain")}, "two different rows"),
        ({"rows": ("Plain", "Magic")}, "each time one of 'Plain', 'Smoothed'"),
        ({"attack": "kedmi"}, "got 'kedmi'; give --attack, one of 'gmi'"),
        ({"seed": 3}, "expected a seed that the study was run with, 0, got 3"),
    ],
)
def test_a_choice_that_is_not_there_is_refused(study: tuple[Results, Path], chosen: dict[str, object], message: str) -> None:
    results, root = study
    with pytest.raises(ConfigError, match=message):
        load_pairs(results, place(root), **chosen)  # type: ignore[arg-type]


def test_more_than_two_rows_or_one_attack_are_listed(study: tuple[Results, Path]) -> None:
    results, root = study
    one = results.cells[0]
    with pytest.raises(ConfigError, match=r"got none; give --rows twice, each time one of 'Plain', 'Smoothed', 'Third'"):
        load_pairs(replace(results, cells=(*results.cells, replace(one, row="Third"))), place(root))
    assert one.inversion is not None
    more = replace(one.inversion, attacks=(*one.inversion.attacks, replace(one.inversion.attacks[0], name="kedmi")))
    cells = tuple(replace(cell, inversion=more) for cell in results.cells)
    with pytest.raises(ConfigError, match=r"got ''; give --attack, one of 'gmi', 'kedmi'"):
        load_pairs(replace(results, cells=cells), place(root))
    none = replace(results.cells[1], inversion=replace(one.inversion, attacks=()))
    with pytest.raises(ConfigError, match="no attack was run on both"):
        load_pairs(replace(results, cells=(one, none)), place(root))


def test_a_study_without_attacks_on_weights_is_refused(study: tuple[Results, Path]) -> None:
    results, root = study
    bare = replace(results, cells=tuple(replace(cell, inversion=None) for cell in results.cells))
    with pytest.raises(
        ConfigError, match="found none; choose a study with attacks on weights, and run it with: sfumato study run"
    ):
        load_pairs(bare, place(root))
    failed = replace(results, cells=(results.cells[0], replace(results.cells[1], error="no memory")))
    with pytest.raises(ConfigError, match="found 'Plain'"):
        load_pairs(failed, place(root))


def test_stages_that_are_gone_or_are_those_of_another_run_are_said(study: tuple[Results, Path], tmp_path: Path) -> None:
    results, root = study
    with pytest.raises(StorageError, match="what gmi made of 'Plain' with seed 0, found it gone; make it again"):
        load_pairs(results, place(tmp_path))
    shutil.copytree(root / "stages", tmp_path / "stages")
    for facts in (tmp_path / "stages").glob("inversion-*/done.json"):
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "seconds": 1.25}))
    with pytest.raises(StorageError, match="found it gone"):
        load_pairs(results, place(tmp_path))


def test_pictures_that_changed_are_refused(study: tuple[Results, Path]) -> None:
    results, root = study
    told = results.cells[0].data
    assert told is not None
    changed = replace(told, fingerprint="0" * 64)
    with pytest.raises(DataError, match="they have changed since"):
        load_pairs(replace(results, cells=tuple(replace(cell, data=changed) for cell in results.cells)), place(root))
    with pytest.raises(DataError, match="expected rows of the same pictures"):
        load_pairs(replace(results, cells=(results.cells[0], replace(results.cells[1], data=changed))), place(root))


def test_rows_that_attacked_other_classes_are_refused(study: tuple[Results, Path], tmp_path: Path) -> None:
    results, root = study
    shutil.copytree(root / "stages", tmp_path / "stages")
    for path in (tmp_path / "stages").glob("inversion-*/definition.json"):
        definition = json.loads(path.read_text())
        if definition["target"] == results.of("Smoothed")[0].target:
            path.write_text(json.dumps({**definition, "classes": definition["classes"][:2]}))
    with pytest.raises(
        ConfigError, match="expected the same classes attacked in both rows, found 3 in 'Plain' and 2 in 'Smoothed'"
    ):
        load_pairs(results, place(tmp_path))


def test_the_question_is_about_people_where_pictures_show_people() -> None:
    pairs = telling_pairs()
    assert "person" in pairs.question
    assert "person" not in replace(pairs, facts=replace(pairs.facts, data="stanford-dogs")).question
