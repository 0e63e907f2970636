# SPDX-License-Identifier: Apache-2.0
"""From a recipe to its trained target: pretrain its model, build the target, train it, or find it trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from sfumato.audit import hardware, versions
from sfumato.checkpoint import EpochFacts, load
from sfumato.data.base import RETRIEVAL, Data
from sfumato.data.identities import pretraining_data
from sfumato.defenses.base import Defense
from sfumato.device import require_fit
from sfumato.errors import ConfigError, StorageError, WeightsError
from sfumato.files import file_hash, load_into, of_model, read_tensors, write_atomic, write_tensors
from sfumato.models.resolve import build_model, own_code
from sfumato.models.transfer import transfer
from sfumato.recipe import Recipe
from sfumato.split import Cut, cuts, split, whole
from sfumato.store import Stage
from sfumato.target import Target
from sfumato.task import task_for
from sfumato.train import assemble, fit, restore
from sfumato.types import told_as
from sfumato.workplace import Workplace, say_found

_T = TypeVar("_T")
_FORMAT = 1  # raised when the same recipe comes to mean something else, so that stages of before are not found


def build_target(recipe: Recipe, data: Data, workplace: Workplace) -> Target:
    """Return the target of a recipe before it is trained: its model, pretrained where it is so, split, with its defenses.

    Raises:
        ConfigError: its head does not fit the device of the recipe, or there is nobody to pretrain on.
        WeightsError: the weights to start from are not those that the recipe says, in a safetensors file.
    """
    example = torch.zeros(2, *data.shape, device=workplace.device)
    pretrained = pretrain(recipe, data, workplace)

    def model() -> nn.Module:
        made = build_model(recipe.model, classes=len(data.classes), shape=data.shape, options=recipe.options, seed=recipe.seed)
        if recipe.split.weights is not None:
            tensors, facts = read_tensors(recipe.split.weights)
            if any(defense.name == "tl_dmi" for defense in recipe.defenses):
                _refuse_private(facts, data, recipe.split.weights)
            load_into(made, of_model(tensors), source=recipe.split.weights)
        made = made.to(workplace.device)
        if pretrained is not None and recipe.pretraining is not None:
            tensors, facts = read_tensors(pretrained)
            _refuse_private(facts, data, pretrained)
            transfer(made, tensors, example=example, fresh=recipe.pretraining.fresh, source=pretrained)
        return made

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
    run = _stopped(stage, 0, workplace).key  # checkpoints along one run are those of one run
    with stage.claim():
        _settle_checkpoint(stage, workplace)
        if not recipe.train.finetune:
            _go_on(stage, recipe.train.total, run, workplace)
        history = fit(
            target,
            data,
            recipe.train,
            task=task_for(data, recipe.task),
            seed=recipe.seed,
            checkpoint=stage.checkpoint,
            definition=run,
            watch=told_as(workplace.watch, f"train {recipe.name}"),
        )
        conclude(stage, target, recipe, data, history)
    return stage


def pretrain(recipe: Recipe, data: Data, workplace: Workplace) -> Path | None:
    """Pretrain the model of a recipe on other people, or find it pretrained, and return where its weights are.

    A tenth of the pictures of each class is held out, to say how good it became.

    Args:
        recipe: what to train.
        data: its pictures, the part `pretrain` among them.
        workplace: where.

    Returns:
        A file; None where the model starts as it is drawn, or from whole weights.

    Raises:
        DataError: there is nobody to pretrain on.
    """
    plan = recipe.pretraining
    if plan is None or recipe.split.weights is not None:  # a study starts a row from whole weights
        return None
    if plan.train is None:
        return plan.weights
    seed = recipe.seed if plan.seed is None else plan.seed
    others = pretraining_data(data, seed=seed)
    plain = dataclasses.replace(recipe, defenses=(), train=plan.train, task=None, pretraining=None, device=None, seed=seed)
    plain = dataclasses.replace(plain, split=dataclasses.replace(recipe.split, cut=""), name=f"{recipe.model} on others")
    if not target_stage(plain, others, workplace).done:  # what is wrong with the target shows before hours of training
        build_target(dataclasses.replace(recipe, pretraining=None), data, workplace)
    return train_recipe(plain, others, workplace)[1].weights


def _refuse_private(facts: Mapping[str, str], data: Data, weights: Path) -> None:
    """Raise where weights to start from say that they were trained on the private pictures."""
    if facts.get("private") in {data.parts[name].fingerprint for name in ("private", "train") if name in data.parts}:
        raise ConfigError(
            f"weights to start from must not know the private pictures, but {weights} were trained on them; give weights that "
            "others' pictures trained, or let [pretrain] train them"
        )


def describe_start(recipe: Recipe, data: Data) -> str:
    """Say whose weights the training of a recipe's target starts from, without a full stop.

    Args:
        recipe: what was trained.
        data: its pictures.
    """
    plan = recipe.pretraining
    if recipe.split.weights is not None:
        return f"the weights in {recipe.split.weights.name}"
    if plan is None or (plan.train is None and plan.weights is None):
        return "weights as they are drawn"
    if plan.train is None:
        assert plan.weights is not None  # noqa: S101 -- just above
        return f"the weights in {plan.weights.name}, of whose making nothing is known"
    others = data.part("pretrain")
    people = len(others.labels.unique())
    return f"weights that {plan.train.epochs} epochs on {len(others):,} pictures of {people:,} others made"


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
    seen = data.part("private").fingerprint
    write_tensors(stage.weights, target.state_dict(), {"definition": stage.key, "private": seen})
    utility = task_for(data, recipe.task).utility(target, data, recipe.seed)
    stage.finish(
        {
            "accuracy": dataclasses.asdict(next(iter(utility.values()))),
            "utility": {name: dataclasses.asdict(reached) for name, reached in utility.items()},
            "parameters": sum(parameter.numel() for parameter in target.split.parameters() if parameter.requires_grad),
            "epochs": [dataclasses.asdict(epoch) for epoch in history],
            "seed": recipe.seed,
            "hardware": hardware(target.device),
            "versions": versions(),
        },
        keep=recipe.train.stop > 0,
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
        "pretraining": _start(recipe, data),
        "cut": recipe.split.cut,
        "defenses": [defense.describe() for defense in recipe.defenses],
        "train": dataclasses.asdict(recipe.train),
        "task": repr(task_for(data, recipe.task)),
        "seed": recipe.seed,
    }


def _start(recipe: Recipe, data: Data) -> dict[str, object] | None:
    """Return what the weights that a model starts from depend on, beside what those of the target do."""
    plan = recipe.pretraining
    if plan is None or recipe.split.weights is not None:
        return None
    pictures = None if plan.train is None else data.part("pretrain").fingerprint
    train = None if plan.train is None else dataclasses.asdict(plan.train)
    seed = {} if plan.seed is None else {"seed": plan.seed}  # the recipe's own is in the definition already
    return {"weights": file_hash(plan.weights), "fresh": list(plan.fresh), "pictures": pictures, "train": train, **seed}


def _go_on(stage: Stage, epochs: int, run: str, workplace: Workplace) -> None:
    """Begin a training run at the last of its earlier stops that is there, if the run itself was not begun.

    A checkpoint that cannot be read, or of another run, is passed over: what it would have spared is trained again.
    """
    if stage.checkpoint.exists():
        return
    for stop in range(epochs, 0, -1):
        found = _stopped(stage, stop, workplace)
        if found.done and found.checkpoint.exists():
            try:
                load(found.checkpoint, definition=run)
            except WeightsError:
                continue
            write_atomic(stage.checkpoint, found.checkpoint.read_bytes())
            return


def _stopped(stage: Stage, stop: int, workplace: Workplace) -> Stage:
    """Return the stage of a target whose run stops after so many epochs, or after all where 0."""
    train = stage.definition["train"]
    assert isinstance(train, dict)  # noqa: S101 -- as `_definition` made it
    return workplace.store.stage("target", {**stage.definition, "train": {**train, "stop": stop}})


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
