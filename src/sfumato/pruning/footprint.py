# SPDX-License-Identifier: Apache-2.0
"""What a head costs a device, for every way to prune it, and which units to keep under a budget.

A head is a sum of terms. A term is some parameters, bytes or multiply-accumulates that shrink in proportion to the kept share of
the unit that they give out to, and of the units that they take in from: a convolution's kernel is one, its bias another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.quantity import read_bytes, read_count, show_bytes, show_count


@dataclass(frozen=True)
class Footprint:
    """What a head costs for one picture.

    Attributes:
        parameters: numbers to learn.
        memory: bytes of its tensors, buffers included, as they are exported.
        macs: multiply-accumulates of convolutions and linear layers.
    """

    parameters: float = 0.0
    memory: float = 0.0
    macs: float = 0.0

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.parameters + other.parameters, self.memory + other.memory, self.macs + other.macs)

    def __mul__(self, share: float) -> Footprint:
        return Footprint(self.parameters * share, self.memory * share, self.macs * share)

    def fits(self, limit: Footprint) -> bool:
        """Tell whether no number is above that of a limit."""
        return self.parameters <= limit.parameters and self.memory <= limit.memory and self.macs <= limit.macs

    def towards(self, other: Footprint, share: float) -> Footprint:
        """Return what lies between this one, share 0, and another, share 1. What is not limited stays so below share 1."""
        if share in (0, 1):  # infinity times 0 is not a number
            return other if share else self
        return self * (1 - share) + other * share

    def describe(self) -> str:
        """Write it for people; what is not limited is left out.

        Example:
            >>> Footprint(683072, 2734080, 2.9e8).describe()
            '683 k parameters, 2.73 MB, 290 M MACs'
        """
        limited = {
            f"{show_count(self.parameters)} parameters": self.parameters,
            show_bytes(self.memory): self.memory,
            f"{show_count(self.macs)} MACs": self.macs,
        }
        return ", ".join(text for text, value in limited.items() if value < math.inf)


@dataclass(frozen=True)
class Keep:
    """How much of a head may stay. What is None is not limited.

    Args:
        parameters: numbers to learn; up to 1 it is a share of the head, else a count such as 100000 or "1.2M".
        memory: bytes of its tensors; a share, or an amount such as "4.8MB".
        macs: multiply-accumulates a picture; a share, or a count such as "300M".

    Raises:
        ConfigError: nothing is limited, or a value is not a positive number.

    Example:
        >>> Keep(memory="4.8MB").limit(Footprint(11.2e6, 44.8e6, 555e6)).memory
        4800000.0
    """

    parameters: float | str | None = None
    memory: float | str | None = None
    macs: float | str | None = None

    def __post_init__(self) -> None:
        given = {"parameters": self.parameters, "macs": self.macs}
        for name, value in given.items():
            if value is not None:
                read_count(value, name)
        if self.memory is not None:
            read_bytes(self.memory, "memory")
        if self.memory is None and all(value is None for value in given.values()):
            raise ConfigError("keep must limit parameters, memory or macs; {parameters = 0.33} keeps a third of the head")

    def limit(self, whole: Footprint) -> Footprint:
        """Return the limits for a head.

        Args:
            whole: of the head before anything is removed.
        """
        return Footprint(
            _limit(None if self.parameters is None else read_count(self.parameters, "parameters"), whole.parameters),
            _limit(None if self.memory is None else read_bytes(self.memory, "memory"), whole.memory),
            _limit(None if self.macs is None else read_count(self.macs, "macs"), whole.macs),
        )


@dataclass(frozen=True)
class Term:
    """A part of a head that shrinks with its units.

    Attributes:
        cost: of the part, with every unit whole.
        out: place of the unit that it gives out to, or None.
        into: places of the units that it takes in from, each with the share of its inputs that they are.
    """

    cost: Footprint
    out: int | None = None
    into: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Plan:
    """The units of a head, and its terms.

    Attributes:
        sizes: how many channels each unit has; 1 for a whole block.
        least: how many of each must stay.
        terms: what the head is made of.
    """

    sizes: tuple[int, ...]
    least: tuple[int, ...]
    terms: tuple[Term, ...]

    def footprint(self, kept: Sequence[int]) -> Footprint:
        """Return the cost of a head that keeps so many channels of each unit."""
        share = [count / size for count, size in zip(kept, self.sizes, strict=True)]
        total = Footprint()
        for term in self.terms:
            out = 1.0 if term.out is None else share[term.out]
            gone = sum(part * (1 - share[place]) for place, part in term.into)
            total += term.cost * (out * (1 - gone))
        return total

    def require(self, limit: Footprint) -> None:
        """Raise unless pruning can reach a limit.

        Raises:
            ConfigError: the smallest head is above it.
        """
        smallest = self.footprint(self.least)
        if not smallest.fits(limit):
            raise ConfigError(
                f"keep asks for a head of at most {limit.describe()}, but the smallest that pruning can make of this one has "
                f"{smallest.describe()} (the whole has {self.footprint(self.sizes).describe()}); keep more, or cut earlier"
            )

    def choose(self, masks: Sequence[Tensor], limit: Footprint) -> list[Tensor]:
        """Choose what stays: as many channels as a limit allows, those with the largest masks.

        Args:
            masks: one for each unit, (size,), at least 0.
            limit: that `require` let pass.

        Returns:
            For each unit, (size,), bool: which of its channels stay. The largest `least` of each stay whatever the limit.
        """
        order = torch.cat([_rank(mask, least) for mask, least in zip(masks, self.least, strict=True)])
        unit = torch.cat([torch.full((size,), place) for place, size in enumerate(self.sizes)])
        smallest_first = order.argsort(stable=True)
        removable = int((order < torch.inf).sum())

        def kept(removed: int) -> Footprint:
            gone = torch.bincount(unit[smallest_first[:removed]], minlength=len(self.sizes)).tolist()
            return self.footprint([size - less for size, less in zip(self.sizes, gone, strict=True)])

        low, high = 0, removable  # the fewest that must go; the cost falls with each that does
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if kept(middle).fits(limit) else (middle + 1, high)
        stays = torch.ones(len(order), dtype=torch.bool)
        stays[smallest_first[:low]] = False
        return list(stays.split(list(self.sizes)))


def _limit(value: float | None, whole: float) -> float:
    if value is None:
        return math.inf
    return value * whole if value <= 1 else value


def _rank(mask: Tensor, least: int) -> Tensor:
    """Return masks on the CPU, the largest `least` of them as infinite."""
    values = mask.detach().double().cpu()
    if least:
        values[values.topk(least).indices] = torch.inf
    return values
