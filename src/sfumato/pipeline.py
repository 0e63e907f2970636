# SPDX-License-Identifier: Apache-2.0
"""Take a recipe through its stages: read the data, train the target or find it trained, attack it or find it attacked."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from sfumato import report
from sfumato.audit import accuracy, audit, hardware, versions
from sfumato.data.base import Data, Reading
from sfumato.data.partition import partition
from sfumato.errors import ConfigError
from sfumato.files import load_into, read_tensors, write_atomic, write_json, write_tensors
from sfumato.models.resolve import build_model
from sfumato.recipe import Recipe
from sfumato.split import split
from sfumato.store import Stage, Store
from sfumato.target import Target
from sfumato.train import assemble, fit
from sfumato.types import Audit, NamedWatch, told_as

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
    model = build_model(recipe.model, classes=len(data.classes), shape=data.shape, options=recipe.options, seed=recipe.seed)
    if recipe.split.weights is not None:
        load_into(model, read_tensors(recipe.split.weights)[0], source=recipe.split.weights)
    halves = split(model.to(workplace.device), at=recipe.split.cut, example=_example(data, workplace.device), name=recipe.model)
    target = assemble(halves, data, recipe.defenses, seed=recipe.seed)
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
    """Return the audit of a recipe's target, and the target's stage. Neither is computed where it is there already.

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
    attacks = {name: {"attack": type(attack).__name__, **dataclasses.asdict(attack)} for name, attack in recipe.attacks.items()}
    parts = {name: data.part(name).fingerprint for name in ("auxiliary", "inference", "test")}
    stage = workplace.store.stage(
        "audit", {"target": trained.key, "attacks": attacks, "parts": parts, "seeds": seeds, "pictures": recipe.audit.pictures}
    )
    record = stage.folder / "audit.json"
    if stage.done:
        found = report.load(record)[0]
        _say_found(workplace, f"audit {recipe.name}")
        # The same pictures may come under another name, or with other files beside them that cannot be decoded.
        pictures = dataclasses.replace(found.data, name=data.name, skipped=data.skipped, auxiliary=data.auxiliary)
        return dataclasses.replace(found, title=title or recipe.name, data=pictures), trained
    with stage.claim():
        watch = workplace.watch
        made = audit(
            target,
            data,
            attacks=recipe.attacks,
            seeds=seeds,
            pictures=recipe.audit.pictures,
            title=title or recipe.name,
            watch=None if watch is None else lambda name, done, total: watch(f"{name} on {recipe.name}", done, total),
        )
        report.save([made], record)
        stage.finish({"target": trained.key})
    return made, trained


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
