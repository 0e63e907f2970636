# SPDX-License-Identifier: Apache-2.0
"""What a recipe says of attacks on weights beside the attacks: the tables `[inversion]`, `[prior]`, `[evaluator]`, `[public]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_args

from sfumato.data.source import Source
from sfumato.errors import ConfigError, nearest
from sfumato.evaluator import Evaluator
from sfumato.options import InversionOptions
from sfumato.priors.base import PriorKind
from sfumato.priors.settings import SCALES, PriorPlan, PriorSettings
from sfumato.recipe_tables import Tables

INVERSION_TABLES = ("inversion", "prior", "evaluator", "public")
"""Names of the tables."""


@dataclass(frozen=True)
class InversionPlan:
    """How attacks on weights are run and judged.

    Attributes:
        options: how many classes are attacked, and with what memory.
        priors: of each kind, how it is trained, or where it is.
        evaluator: judges what attacks make.
        public: another data set whose pictures the adversary has; None takes the public part of the recipe's own.
    """

    options: InversionOptions
    priors: Mapping[PriorKind, PriorPlan]
    evaluator: Evaluator
    public: Source | None


@dataclass(frozen=True)
class _There:
    """Keys of a prior's table that are not about its training."""

    weights: Path | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.weights is None:
            raise ConfigError("crop cuts the pictures of a StyleGAN's weights; name their file: weights = 'ffhq.safetensors'")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"crop must be a side in pixels, at least 1, got {self.crop}; leave it out to keep all")


_OF_A_KIND = tuple(key.name for made in (_There, PriorSettings) for key in fields(made))


def read_plan(tables: Tables) -> InversionPlan | None:
    """Read the tables of a recipe that attacks on weights have.

    Args:
        tables: of the recipe; problems are added to it.

    Returns:
        The plan; None where there are problems.
    """
    options: InversionOptions | None = tables.construct(InversionOptions, tables.mapping("inversion"), "inversion")
    priors, evaluator, public = _priors(tables), _evaluator(tables), _public(tables)
    if options is None or evaluator is None or len(priors) < len(get_args(PriorKind)):
        return None
    return InversionPlan(options, priors, evaluator, public)


def _public(tables: Tables) -> Source | None:
    if "public" not in tables.table:
        return None
    value = tables.mapping("public")
    if not isinstance(tables.table["public"], Mapping):
        return None
    name = tables.named("datasets", value, "public")
    return None if name is None else tables.source(name, value, "public")


def _priors(tables: Tables) -> dict[PriorKind, PriorPlan]:
    value, kinds = tables.mapping("prior"), get_args(PriorKind)
    scale = value.pop("scale", "full")
    if not isinstance(scale, str) or scale not in SCALES:
        tables.problems.append(f"prior.scale: expected one of {', '.join(SCALES)}, found {scale!r}")
        scale = "full"  # what else is wrong is said too
    tables.problems += [_misplaced(key, kinds) for key in value if key not in kinds]
    plans = {kind: _prior(tables, kind, value.get(kind, {}), SCALES[scale][kind]) for kind in kinds}
    return {kind: plan for kind, plan in plans.items() if plan is not None}


def _misplaced(key: str, kinds: Sequence[str]) -> str:
    """Say what is wrong with a key of `[prior]` that is no kind of prior."""
    if key in _OF_A_KIND:
        return f"prior.{key}: priors of each kind are trained in their own way; say it in the table of one, such as [prior.gan]"
    return f"prior.{key}: unknown key{nearest(key, ('scale', *kinds))}; known: scale, and a table for each of {', '.join(kinds)}"


def _prior(tables: Tables, kind: PriorKind, table: object, base: PriorSettings) -> PriorPlan | None:
    """Read how one kind of prior is trained, as the scale says where the table does not."""
    where = f"prior.{kind}"
    if not isinstance(table, Mapping):
        tables.problems.append(f"{where}: expected a table, found {table!r}")
        return None
    unknown = [key for key in table if key not in _OF_A_KIND]
    tables.problems += [
        f"{where}.{key}: unknown key{nearest(key, _OF_A_KIND)}; known: {', '.join(_OF_A_KIND)}" for key in unknown
    ]
    own = {key: value for key, value in table.items() if key in _OF_A_KIND}
    there: _There | None = tables.construct(_There, {key: own.pop(key) for key in ("weights", "crop") if key in own}, where)
    settings: PriorSettings | None = tables.construct(PriorSettings, {**asdict(base), **own}, where)
    return None if settings is None or there is None else PriorPlan(settings, there.weights, there.crop)


def _evaluator(tables: Tables) -> Evaluator | None:
    made: Evaluator | None = tables.construct(Evaluator, tables.mapping("evaluator"), "evaluator")
    if made is not None:
        tables.check_options(made.model, made.options, "evaluator.options")
    return made
