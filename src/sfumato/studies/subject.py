# SPDX-License-Identifier: Apache-2.0
"""A trace, and what traces are taken of: the records that the takers of traces share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sfumato.checkpoint import EpochFacts
from sfumato.curve import Point
from sfumato.data.base import Data
from sfumato.inversion_exhibits import JudgedPictures
from sfumato.membership_types import Membership
from sfumato.target import Target
from sfumato.types import Interval, Labels


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Numbers along an axis, of one row with one seed.

    Attributes:
        x: along the horizontal axis.
        y: along the vertical axis, as many.
        low: lower ends of the 95 % intervals of y; empty where they have none.
        high: upper ends.
        labels: what each point is; empty where the axes say it.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    def points(self) -> tuple[Point, ...]:
        """Return the points to draw."""
        low, high, labels = self.low or self.y, self.high or self.y, self.labels or ("",) * len(self.x)
        numbers = zip(self.x, self.y, low, high, labels, strict=True)
        return tuple(Point(Interval(x, x, x), Interval(y, least, most), label) for x, y, least, most, label in numbers)


@dataclass(frozen=True)
class Subject:
    """What traces are taken of.

    Attributes:
        target: the trained target.
        data: its pictures.
        history: of each epoch of its training.
        membership: what attacks on its predictions found, or None.
        seed: of the row.
        classes: those that attacks on its weights were to rebuild, (K,), int64; None where there was no such attack.
        pictures: what each of these made of them, by its label.
    """

    target: Target
    data: Data
    history: Sequence[EpochFacts]
    membership: Membership | None
    seed: int
    classes: Labels | None = None
    pictures: Mapping[str, JudgedPictures] = field(default_factory=dict)


def histogram(places: Tensor, bins: int, middle: Callable[[float], float], *, total: float | None = None) -> Trace:
    """Count numbers.

    Args:
        places: the number of the bin that each falls into, with what lies before it in the bin as a fraction, (N,); those beyond
            an end count at that end.
        bins: how many.
        middle: returns what is at a place.
        total: what counts are given in percent of; None gives counts.

    Returns:
        The bins that hold something: an empty one has no place on a logarithmic axis.

    Example:
        >>> import torch
        >>> histogram(torch.tensor([0.5, 2.1, 2.9]), 4, lambda place: place / 4, total=3).x
        (0.125, 0.625)
    """
    counts = places.floor().long().clamp(0, bins - 1).bincount(minlength=bins).double()
    filled = counts.nonzero()[:, 0].tolist()
    heights = counts if total is None else 100 * counts / total
    return Trace(x=tuple(round(middle(place + 0.5), 6) for place in filled), y=tuple(heights[filled].tolist()))
