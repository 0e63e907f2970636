# SPDX-License-Identifier: Apache-2.0
"""From a recipe to its trained target: read the data, build the target, train it or find it trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from sfumato.audit import hardware, versions
from sfumato.checkpoint import EpochFacts
from sfumato.data.base import RETRIEVAL, Data, Reading
from sfumato.data.game import play
from sfumato.data.identities import by_identity, disjoint, with_public
from sfumato.data.partition import partition
from sfumato.data.views import check_views
from sfumato.defenses.base import Defense
from sfumato.device import require_fit
from sfumato.errors import ConfigError, StorageError
from sfumato.files import file_hash, load_into, of_model, read_tensors, write_tensors
from sfumato.models.resolve import build_model, own_code
from sfumato.recipe import Recipe
from sfumato.split import Cut, cuts, split, whole
from sfumato.store import Stage, Store
from sfumato.target import Target
from sfumato.task import task_for
from sfumato.train import assemble, fit, restore
from sfumato.types import NamedWatch, told_as

_T = TypeVar("_T")
_FORMAT = 1  # raised when the same recipe comes to mean something else, so that stages of before are not found


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
    parted = partition(data, **shares, auxiliary=recipe.data.auxiliary, seed=recipe.seed)
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
    return dataclasses.replace(apart, left_out=left_out)


def build_target(recipe: Recipe, data: Data, workplace: Workplace) -> Target:
    """Return the target of a recipe before it is trained: its model, split, with its defenses.

    Raises:
        ConfigError: its head does not fit the device of the recipe.
        WeightsError: the weights to start from are not a whole safetensors file of this model.
    """
    example = torch.zeros(2, *data.shape, device=workplace.device)

    def model() -> nn.Module:
        made = build_model(recipe.model, classes=len(data.classes), shape=data.shape, options=recipe.options, seed=recipe.seed)
        if recipe.split.weights is not None:
            load_into(made, of_model(read_tensors(recipe.split.weights)[0]), source=recipe.split.weights)
        return made.to(workplace.device)

    def build(cut: str, defenses: Sequence[Defense]) -> Target:
        made = split(model(), at=cut, example=example, name=recipe.model) if cut else whole(model(), name=recipe.model)
        return assemble(made, data, defenses, seed=recipe.seed)

    def found() -> Sequence[Cut]:
        return cuts(model(), example[:1])

    target = build(recipe.split.cut, recipe.defenses)
    if recipe.device is not None:
        require_fit(recipe.device, target, data.shape, defenses=recipe.defenses, cuts=found, build=build)
    return target


def train_recipe(recipe: Recipe, data: Data, workplace: Workplace) -> tuple[Target, Stage]:
    """Return the trained target of a recipe, and its stage. It is trained only where its stage is not done.

    Args:
        recipe: what to train.
        data: its pictures, as `read_data` gives them.
        workplace: where.

    Raises:
        ConfigError: the run was interrupted and neither resume nor restart is asked for, or the head does not fit the device.
        WeightsError: the weights to start from are not a whole safetensors file of this model.
    """
    target = build_target(recipe, data, workplace)
    return target, train_built(target, recipe, data, workplace)


def train_built(target: Target, recipe: Recipe, data: Data, workplace: Workplace) -> Stage:
    """Train the target of a recipe, or find it trained, and return its stage.

    Args:
        target: as `build_target` made it; trained in place.
        recipe: what to train.
        data: its pictures.
        workplace: where.
    """
    stage = target_stage(recipe, data, workplace)
    if stage.done:
        restore(target, read_tensors(stage.weights)[0], source=stage.weights)
        say_found(workplace, f"train {recipe.name}")
        return stage
    with stage.claim():
        _settle_checkpoint(stage, workplace)
        history = fit(
            target,
            data,
            recipe.train,
            task=task_for(data, recipe.task),
            seed=recipe.seed,
            checkpoint=stage.checkpoint,
            definition=stage.key,
            watch=told_as(workplace.watch, f"train {recipe.name}"),
        )
        conclude(stage, target, recipe, data, history)
    return stage


def target_stage(recipe: Recipe, data: Data, workplace: Workplace) -> Stage:
    """Return the stage of a recipe's target, done or not.

    Args:
        recipe: what to train.
        data: its pictures.
        workplace: where.
    """
    return workplace.store.stage("target", _definition(recipe, data))


def conclude(stage: Stage, target: Target, recipe: Recipe, data: Data, history: Sequence[EpochFacts]) -> None:
    """Write down that a target is trained: its weights, what its epochs came to and how useful it is.

    Args:
        stage: of the target, held.
        target: trained.
        recipe: what was trained.
        data: its pictures.
        history: of each epoch.
    """
    write_tensors(stage.weights, target.state_dict(), {"definition": stage.key})
    utility = task_for(data, recipe.task).utility(target, data, recipe.seed)
    stage.finish(
        {
            "accuracy": dataclasses.asdict(next(iter(utility.values()))),
            "utility": {name: dataclasses.asdict(reached) for name, reached in utility.items()},
            "epochs": [dataclasses.asdict(epoch) for epoch in history],
            "seed": recipe.seed,
            "hardware": hardware(target.device),
            "versions": versions(),
        }
    )


def _definition(recipe: Recipe, data: Data) -> dict[str, object]:
    """Return everything that the weights of a target depend on."""
    return {
        "format": _FORMAT,
        "pictures": {
            name: data.part(name).fingerprint for name in ("private", "test", "reference", *RETRIEVAL) if name in data.parts
        },
        "sfumato": version("sfumato"),
        "code": own_code(recipe.model),
        "classes": len(data.classes),
        "model": recipe.model,
        "options": dict(recipe.options),
        "weights": file_hash(recipe.split.weights),
        "cut": recipe.split.cut,
        "defenses": [defense.describe() for defense in recipe.defenses],
        "train": dataclasses.asdict(recipe.train),
        "task": repr(task_for(data, recipe.task)),
        "seed": recipe.seed,
    }


def _settle_checkpoint(stage: Stage, workplace: Workplace) -> None:
    """Keep or remove the checkpoint of an interrupted run, as asked."""
    if not stage.checkpoint.exists() or workplace.resume:
        return
    if not workplace.restart:
        raise ConfigError(
            f"an interrupted training run of this recipe is at {stage.folder}; go on with --resume, or start over with --restart"
        )
    stage.checkpoint.unlink()


def read_record(path: Path, parse: Callable[[object], _T]) -> _T:
    """Read the record of a stage that is done.

    Args:
        path: a JSON file.
        parse: from its values to the record.

    Raises:
        StorageError: it cannot be read.
        ConfigError: it is another record.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}; remove {path.parent} to compute it again") from error


def say_found(workplace: Workplace, name: str) -> None:
    """Tell of a stage that was computed before.

    Args:
        workplace: whom to tell.
        name: what was computed.
    """
    if workplace.watch is not None:
        workplace.watch(f"{name} (found)", 1, 1)
