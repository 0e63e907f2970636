# SPDX-License-Identifier: Apache-2.0
"""The demonstrations, on small recipes in the place of those that are shipped."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from sfumato import demo
from sfumato.data.base import Reading
from sfumato.files import read_tensors
from sfumato.recipe import load_recipe
from sfumato.store import Store
from sfumato.workplace import Workplace

SMALL = """
[data]
name = "street"
identities = 4
test_identities = 2
size = 16
[model]
name = "resnet18"
cut = "layer1"
width = 0.125
[train]
epochs = 1
batch_size = 8
optimizer = { name = "sgd", learning_rate = 1e-9 }
[[attacks]]
name = "mean"
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in a folder with a name of the user's own, and small recipes."""
    for scene in demo.FOLDER:
        folder = tmp_path / "recipes" / scene
        folder.mkdir(parents=True)
        for seed, name in enumerate(demo.RUNS):
            (folder / f"{name}.toml").write_text(f"seed = {seed}\n{SMALL}")
    monkeypatch.setattr("sfumato.demo.files", lambda package: tmp_path)
    return tmp_path / 'Proben \U0001f697 "1"'


@pytest.mark.parametrize(("scene", "goes_on"), [("street", True), ("digits", False)])
def test_the_hardened_street_goes_on_from_the_undefended_one(runs: Path, scene: demo.Scene, goes_on: bool) -> None:
    place = Workplace(store=Store(runs), reading=Reading(), device=torch.device("cpu"))
    titles = [audit.title for audit in demo.run_demo(scene, place)]
    assert titles == ["before", "after"]
    before, after = (read_tensors(runs / demo.FOLDER[scene] / name / "weights.safetensors")[0] for name in titles)
    learned = [name for name in before if name.endswith("conv1.weight")]
    assert learned
    assert all(torch.allclose(before[name], after[name], atol=1e-6) == goes_on for name in learned)


def test_the_hardened_run_says_what_it_started_from(runs: Path) -> None:
    place = Workplace(store=Store(runs), reading=Reading(), device=torch.device("cpu"))
    demo.run_demo("street", place)
    written = runs / demo.FOLDER["street"] / "after" / "recipe.toml"
    weights = load_recipe(written).split.weights
    assert weights is not None
    assert weights.is_relative_to(runs)
    assert weights.exists()
    assert "weights" not in tomllib.loads((written.parent.parent / "before" / "recipe.toml").read_text())["model"]
