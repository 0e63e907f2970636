# SPDX-License-Identifier: Apache-2.0
"""The one latent search: a prior, an objective, its regularizers, a clip and a choice, over many identities at once.

Every attack on weights that follows a gradient is an assembly of these parts with its paper's constants; none has its own loop.
What is searched are variables, one row for each picture to make: a latent, or the mean and the spread of a distribution of
latents. Rows do not see each other: the losses are summed, never averaged, so that a row's way does not depend on how many others
are in its batch, and the random numbers of a row are the same in whichever batch it is.

Departures: the releases average the loss over the batch, so that a larger batch makes smaller steps wherever the optimizer does
not normalize them (GMI). Here a method that was tuned with such a mean divides by its paper's batch itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.errors import TrainingError
from sfumato.seeds import generator
from sfumato.target import Classified
from sfumato.types import Images, Labels, Watch

_OWN = 1 << 16  # random numbers of a row from which on it has a stream of its own; shorter rows are drawn all at once


class Descent(Protocol):
    """An optimizer, as far as a search needs one."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of variables with their learning rates."""

    def step(self) -> object:
        """Change the variables by their gradients."""


@dataclass(frozen=True)
class Rows:
    """The rows of a search that are in hand.

    Args:
        index: which of all rows, (B,), int64, on the CPU.
        labels: the class that each is to show, (B,), int64, on the device of the search.
        total: how many rows there are in all.
        step: number of the step, from 0.
        seed: of the search.
    """

    index: Tensor
    labels: Labels
    total: int
    step: int
    seed: int

    def normal(self, *size: int, purpose: str = "noise") -> Tensor:
        """Draw from N(0, 1), (B, *size): the same for a row whichever others are in the batch, on every device."""
        return self._drawn(torch.randn, size, purpose)

    def uniform(self, *size: int, purpose: str = "uniform") -> Tensor:
        """Draw from [0, 1), (B, *size), as `normal` does."""
        return self._drawn(torch.rand, size, purpose)

    def _drawn(self, draw: Callable[..., Tensor], size: tuple[int, ...], purpose: str) -> Tensor:
        names = ("search", purpose, self.step)
        if math.prod(size) < _OWN:
            return draw(self.total, *size, generator=generator(self.seed, *names))[self.index].to(self.labels.device)
        own = (generator(self.seed, *names, row) for row in self.index.tolist())  # of all rows it would fill the memory
        return torch.stack([draw(size, generator=one) for one in own]).to(self.labels.device)


@dataclass(frozen=True)
class Trial:
    """One step's pictures, and what the target makes of them, which is computed once however many terms ask.

    Args:
        x: the pictures, (B, C, H, W), [0, 1], with gradient to the variables.
        latents: what they were made of, with gradient; where a distribution is searched, a draw of it.
        variables: what is searched.
        rows: which rows these are.
        ask: what the target makes of pictures.
        seen: the pictures as the target is shown them, augmented or not.
    """

    x: Images
    latents: Tensor
    variables: Sequence[Tensor]
    rows: Rows
    ask: Callable[[Images], Classified]
    seen: Images

    @cached_property
    def answer(self) -> Classified:
        """What the target makes of the pictures that it is shown."""
        return self.ask(self.seen)


Term = Callable[[Trial], Tensor]
"""A part of an objective: (B,), lower is better."""


def latent_itself(variables: Sequence[Tensor], rows: Rows) -> Tensor:
    """Take the only variable for the latent."""
    return variables[0]


def as_made(x: Images, rows: Rows) -> Images:
    """Show pictures as they were made."""
    return x


def leave(variables: Sequence[Tensor]) -> None:
    """Clip nothing."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search consists of.

    Args:
        decode: makes pictures of latents, given the rows' labels.
        ask: what the target makes of pictures.
        terms: the objective, each with its weight.
        optimizer: makes an optimizer for variables.
        steps: how many.
        latents: draws latents of the variables; the only variable is the latent by default.
        show: augments pictures before the target sees them.
        clip: brings the variables back where they may be, in place, after each step and before the first.
        schedule: factor of the learning rate at a share of the steps done, [0, 1).
        best: return the variables that had the lowest loss, in place of the last.
    """

    decode: Callable[[Tensor, Labels], Images]
    ask: Callable[[Images], Classified]
    terms: Sequence[tuple[float, Term]]
    optimizer: Callable[[list[Tensor]], Descent]
    steps: int
    latents: Callable[[Sequence[Tensor], Rows], Tensor] = latent_itself
    show: Callable[[Images, Rows], Images] = as_made
    clip: Callable[[Sequence[Tensor]], None] = leave
    schedule: Callable[[float], float] | None = None
    best: bool = False


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        variables: as they were found, each (R, ...), on the device of the search.
        losses: of each row, (R,): the lowest where the best variables are returned, else that of the last step.
        first: the losses before the first step, (R,).
    """

    variables: tuple[Tensor, ...]
    losses: Tensor
    first: Tensor = field(repr=False)


def search(parts: Search, start: Sequence[Tensor], labels: Labels, *, batch: int, seed: int, watch: Watch | None = None) -> Found:
    """Look for pictures of classes.

    Args:
        parts: what the search consists of.
        start: the variables to start from, each (R, ...); they are copied.
        labels: the class that each row is to show, (R,), int64, on their device.
        batch: rows at once; what is found does not depend on it but for rounding.
        seed: of the random numbers.
        watch: told of the steps.

    Raises:
        TrainingError: a loss stopped being finite.
    """
    parts_of = torch.arange(len(labels)).split(batch)
    found = []
    for number, index in enumerate(parts_of):
        place = index.to(labels.device)
        rows = Rows(index, labels[place], len(labels), 0, seed)

        def told(step: int, before: int = number) -> None:
            if watch is not None:
                watch(before * parts.steps + step, len(parts_of) * parts.steps)

        found.append(_search(parts, [one[place].clone() for one in start], rows, told))
    variables = tuple(torch.cat(some) for some in zip(*(one.variables for one in found), strict=True))
    return Found(variables, torch.cat([one.losses for one in found]), torch.cat([one.first for one in found]))


def _search(parts: Search, variables: list[Tensor], rows: Rows, told: Callable[[int], None]) -> Found:
    """Search one batch of rows."""
    parts.clip(variables)
    for one in variables:
        one.requires_grad_()
    optimizer = parts.optimizer(variables)
    rates = [group["lr"] for group in optimizer.param_groups]
    first = losses = torch.zeros(0)
    kept = _Best([one.detach().clone() for one in variables]) if parts.best else None
    for step in range(parts.steps):
        losses = objective(parts, variables, replace(rows, step=step))
        first = first if step else losses.detach()
        if kept is not None:
            kept.look(losses.detach(), variables)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1.0 if parts.schedule is None else parts.schedule(step / parts.steps))
        for one, slope in zip(variables, torch.autograd.grad(losses.sum(), variables), strict=True):
            one.grad = slope
        optimizer.step()
        with torch.no_grad():
            parts.clip(variables)
        told(step + 1)
    if kept is not None:
        return Found(tuple(kept.variables), kept.losses, first)
    return Found(tuple(one.detach() for one in variables), losses.detach(), first)


class _Best:
    """The variables at which each row's loss was lowest."""

    def __init__(self, variables: list[Tensor]) -> None:
        self.variables, self.losses = variables, torch.full((len(variables[0]),), torch.inf, device=variables[0].device)

    def look(self, losses: Tensor, variables: Sequence[Tensor]) -> None:
        """Keep the rows that are better than before."""
        better = losses < self.losses
        self.losses = torch.where(better, losses, self.losses)
        for keep, one in zip(self.variables, variables, strict=True):
            keep[better] = one.detach()[better]


def objective(parts: Search, variables: Sequence[Tensor], rows: Rows) -> Tensor:
    """Return the loss of each row, (B,), with gradient to the variables.

    Raises:
        TrainingError: one is not finite.
    """
    latents = parts.latents(variables, rows)
    x = parts.decode(latents, rows.labels)
    trial = Trial(x, latents, variables, rows, parts.ask, parts.show(x, rows))
    losses = torch.stack([weight * term(trial) for weight, term in parts.terms]).sum(0)
    if bad := int((~losses.detach().isfinite()).sum()):
        raise TrainingError(
            f"the loss of {bad} of {len(losses)} rows stopped being finite at step {rows.step} of the search; lower the learning "
            "rate of the attack"
        )
    return losses
