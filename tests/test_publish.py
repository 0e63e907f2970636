# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sfumato.data.base import Data, Reading
from sfumato.errors import StorageError
from sfumato.pipeline import audit_recipe
from sfumato.publish import publish_audit, publish_target
from sfumato.recipe import Recipe, parse_recipe
from sfumato.store import Store
from sfumato.targets import train_recipe
from sfumato.workplace import Workplace

RECIPE = """
data.name = "digits"
model = { name = "lenet5", cut = "c1" }
train.epochs = 1
attacks = [{ name = "mean" }]
audit.pictures = 8
"""


def recipe(more: str = "") -> Recipe:
    return parse_recipe(f"{more}{RECIPE}", name="tiny")


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))


def test_a_run_holds_the_recipe_as_it_was_written_and_the_facts(workplace: Workplace, blobs: Data) -> None:
    made, stage = audit_recipe(recipe(), blobs, workplace)
    folder = publish_audit(recipe(), made, stage, workplace.store, "group/tiny")
    assert folder == workplace.store.root / "group" / "tiny"
    assert (folder / "recipe.toml").read_text() == RECIPE
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["name"], facts["target"]) == ("group/tiny", stage.key)
    assert facts["accuracy"]["value"] == made.accuracy.value
    assert [path.name for path in (workplace.store.root / "group").iterdir()] == ["tiny"]


def test_a_run_that_cannot_be_written_whole_is_not_written(
    workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, stage = audit_recipe(recipe(), blobs, workplace)

    def fail(*_: object, **__: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr("sfumato.report.save", fail)
    with pytest.raises(StorageError, match="full"):
        publish_audit(recipe(), made, stage, workplace.store, "tiny")
    assert [path.name for path in workplace.store.root.iterdir()] == ["stages"]


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_run_of_another_target_loses_its_audit_and_nothing_else(content: str | None, workplace: Workplace, blobs: Data) -> None:
    made, stage = audit_recipe(recipe(), blobs, workplace)
    folder = publish_audit(recipe(), made, stage, workplace.store, "tiny")
    (folder / "notes.txt").write_text("mine")
    publish_target(recipe(), stage, workplace.store, "tiny")
    assert (folder / "audit.json").exists()
    if content is None:
        _, stage = train_recipe(recipe("seed = 1"), blobs, workplace)
    else:
        (folder / "run.json").write_text(content)
    publish_target(recipe(), stage, workplace.store, "tiny")
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "recipe.toml", "run.json", "weights.safetensors"]


def test_fisher_information_of_another_target_is_removed(workplace: Workplace, blobs: Data) -> None:
    folder = workplace.store.root / "tiny"
    folder.mkdir(parents=True)
    fisher = folder / "fisher.json"
    fisher.write_text("{}")
    _, stage = train_recipe(recipe(), blobs, workplace)
    publish_target(recipe(), stage, workplace.store, "tiny")
    assert fisher.exists()  # it was there before there was a run
    publish_target(recipe(), stage, workplace.store, "tiny")
    assert fisher.exists()
    made, other = audit_recipe(recipe("seed = 1\n"), blobs, workplace)
    publish_audit(recipe("seed = 1\n"), made, other, workplace.store, "tiny")
    assert not fisher.exists()
