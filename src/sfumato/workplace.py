# SPDX-License-Identifier: Apache-2.0
"""Where a recipe runs, and the pictures that it runs on: read, and parted among the target, its adversary and others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from sfumato.data.base import Data, Reading
from sfumato.data.game import play
from sfumato.data.identities import by_identity, disjoint, with_pretrain, with_public
from sfumato.data.partition import partition
from sfumato.data.views import check_views
from sfumato.errors import ConfigError
from sfumato.recipe import Recipe
from sfumato.store import Store
from sfumato.task import task_for
from sfumato.types import NamedWatch


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a recipe runs.

    Args:
        store: where runs and stages are.
        reading: where data sets are and how they are read; the recipe's budget goes before.
        device: where to train and attack.
        resume: go on with a training run that was interrupted.
        restart: start an interrupted training run over.
        show_private: put private pictures beside what attacks on weights made of their classes.
        watch: told of the progress.
    """

    store: Store
    reading: Reading
    device: torch.device
    resume: bool = False
    restart: bool = False
    show_private: bool = False
    watch: NamedWatch | None = None


def read_data(recipe: Recipe, workplace: Workplace) -> Data:
    """Read and partition the pictures of a recipe, by person where weights are attacked, and draw its game where it has one.

    Raises:
        ConfigError: they are for another task than the recipe's, or nobody is left for an adversary of the weights.
        DataError: files are missing or cannot be used.
    """
    reading = dataclasses.replace(workplace.reading, budget=recipe.data.budget)
    data = recipe.source.load(reading)
    task_for(data, recipe.task)
    if recipe.inverting or recipe.data.private_identities is not None:
        return _people(recipe, data, reading)
    shares = {"public": recipe.data.public, "reference": recipe.data.reference}
    parted = _with_pretrain(recipe, partition(data, **shares, auxiliary=recipe.data.auxiliary, seed=recipe.seed), reading)
    game = recipe.membership
    if game is None:
        return parted
    if data.task != "classification":
        raise ConfigError(f"attacks on predictions ask about classes, and {data.name} is for {data.task}; take another data set")
    check_views(game.views, data.shape)
    return play(parted, members=game.members, canaries=game.canaries, canary=game.canary, seed=recipe.seed)


def _people(recipe: Recipe, data: Data, reading: Reading) -> Data:
    """Part people: those whom the target knows, and those of whom an adversary has pictures."""
    other = recipe.inversion.public
    if recipe.data.private_identities is None and other is None:
        raise ConfigError(
            "an adversary of the weights has pictures of others; say how many classes of the data the target knows, with "
            "private_identities in [data], or name another data set in [public]"
        )
    if recipe.membership is not None:
        raise ConfigError(
            "attacks on predictions share the pictures of every class, and those on weights the classes; give each a recipe"
        )
    parted = by_identity(data, private=recipe.data.private_identities, pretrain=recipe.data.pretrain_identities, seed=recipe.seed)
    parted = parted if other is None else with_public(parted, other.load(reading))
    apart, left_out = disjoint(parted, tolerated=recipe.data.overlap)
    return _with_pretrain(recipe, dataclasses.replace(apart, left_out=left_out), reading)


def _with_pretrain(recipe: Recipe, data: Data, reading: Reading) -> Data:
    """Add the data set that the model is pretrained on, where the recipe names one, without private pictures."""
    if recipe.pretraining is None or recipe.pretraining.source is None:
        return data
    with_others = with_pretrain(data, recipe.pretraining.source.load(reading))
    apart, left_out = disjoint(with_others, tolerated=recipe.data.overlap, parts=("pretrain",))
    return dataclasses.replace(apart, left_out=data.left_out + left_out)


def say_found(workplace: Workplace, name: str) -> None:
    """Tell of a stage that was computed before.

    Args:
        workplace: whom to tell.
        name: what was computed.
    """
    if workplace.watch is not None:
        workplace.watch(f"{name} (found)", 1, 1)
