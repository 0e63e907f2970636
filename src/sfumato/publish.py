# SPDX-License-Identifier: Apache-2.0
"""Write a run: the folder that a user finds a trained or audited target in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sfumato import report
from sfumato.files import write_atomic, write_json
from sfumato.recipe import Recipe
from sfumato.store import Stage, Store
from sfumato.types import Audit

_AUDIT_FILES = ("audit.json", "report.html", "report.md")
_FISHER_FILES = ("fisher.json", "fisher.md", "fisher.html")


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
            _remove(folder, _AUDIT_FILES)
        _remove_fisher(folder, stage)
    return folder


def publish_audit(recipe: Recipe, made: Audit, stage: Stage, store: Store, name: str, *, show_private: bool = False) -> Path:
    """Write the run of an audited target: what `publish_target` writes, the record, and the report in HTML and Markdown.

    Args:
        recipe: what was trained and attacked.
        made: its audit.
        stage: of the target.
        store: holds the weights.
        name: of the run.
        show_private: write the private pictures of an inversion's gallery too, where it has any.

    Returns:
        The folder of the run.

    Raises:
        StorageError: it cannot be written; nothing half-written is left.
    """
    with store.writing(name) as part:
        folder = _write_target(recipe, stage, store, name, part)
        for file in _AUDIT_FILES:
            report.save([made], folder / file, show_private=show_private)
        _remove_fisher(store.root / name, stage)
    return store.root / name


def _write_target(recipe: Recipe, stage: Stage, store: Store, name: str, part: str) -> Path:
    """Write recipe, facts and weights of the run `name` under the name `part`."""
    folder = store.publish(part, {stage.weights.name: stage.weights})
    write_atomic(folder / "recipe.toml", recipe.text.encode())
    write_json(folder / "run.json", {"name": name, "target": stage.key, **stage.facts()})
    return folder


def _remove_fisher(folder: Path, stage: Stage) -> None:
    """Remove the Fisher information of a run that is about to have another target; where there is no run yet it stays."""
    if _target_of(folder) not in (None, stage.key):
        _remove(folder, _FISHER_FILES)


def _remove(folder: Path, files: Sequence[str]) -> None:
    for file in files:
        (folder / file).unlink(missing_ok=True)


def _target_of(folder: Path) -> object:
    """Return the key of the target of a run, or None where there is no run that can be read."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["target"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
