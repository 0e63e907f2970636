# SPDX-License-Identifier: Apache-2.0
"""Take a recipe through its stages: read the data, train the target or find it trained, attack it or find it attacked."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch

from sfumato import report
from sfumato.analysis.certify import certify
from sfumato.audit import accuracy, assemble_audit, hardware, run_attack, sample, versions
from sfumato.data.base import Data, Pictures, Reading
from sfumato.data.partition import partition
from sfumato.errors import ConfigError, StorageError
from sfumato.files import load_into, read_tensors, write_atomic, write_json, write_tensors
from sfumato.metrics.image import lpips_is_there
from sfumato.models.resolve import build_model
from sfumato.recipe import Recipe
from sfumato.record import certificates_from_json, certificates_to_json, findings_from_json, findings_to_json
from sfumato.split import split
from sfumato.store import Stage, Store
from sfumato.target import Target
from sfumato.train import assemble, fit
from sfumato.types import Audit, Certificate, Findings, Interval, NamedWatch, Part, told_as

_T = TypeVar("_T")
_AUDIT_FILES = ("audit.json", "report.html", "report.md")
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
    """Read and partition the pictures of a recipe."""
    reading = dataclasses.replace(workplace.reading, budget=recipe.data.budget)
    data = recipe.source.load(reading)
    return partition(data, public=recipe.data.public, auxiliary=recipe.data.auxiliary, seed=recipe.seed)


def build_target(recipe: Recipe, data: Data, workplace: Workplace) -> Target:
    """Return the target of a recipe before it is trained: its model, split, with its defenses.

    Raises:
        WeightsError: the weights to start from are not a whole safetensors file of this model.
    """
    model = build_model(recipe.model, classes=len(data.classes), shape=data.shape, options=recipe.options, seed=recipe.seed)
    if recipe.split.weights is not None:
        load_into(model, read_tensors(recipe.split.weights)[0], source=recipe.split.weights)
    halves = split(model.to(workplace.device), at=recipe.split.cut, example=_example(data, workplace.device), name=recipe.model)
    return assemble(halves, data, recipe.defenses, seed=recipe.seed)


def train_recipe(recipe: Recipe, data: Data, workplace: Workplace) -> tuple[Target, Stage]:
    """Return the trained target of a recipe, and its stage. It is trained only where its stage is not done.

    Args:
        recipe: what to train.
        data: its pictures, as `read_data` gives them.
        workplace: where.

    Raises:
        ConfigError: the run was interrupted and neither resume nor restart is asked for.
        WeightsError: the weights to start from are not a whole safetensors file of this model.
    """
    target = build_target(recipe, data, workplace)
    stage = workplace.store.stage("target", _definition(recipe, data))
    weights = stage.folder / "weights.safetensors"
    if stage.done:
        load_into(target, read_tensors(weights)[0], source=weights)
        _say_found(workplace, f"train {recipe.name}")
        return target, stage
    with stage.claim():
        _settle_checkpoint(stage, workplace)
        told = told_as(workplace.watch, f"train {recipe.name}")
        history = fit(target, data, recipe.train, seed=recipe.seed, checkpoint=stage.checkpoint, definition=stage.key, watch=told)
        write_tensors(weights, target.state_dict(), {"definition": stage.key})
        reached = accuracy(target, data.part("test"), recipe.seed)
        stage.finish(
            {
                "accuracy": dataclasses.asdict(reached),
                "epochs": [dataclasses.asdict(epoch) for epoch in history],
                "seed": recipe.seed,
                "hardware": hardware(workplace.device),
                "versions": versions(),
            }
        )
    return target, stage


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
    target, trained = train_recipe(recipe, data, workplace)
    seeds = recipe.audit.seeds or (recipe.seed,)
    scored = sample(data, recipe.audit.pictures, seeds[0])
    findings = [
        _attack(name, seed, recipe=recipe, target=target, trained=trained, data=data, scored=scored, workplace=workplace)
        for seed in seeds
        for name in recipe.attacks
    ]
    made = assemble_audit(
        target,
        data,
        attacks=recipe.attacks,
        scored=scored,
        findings=findings,
        seeds=seeds,
        reached=_reached(recipe, target, trained, data, seeds[0]),
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
        },
    )
    record = stage.folder / "findings.json"
    if stage.done:
        _say_found(workplace, told)
        return _read(record, findings_from_json)
    with stage.claim():
        found = run_attack(name, attack, target, data, scored, seed=seed, watch=told_as(workplace.watch, told))
        write_json(record, findings_to_json(found))
        stage.finish({"target": trained.key, "hardware": found.hardware, "versions": versions()})
    return found


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


def _reached(recipe: Recipe, target: Target, trained: Stage, data: Data, seed: int) -> Interval:
    """Return the accuracy of a target, which its stage knows where the seed of the defense's random numbers is the recipe's."""
    known = trained.facts().get("accuracy")
    if seed == recipe.seed and isinstance(known, dict):
        return Interval(**known)
    return accuracy(target, data.part("test"), seed)


def publish_target(recipe: Recipe, stage: Stage, store: Store, name: str) -> Path:
    """Write the run of a trained target: recipe, facts, weights. The audit of another target, if one is there, is removed.

    Returns:
        The folder of the run.

    Raises:
        StorageError: it cannot be written; nothing half-written is left.
    """
    folder = store.root / name
    with store.writing(name) as part:
        _write_target(recipe, stage, store, name, part)
        if _target_of(folder) != stage.key:
            for file in _AUDIT_FILES:
                (folder / file).unlink(missing_ok=True)
    return folder


def publish_audit(recipe: Recipe, made: Audit, stage: Stage, store: Store, name: str) -> Path:
    """Write the run of an audited target: what `publish_target` writes, the record, and the report in HTML and Markdown.

    Returns:
        The folder of the run.

    Raises:
        StorageError: it cannot be written; nothing half-written is left.
    """
    with store.writing(name) as part:
        folder = _write_target(recipe, stage, store, name, part)
        for file in _AUDIT_FILES:
            report.save([made], folder / file)
    return store.root / name


def _write_target(recipe: Recipe, stage: Stage, store: Store, name: str, part: str) -> Path:
    """Write recipe, facts and weights of the run `name` under the name `part`."""
    folder = store.publish(part, {"weights.safetensors": stage.folder / "weights.safetensors"})
    write_atomic(folder / "recipe.toml", recipe.text.encode())
    write_json(folder / "run.json", {"name": name, "target": stage.key, **stage.facts()})
    return folder


def _target_of(folder: Path) -> object:
    """Return the key of the target of a run, or None where there is no run that can be read."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["target"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _definition(recipe: Recipe, data: Data) -> dict[str, object]:
    """Return everything that the weights of a target depend on."""
    weights = recipe.split.weights
    return {
        "format": _FORMAT,
        "pictures": {name: data.part(name).fingerprint for name in ("private", "test")},
        "sfumato": version("sfumato"),
        "code": _own_code(recipe.model),
        "classes": len(data.classes),
        "model": recipe.model,
        "options": dict(recipe.options),
        "weights": None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest(),
        "cut": recipe.split.cut,
        "defenses": [defense.describe() for defense in recipe.defenses],
        "train": dataclasses.asdict(recipe.train),
        "seed": recipe.seed,
    }


def _own_code(model: str) -> str | None:
    """Return the hash of the file that a model of the user's own comes from: the same name may come to mean another network."""
    module, colon, _ = model.partition(":")
    if not colon or module == "timm":
        return None
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _settle_checkpoint(stage: Stage, workplace: Workplace) -> None:
    """Keep or remove the checkpoint of an interrupted run, as asked."""
    if not stage.checkpoint.exists() or workplace.resume:
        return
    if not workplace.restart:
        raise ConfigError(
            f"an interrupted training run of this recipe is at {stage.folder}; go on with --resume, or start over with --restart"
        )
    stage.checkpoint.unlink()


def _example(data: Data, device: torch.device) -> torch.Tensor:
    return torch.zeros(2, *data.shape, device=device)


def _say_found(workplace: Workplace, name: str) -> None:
    """Tell of a stage that was computed before."""
    if workplace.watch is not None:
        workplace.watch(f"{name} (found)", 1, 1)
