# SPDX-License-Identifier: Apache-2.0
"""The operating points of scores: how many members and non-members lie at or above each threshold.

Source: fawcett2006roc, Algorithm 1 and Section 5 (examples of equal score are taken together).
Equations: none.
Departures: a stored curve keeps some of the points, more of them where few non-members are taken for members: attacks are judged
there, and pictures have logarithmic axes. Every point that is kept is a point of the whole curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.membership_types import Roc

MOST = 300
"""Points of a stored curve, at most."""


@dataclass(frozen=True)
class Points:
    """Every operating point of scores: examples whose score is at least the threshold are taken for members.

    Attributes:
        thresholds: (T,), float64, falling: infinity, then every score that occurs.
        hits: (T,), int64, rising: how many members are taken for members, from 0 to all of them.
        alarms: (T,), int64, rising: how many non-members are.
    """

    thresholds: Tensor
    hits: Tensor
    alarms: Tensor

    @property
    def members(self) -> int:
        """How many members there are."""
        return int(self.hits[-1])

    @property
    def nonmembers(self) -> int:
        """How many non-members there are."""
        return int(self.alarms[-1])

    @property
    def gain(self) -> Tensor:
        """(T,), int64: TPR - FPR times members times non-members; in whole numbers, equally good points are equal."""
        return self.hits * self.nonmembers - self.alarms * self.members

    def within(self, alarms: int) -> int:
        """Return the place of the point that finds most members with so many false alarms at most."""
        return int(torch.searchsorted(self.alarms, alarms, right=True)) - 1

    def at(self, threshold: float) -> int:
        """Return the place of the point that takes those for members whose score is at least a threshold."""
        return int((self.thresholds >= threshold).sum()) - 1

    def between(self, place: int) -> float:
        """Return a threshold halfway to the next score below, that other examples can be held against.

        Args:
            place: of a point. The first takes nobody for a member, so its threshold is infinity; the last takes everybody.
        """
        if place == len(self.thresholds) - 1:
            return -torch.inf
        upper, lower = self.thresholds[place].item(), self.thresholds[place + 1].item()
        middle = upper / 2 + lower / 2
        return middle if middle > lower else upper

    def some(self) -> Tensor:
        """Return the places of at most `MOST` points that stand for all, rising, with both ends.

        They are dense where there are few false alarms, and where few members are missed.
        """
        if len(self.thresholds) <= MOST:
            return torch.arange(len(self.thresholds))
        few = (MOST - 4) // 3
        alarms = torch.searchsorted(self.alarms, _geometric(self.nonmembers, few), right=True) - 1
        hits = torch.searchsorted(self.hits, torch.linspace(0, self.members, few).long())
        misses = torch.searchsorted(self.hits, self.members - _geometric(self.members, few))
        ends = torch.tensor([0, len(self.thresholds) - 1])
        places: Tensor = torch.cat([ends, alarms, hits, misses]).unique()
        return places


def operating_points(scores: Tensor, member: Tensor) -> Points:
    """Return every operating point of scores.

    Args:
        scores: (N,), float, finite, higher for a member.
        member: (N,), bool.

    Returns:
        The points, on the CPU.

    Example:
        >>> points = operating_points(torch.tensor([3.0, 2.0, 2.0, 1.0]), torch.tensor([True, True, False, False]))
        >>> points.hits.tolist(), points.alarms.tolist()
        ([0, 1, 2, 2], [0, 0, 1, 2])
    """
    ordered, order = scores.detach().to("cpu", torch.float64).sort(descending=True)
    inside = member.cpu()[order].long()
    last = torch.cat([ordered[1:] != ordered[:-1], torch.tensor([True])])
    start = torch.zeros(1, dtype=torch.int64)
    return Points(
        thresholds=torch.cat([torch.tensor([torch.inf], dtype=torch.float64), ordered[last]]),
        hits=torch.cat([start, inside.cumsum(0)[last]]),
        alarms=torch.cat([start, (1 - inside).cumsum(0)[last]]),
    )


def roc(scores: Tensor, member: Tensor) -> Roc:
    """Return the ROC curve of scores, at most `MOST` of its points, with both ends.

    Args:
        scores: (N,), float, finite, higher for a member.
        member: (N,), bool.

    Raises:
        DataError: fewer than 2 members or 2 non-members.

    Example:
        >>> roc(torch.tensor([3.0, 2.0, 2.0, 1.0]), torch.tensor([True, True, False, False]))
        Roc(fpr=(0.0, 0.0, 0.5, 1.0), tpr=(0.0, 0.5, 1.0, 1.0))
    """
    require_both(member)
    points = operating_points(scores, member)
    places = points.some()
    fpr, tpr = points.alarms[places].double() / points.nonmembers, points.hits[places].double() / points.members
    return Roc(tuple(fpr.tolist()), tuple(tpr.tolist()))


def require_both(member: Tensor) -> None:
    """Raise where there are not two examples on either side, without which nothing can be measured.

    Raises:
        DataError: fewer than 2 members or 2 non-members.
    """
    inside = int(member.sum())
    if min(inside, len(member) - inside) < 2:
        raise DataError(
            f"expected at least 2 members and 2 non-members to score, found {inside} and {len(member) - inside}; ask about more"
        )


def _geometric(end: int, count: int) -> Tensor:
    """Return 0 and whole numbers from 1 to `end`, each about the same factor above the one before."""
    steps = torch.logspace(0, math.log10(end), count, dtype=torch.float64).round().long()
    return torch.cat([torch.zeros(1, dtype=torch.int64), steps]).clamp_max(end)
