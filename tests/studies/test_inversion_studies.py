# SPDX-License-Identifier: Apache-2.0
"""The studies of attacks on weights that come with Sfumato: every attack, at sizes whose parts fit each other."""

from __future__ import annotations

import functools
from dataclasses import asdict, replace
from typing import get_args

import pytest
import torch

from sfumato.attacks.naming import names_of
from sfumato.attacks.weights.base import InversionAttack
from sfumato.attacks.weights.ifgmi import IFGMI
from sfumato.data.base import Data
from sfumato.data.resident import ResidentPictures
from sfumato.judge import assemble_judge
from sfumato.models.embedding import last_linear
from sfumato.models.resolve import build_model
from sfumato.priors.base import FOR_TARGET, PriorKind
from sfumato.priors.settings import FULL, SMOKE
from sfumato.priors.train import new_prior
from sfumato.studies.load import load_study, shipped

NAMES = tuple(name for name in shipped() if name.startswith("inversion"))
SIZES = [(name, size) for name in ("inversion-portraits", "inversion-lfw") for size in load_study(name).sizes]
SHAPES = {"portraits": (3, 32, 32), "celeb21": (3, 64, 64), "lfw-gray": (1, 64, 64)}
load = functools.cache(load_study)


def data_of(name: str, size: str) -> str:
    return str(load(name).sizes[size].recipe["data"]["name"])


def test_all_of_them_are_there() -> None:
    assert NAMES == ("inversion-distances", "inversion-lfw", "inversion-portraits")
    assert SIZES == [("inversion-portraits", "smoke"), ("inversion-portraits", "gpu"), ("inversion-lfw", "gpu")]


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_on_weights_is_run_and_no_numbers_of_a_paper_stand_beside(name: str) -> None:
    study = load(name)
    other_presets = {"gmi-original", "kedmi-original", "vmi-gaussian"}
    assert set(study.attacks) == {*names_of(InversionAttack), "lomma-gmi"} - other_presets
    assert not any(row.published for row in study.rows)
    for size in study.sizes:
        recipe = study.recipe(study.rows[0], size, seed=0)
        assert tuple(recipe.inverting) == study.attacks
        assert not [*recipe.attacks, *recipe.inference, *recipe.defenses]
        assert {attack.kind for attack in recipe.inverting.values()} == set(get_args(PriorKind))
        assert recipe.data.private_identities == {"portraits": 40, "celeb21": 10, "lfw-gray": 20}[data_of(name, size)]


@pytest.mark.parametrize("size", ["smoke", "gpu"])
def test_distances_are_other_numbers_of_the_same_runs(size: str) -> None:
    first, other = load("inversion-portraits"), load("inversion-distances")
    assert other.recipe(other.rows[0], size, seed=1).text == first.recipe(first.rows[0], size, seed=1).text


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_target_evaluator_and_priors_of_a_size_fit_each_other(name: str, size: str) -> None:
    study = load(name)
    recipe = study.recipe(study.rows[0], size, seed=0)
    shape, classes = SHAPES[data_of(name, size)], recipe.data.private_identities or 0
    target = build_model(recipe.model, classes=classes, shape=shape, options=recipe.options)
    assert last_linear(target, torch.zeros(1, *shape)).out_features == classes
    empty = ResidentPictures(torch.zeros(0, *shape, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    data = Data(name="people", classes=tuple(map(str, range(classes))), parts={"train": empty, "test": empty})
    evaluator = recipe.inversion.evaluator
    known_as = recipe.model
    judge = assemble_judge(evaluator, data, target, known_as=known_as, device=torch.device("cpu"))
    assert judge.network(torch.zeros(1, *shape)).shape == (1, classes)
    for kind, plan in recipe.inversion.priors.items():
        prior = new_prior(kind, shape, plan.settings, classes=classes if kind in FOR_TARGET else None).eval()
        assert prior.image_shape == shape
        if kind == "style":
            searches = [attack for attack in recipe.inverting.values() if isinstance(attack, IFGMI)]
            assert all(len(attack.steps) <= prior.style.layers for attack in searches)


def test_priors_are_those_of_the_size_with_other_steps() -> None:
    for name, size in SIZES:
        scale = SMOKE if size == "smoke" else FULL
        study = load(name)
        for kind, plan in study.recipe(study.rows[0], size, seed=0).inversion.priors.items():
            assert asdict(replace(plan.settings, steps=1)) == asdict(replace(scale[kind], steps=1))
            assert plan.settings.steps <= scale[kind].steps
