# SPDX-License-Identifier: Apache-2.0
"""What a recipe says of where its model starts from: the table `[pretrain]`.

Source: ho2024tldmi, Table 1 (every defense is fine-tuned from the same pretrained weights) and Table 6 (one model is not).
Equations: none.
Departures: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sfumato.data.source import Source
from sfumato.defenses.base import Defense
from sfumato.errors import nearest
from sfumato.recipe_tables import Tables
from sfumato.settings import Train

PRETRAIN = "pretrain"
"""Name of the table."""

_OF_TRAIN = tuple(key.name for key in fields(Train) if key.name not in ("finetune", "stop"))


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Stage 1 of transfer learning: whose weights a model starts from.

    Attributes:
        source: a data set of other classes; None takes the part `pretrain` of the recipe's own.
        weights: a safetensors file to take instead of training; of the model, whatever its classes.
        fresh: modules that start as they are drawn, beside the last layer.
        train: how it is trained; None where it is not: the model starts as it is drawn, and that is meant.
        seed: of its training; None is the recipe's. Reference models have that of their target: what was pretrained is public.
    """

    source: Source | None = None
    weights: Path | None = None
    fresh: tuple[str, ...] = ()
    train: Train | None = None
    seed: int | None = None


@dataclass(frozen=True)
class _There:
    """Keys of the table that are not about training or pictures."""

    weights: Path | None = None
    fresh: tuple[str, ...] = ()


def read_pretraining(tables: Tables) -> Pretraining | None:
    """Read the table of a recipe.

    Args:
        tables: of the recipe; problems are added to it.

    Returns:
        The stage; None where there is none, or where there are problems.
    """
    if PRETRAIN not in tables.table:
        return None
    value = tables.mapping(PRETRAIN)
    there: _There | None = tables.construct(_There, _taken(value, ("weights", "fresh")), PRETRAIN)
    own = _taken(value, _OF_TRAIN)
    source = None
    if "name" in value:
        name = tables.named("datasets", value, PRETRAIN)
        source = None if name is None else tables.source(name, value, PRETRAIN, ("weights", "fresh", *_OF_TRAIN))
    else:
        known = ("name", "weights", "fresh", *_OF_TRAIN)
        tables.problems += [
            f"{PRETRAIN}.{key}: unknown key{nearest(key, known)}; known: {', '.join(known)}, and those of the data set named"
            for key in value
        ]
    if there is None:
        return None
    if there.weights is not None and (own or source is not None):
        given = ", ".join((*own, *(["name"] if source is not None else [])))
        tables.problems.append(f"{PRETRAIN}: weights are there already, so that nothing is trained; leave out {given}")
    train = None
    if there.weights is None and own.get("epochs") != 0:
        base = {key: item for key, item in tables.mapping("train").items() if key not in ("finetune", "stop")}
        train = tables.construct(Train, {**base, **own}, PRETRAIN)
    return Pretraining(source=source, weights=there.weights, fresh=there.fresh, train=train)


def starting_problems(
    pretraining: Pretraining | None, weights: Path | None, defenses: Sequence[Defense], data: Mapping[str, Any]
) -> list[str]:
    """Say what is wrong with where a model starts from.

    Args:
        pretraining: of the recipe, or None.
        weights: whole, to start from, or None.
        defenses: of the recipe.
        data: its table `[data]`.
    """
    if pretraining is None:
        if weights is None and any(defense.name == "tl_dmi" for defense in defenses):
            return [
                "defenses: tl_dmi freezes layers that others' pictures must have trained: add a table [pretrain], or weights "
                "under [model]; with epochs = 0 under [pretrain] they are frozen as they are drawn"
            ]
        return []
    problems = []
    if weights is not None:
        problems.append("pretrain: the model has weights to start from, under [model]; leave one of both out")
    if pretraining.train is not None and pretraining.source is None and not data.get("pretrain_identities"):
        problems.append(
            "pretrain: nobody's pictures to train on; name another data set, set pretrain_identities under [data], or give "
            "weights"
        )
    return problems


def _taken(value: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Take some keys out of a table."""
    return {key: value.pop(key) for key in keys if key in value}
