# SPDX-License-Identifier: Apache-2.0
"""What a device has room for, and whether the head of a target fits into it once its defenses are finished."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sfumato.defenses.base import Defense
from sfumato.defenses.patrol import PATROL
from sfumato.errors import ConfigError, SfumatoError
from sfumato.pruning.footprint import Footprint, Keep
from sfumato.split import Cost, Cut, cost
from sfumato.target import Target

_ROUNDING = Footprint(0.5, 0.5, 0.5)  # amounts such as "4.35MB" are whole bytes only to float precision

Build = Callable[[str, Sequence[Defense]], Target]
"""Assembles the target of a recipe with another cut and other defenses."""


@dataclass(frozen=True, kw_only=True)
class DeviceBudget:
    """The `[device]` table: what a device has for the head.

    Args:
        memory: bytes for its tensors, or an amount such as "2.9MB".
        macs: multiply-accumulates for one picture, or a count such as "300M".

    Raises:
        ConfigError: neither is given, or one is no amount of more than 1.

    Example:
        >>> DeviceBudget(memory="2.9MB").admits(Footprint(memory=2_734_080))
        True
    """

    memory: float | str | None = None
    macs: float | str | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.macs is None:
            raise ConfigError('a device must limit memory or macs; memory = "2.9MB" is an example')
        if min(self.limit.memory, self.limit.macs) <= 1:
            found = self.describe_keep()
            raise ConfigError(f'a device has amounts such as memory = "2.9MB", got {found}; shares are for the keep of patrol')

    @property
    def keep(self) -> Keep:
        """The same as what pruning may keep."""
        return Keep(memory=self.memory, macs=self.macs)

    @property
    def limit(self) -> Footprint:
        """What a head may take; what is not limited is infinite."""
        return self.keep.limit(Footprint())

    def admits(self, head: Footprint | Cost) -> bool:
        """Tell whether a head fits."""
        return _footprint(head).fits(self.limit + _ROUNDING)

    def among(self, cuts: Sequence[Cut]) -> list[Cut]:
        """Return the cuts whose heads fit, in their order. A head without weights sends the picture, and is left out."""
        return [cut for cut in cuts if cut.head.parameters and self.admits(cut.head)]

    def smallest(self, cuts: Sequence[Cut]) -> str:
        """Say what the smallest head takes, for a model of which none fits."""
        small = next((cut for cut in cuts if cut.head.parameters), None)
        if small is None:
            return "the model has no cut whose head holds weights"
        return f"the smallest head, cut after '{small.name}', takes {self.describe(small.head)} without defenses"

    def describe(self, head: Footprint | Cost) -> str:
        """Write what a head takes of what the device limits, exactly.

        Example:
            >>> DeviceBudget(macs="300M").describe(Footprint(683072, 2734080, 290e6))
            '290,000,000 MACs'
        """
        taken, limit = _footprint(head), self.limit
        amounts = {f"{taken.memory:,.0f} bytes": limit.memory, f"{taken.macs:,.0f} MACs": limit.macs}
        return " and ".join(text for text, limited in amounts.items() if limited < math.inf)

    def describe_keep(self) -> str:
        """Write the limits as a recipe does."""
        given = {"memory": self.memory, "macs": self.macs}
        return ", ".join(f"{name} = {json.dumps(value)}" for name, value in given.items() if value is not None)


def finished_head(target: Target, shape: tuple[int, int, int]) -> Footprint:
    """Return what the head of a target takes on a device when its defenses are finished, at most.

    Args:
        target: assembled, trained or not.
        shape: (C, H, W) of a picture.
    """
    assert isinstance(target.defense, Defense)  # noqa: S101 -- assembled with no other
    return _footprint(cost(target.split.head, torch.zeros(1, *shape, device=target.device))) + target.defense.saving * -1


def require_fit(
    budget: DeviceBudget,
    target: Target,
    shape: tuple[int, int, int],
    *,
    defenses: Sequence[Defense],
    cuts: Callable[[], Sequence[Cut]],
    build: Build,
) -> None:
    """Raise unless the head of a target fits a device when its defenses are finished.

    Args:
        budget: what the device has.
        target: assembled, not trained.
        shape: (C, H, W) of a picture.
        defenses: of the target, not prepared.
        cuts: lists the clean cuts of its model.
        build: assembles it otherwise.

    Raises:
        ConfigError: it does not fit. What would is named: the latest cut of the model, and this one pruned.
    """
    head, at = finished_head(target, shape), target.split.at
    if budget.admits(head):
        return

    def fitting(cut: str, tried: Sequence[Defense]) -> Footprint | None:
        try:
            made = finished_head(build(cut, tried), shape)
        except SfumatoError:  # pruning does not get there, or the defenses do not suit the cut
            return None
        return made if budget.admits(made) else None

    found = cuts()
    latest = ((cut.name, made) for cut in reversed(budget.among(found)) if (made := fitting(cut.name, defenses)) is not None)
    advice = [f'  - another cut: cut = "{name}" ({budget.describe(made)})' for name, made in itertools.islice(latest, 1)]
    if fitting(at, _pruned(budget, defenses)) is not None:
        advice.append(_pruning(budget, defenses))
    remedy = "\n".join(["what fits:", *advice]) if advice else f"no other cut fits either: {budget.smallest(found)}"
    raise ConfigError(
        f"the head does not fit the device: cut after '{at}' it takes {budget.describe(head)}, its defenses included, and the "
        f"device has {budget.describe(budget.limit)}; {remedy}"
    )


def _footprint(head: Footprint | Cost) -> Footprint:
    return Footprint(head.parameters, head.memory, head.macs)


def _pruned(budget: DeviceBudget, defenses: Sequence[Defense]) -> list[Defense]:
    """Return defenses of which one prunes the head down to a device."""
    tried = [copy.deepcopy(part) for part in defenses]
    if not any(isinstance(part, PATROL) for part in tried):
        tried.append(PATROL())
    for part in tried:
        if isinstance(part, PATROL):
            part.keep, part.prune = budget.keep, True
    return tried


def _pruning(budget: DeviceBudget, defenses: Sequence[Defense]) -> str:
    """Write what a recipe needs for the head to be pruned down to a device."""
    keep = f"keep = {{ {budget.describe_keep()} }}"
    if any(isinstance(part, PATROL) for part in defenses):
        return f"  - this cut, pruned further: {keep} for patrol"
    return "\n    ".join(["  - this cut, pruned:", "[[defenses]]", 'name = "patrol"', keep])
