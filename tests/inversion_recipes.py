# SPDX-License-Identifier: Apache-2.0
"""A recipe that attacks weights in seconds, and a place where it runs that notes what is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sfumato as sf
from sfumato import inversion_priors, inversions, targets
from sfumato.attacks.weights.base import InversionAttack
from sfumato.data.base import Reading
from sfumato.inversion_types import Inversion
from sfumato.pipeline import audit_recipe
from sfumato.priors import for_target
from sfumato.recipe import Recipe, parse_recipe
from sfumato.store import Store
from sfumato.workplace import Workplace, read_data

RECIPE = """
[data]
name = "portraits"
identities = 8
per_identity = 6
size = 16
private_identities = 4
[model]
name = "cnn4"
width = 0.25
[train]
epochs = 1
batch_size = 8
[evaluator]
model = "lenet5"
epochs = 1
gate = 0.0
[prior.gan]
width = 4
latent = 8
steps = 3
batch_size = 4
[inversion]
identities = 3
[[attacks]]
name = "gmi"
steps = 2
per_class = 2
"""


def recipe(*changes: tuple[str, str], more: str = "") -> Recipe:
    """The recipe with some of its lines changed, and lines added at its end."""
    text = RECIPE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse_recipe(text + more, name="tiny")


def place(root: Path, **options: object) -> Workplace:
    """Where a recipe runs."""
    return Workplace(store=Store(root), reading=Reading(), device=torch.device("cpu"), **options)  # type: ignore[arg-type]


def audited(made: Recipe, workplace: Workplace, data: sf.Data | None = None) -> Inversion:
    """What a recipe finds of the weights, on its own data unless others are given."""
    found, _ = audit_recipe(made, read_data(made, workplace) if data is None else data, workplace)
    assert found.inversion is not None
    assert not found.attacks
    return found.inversion


def numbers(found: Inversion) -> list[dict[str, object]]:
    """What attacks came to, without the time that they took."""
    return [{**dataclasses.asdict(result), "seconds": 0.0} for result in found.results]


def note(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note from now on everything that is computed, in its order."""
    seen: list[str] = []

    def noting(owner: object, name: str, told: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def noted(*arguments: object, **named: object) -> object:
            seen.append(told(*arguments))
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, noted)

    noting(targets, "fit", lambda *_: "target")
    noting(inversions, "teach_judge", lambda judge, *_: f"evaluator {judge.evaluator.model}")
    noting(inversions, "teach_reader", lambda *_: "reader")
    noting(for_target, "train_prior", lambda kind, *_: f"prior {kind}")
    noting(inversion_priors, "prior_facts", lambda prior, *_: f"facts {prior.kind}")
    noting(InversionAttack, "__call__", lambda attack, *_: type(attack).__name__)
    return seen
