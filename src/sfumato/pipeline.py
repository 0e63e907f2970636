# SPDX-License-Identifier: Apache-2.0
"""Take a recipe through its stages: read the data, train the target or find it trained, attack it or find it attacked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from sfumato.analysis.certify import certify
from sfumato.audit import assemble_audit, hardware, run_attack, sample, versions
from sfumato.data.base import RETRIEVAL, Data, Pictures, Reading
from sfumato.data.partition import partition
from sfumato.defenses.base import Defense
from sfumato.device import require_fit
from sfumato.errors import ConfigError, StorageError
from sfumato.files import file_hash, load_into, of_model, read_tensors, write_json, write_tensors
from sfumato.metrics.image import lpips_is_there
from sfumato.models.resolve import build_model, own_code
from sfumato.recipe import Recipe
from sfumato.recognize import Recognizer, Witness, learn
from sfumato.recognize import assemble as assemble_witness
from sfumato.record import certificates_from_json, certificates_to_json, findings_from_json, findings_to_json
from sfumato.split import Cut, cuts, split
from sfumato.store import Stage, Store
from sfumato.target import Target
from sfumato.task import task_for
from sfumato.train import assemble, fit, restore
from sfumato.types import Audit, Certificate, Findings, Interval, NamedWatch, Part, told_as

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
        watch: told of the progress.
    """

    store: Store
    reading: Reading
    device: torch.device
    resume: bool = False
    restart: bool = False
    watch: NamedWatch | None = None


def read_data(recipe: Recipe, workplace: Workplace) -> Data:
    """Read and partition the pictures of a recipe.

    Raises:
        ConfigError: they are for another task than the recipe's.
        DataError: files are missing or cannot be used.
    """
    reading = dataclasses.replace(workplace.reading, budget=recipe.data.budget)
    data = recipe.source.load(reading)
    task_for(data, recipe.task)
    shares = {"public": recipe.data.public, "reference": recipe.data.reference}
    return partition(data, **shares, auxiliary=recipe.data.auxiliary, seed=recipe.seed)


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
        return assemble(split(model(), at=cut, example=example, name=recipe.model), data, defenses, seed=recipe.seed)

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
    return target, _train(target, recipe, data, workplace)


def _train(target: Target, recipe: Recipe, data: Data, workplace: Workplace) -> Stage:
    """Train the target of a recipe, or find it trained, and return its stage."""
    stage = workplace.store.stage("target", _definition(recipe, data))
    weights = stage.weights
    if stage.done:
        restore(target, read_tensors(weights)[0], source=weights)
        _say_found(workplace, f"train {recipe.name}")
        return stage
    with stage.claim():
        _settle_checkpoint(stage, workplace)
        told = told_as(workplace.watch, f"train {recipe.name}")
        task = task_for(data, recipe.task)
        history = fit(
            target,
            data,
            recipe.train,
            task=task,
            seed=recipe.seed,
            checkpoint=stage.checkpoint,
            definition=stage.key,
            watch=told,
        )
        write_tensors(weights, target.state_dict(), {"definition": stage.key})
        utility = task.utility(target, data, recipe.seed)
        stage.finish(
            {
                "accuracy": dataclasses.asdict(next(iter(utility.values()))),
                "utility": {name: dataclasses.asdict(reached) for name, reached in utility.items()},
                "epochs": [dataclasses.asdict(epoch) for epoch in history],
                "seed": recipe.seed,
                "hardware": hardware(workplace.device),
                "versions": versions(),
            }
        )
    return stage


def audit_recipe(recipe: Recipe, data: Data, workplace: Workplace, *, title: str = "") -> tuple[Audit, Stage]:
    """Return the audit of a recipe's target, and the target's stage.

    Each attack with each seed is a stage of its own: where one is added to a recipe, it is all that is computed.

    Args:
        recipe: what to train and how to attack it.
        data: its pictures.
        workplace: where.
        title: a line for people; the recipe's name where empty.
    """
    if not recipe.attacks:
        raise ConfigError(f"recipe '{recipe.name}' has no attack; add a table [[attacks]] with a name, such as \"decoder\"")
    target = build_target(recipe, data, workplace)
    witness = _witness(recipe, data, workplace)  # before the target is trained: what is wrong with it shows at once
    trained = _train(target, recipe, data, workplace)
    seeds = recipe.audit.seeds or (recipe.seed,)
    scored = sample(data, recipe.audit.pictures, seeds[0])
    attack = partial(
        _attack, recipe=recipe, target=target, trained=trained, data=data, scored=scored, witness=witness, workplace=workplace
    )
    findings = [attack(name, seed) for seed in seeds for name in recipe.attacks]
    made = assemble_audit(
        target,
        data,
        attacks=recipe.attacks,
        scored=scored,
        findings=findings,
        seeds=seeds,
        utility=_utility(recipe, target, trained, data, seeds[0]),
        certificates=_certificates(recipe, target, trained, data, seeds[0], workplace),
        title=title or recipe.name,
    )
    return made, trained


def _attack(
    name: str,
    seed: int,
    *,
    recipe: Recipe,
    target: Target,
    trained: Stage,
    data: Data,
    scored: Mapping[Part, Pictures],
    witness: Witness | None,
    workplace: Workplace,
) -> Findings:
    """Run one attack of a recipe with one seed, or find it run."""
    attack, told = recipe.attacks[name], f"{name} on {recipe.name}"
    stage = workplace.store.stage(
        "attack",
        {
            "target": trained.key,
            "name": name,  # the bootstrap of the intervals is drawn by it
            "attack": {"attack": type(attack).__name__, **dataclasses.asdict(attack)},
            "seed": seed,
            "lpips": lpips_is_there(),  # installed later, it adds a number
            "auxiliary": data.part("auxiliary").fingerprint,
            "scored": {part: some.fingerprint for part, some in scored.items()},
            **({} if witness is None else {"recognizer": _definition_of(witness.recognizer, data)}),
        },
    )
    record = stage.folder / "findings.json"
    if stage.done:
        _say_found(workplace, told)
        return _read(record, findings_from_json)
    with stage.claim():
        found = run_attack(name, attack, target, data, scored, seed=seed, witness=witness, watch=told_as(workplace.watch, told))
        write_json(record, findings_to_json(found))
        stage.finish({"target": trained.key, "hardware": found.hardware, "versions": versions()})
    return found


def _witness(recipe: Recipe, data: Data, workplace: Workplace) -> Witness | None:
    """Make the recognizer of a recipe ready, if it has one. Audits of the same pictures share what was trained."""
    if recipe.recognizer is None:
        return None
    witness = assemble_witness(recipe.recognizer, data, device=workplace.device)
    if recipe.recognizer.weights is not None:
        return witness
    stage = workplace.store.stage("recognizer", _definition_of(recipe.recognizer, data))
    weights = stage.weights
    if stage.done:
        load_into(witness.network, read_tensors(weights)[0], source=weights)
        return witness
    with stage.claim():
        learn(witness, data, watch=told_as(workplace.watch, f"recognizer of {data.name}"))
        write_tensors(weights, witness.network.state_dict(), {"definition": stage.key})
        stage.finish({"hardware": hardware(workplace.device), "versions": versions()})
    return witness


def _definition_of(recognizer: Recognizer, data: Data) -> dict[str, object]:
    """Return everything that the answers of a recognizer depend on."""
    return {
        **dataclasses.asdict(recognizer),
        "weights": file_hash(recognizer.weights),
        "sfumato": version("sfumato"),
        "code": own_code(recognizer.model),
        "pictures": data.part("train").fingerprint,
    }


def _certificates(
    recipe: Recipe, target: Target, trained: Stage, data: Data, seed: int, workplace: Workplace
) -> tuple[Certificate, ...]:
    """Measure the certificates of a target, or find them measured."""
    given = recipe.audit.entropy_of_x
    pictures = [data.part(name).fingerprint for name in ("private", "test")]
    definition = {"target": trained.key, "pictures": pictures, "entropy_of_x": given, "seed": seed}
    stage = workplace.store.stage("certificates", definition)
    record = stage.folder / "certificates.json"
    if stage.done:
        return _read(record, certificates_from_json)
    with stage.claim():
        found = certify(target, data, entropy_of_x=given, seed=seed)
        write_json(record, certificates_to_json(found))
        stage.finish({"target": trained.key, "versions": versions()})
    return found


def _read(path: Path, parse: Callable[[object], _T]) -> _T:
    """Read the record of a stage that is done."""
    try:
        return parse(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}; remove {path.parent} to compute it again") from error


def _utility(recipe: Recipe, target: Target, trained: Stage, data: Data, seed: int) -> dict[str, Interval]:
    """Return how useful a target is, which its stage knows where the seed of the defense's random numbers is the recipe's."""
    known = trained.facts().get("utility")
    if seed == recipe.seed and isinstance(known, dict):
        return {name: Interval(**reached) for name, reached in known.items()}
    return task_for(data, recipe.task).utility(target, data, seed)


def _definition(recipe: Recipe, data: Data) -> dict[str, object]:
    """Return everything that the weights of a target depend on."""
    return {
        "format": _FORMAT,
        "pictures": {name: data.part(name).fingerprint for name in ("private", "test", *RETRIEVAL) if name in data.parts},
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


def _say_found(workplace: Workplace, name: str) -> None:
    """Tell of a stage that was computed before."""
    if workplace.watch is not None:
        workplace.watch(f"{name} (found)", 1, 1)
