# SPDX-License-Identifier: Apache-2.0
"""Shares that counting gave, with 95 % intervals: exact ones, Wilson's, and that of the mean of two shares.

Source: clopper1934; wilson1927; newcombe1998, method 10, which zou2008 names MOVER (method of variance estimates recovery).
Equations: the limits of clopper1934, as quantiles of the beta distribution -> clopper_pearson; the score limits of wilson1927 ->
wilson; the limits of a sum, zou2008, for half of each of two independent shares -> mean_share
Departures: newcombe1998 combines two shares to their difference; their mean has the same squares, and a factor of a half.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from scipy.special import betaincinv
from torch import Tensor

from sfumato.types import Interval

ALPHA = 0.05
"""Share of samples whose interval misses the truth."""
QUANTILE = NormalDist().inv_cdf(1 - ALPHA / 2)
"""Of the standard normal distribution, at 97.5 %."""


def clopper_pearson(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Return the exact 95 % interval of shares.

    Each end misses the truth in at most 2.5 % of samples, so that one end alone is a bound at 97.5 %.

    Args:
        counts: successes, (n,), int64, 0 to total.
        total: trials, at least 1.

    Returns:
        The lower and the upper ends, (n,), float64, on the CPU, in [0, 1].

    Example:
        >>> low, high = clopper_pearson(torch.tensor([0, 5, 10]), 10)
        >>> [round(value, 3) for value in (*low.tolist(), *high.tolist())]
        [0.0, 0.187, 0.692, 0.308, 0.813, 1.0]
    """
    found = counts.cpu().double()
    # The beta distribution does not exist where nothing or everything succeeds; 1 stands in for what is replaced below.
    low = betaincinv(found.clamp_min(1).numpy(), (total - found + 1).numpy(), ALPHA / 2)
    high = betaincinv((found + 1).numpy(), (total - found).clamp_min(1).numpy(), 1 - ALPHA / 2)
    return (
        torch.from_numpy(low).masked_fill(found == 0, 0.0),
        torch.from_numpy(high).masked_fill(found == total, 1.0),
    )


def exact_share(count: int, total: int) -> Interval:
    """Return a share with its exact 95 % interval.

    Args:
        count: successes, 0 to total.
        total: trials, at least 1.

    Example:
        >>> found = exact_share(5, 10)
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.5, 0.187, 0.813)
    """
    low, high = clopper_pearson(torch.tensor([count]), total)
    return Interval(count / total, low.item(), high.item())


def wilson(count: int, total: int) -> Interval:
    """Return a share with Wilson's 95 % interval, which holds on average where the exact one holds always, and is narrower.

    Args:
        count: successes, 0 to total.
        total: trials, at least 1.

    Example:
        >>> found = wilson(5, 10)
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.5, 0.237, 0.763)
    """
    share, squared = count / total, QUANTILE**2
    center = (share + squared / (2 * total)) / (1 + squared / total)
    half = QUANTILE / (1 + squared / total) * math.sqrt(share * (1 - share) / total + squared / (4 * total**2))
    # The limits pass through 0 and 1 exactly; rounding does not.
    return Interval(share, 0.0 if count == 0 else center - half, 1.0 if count == total else center + half)


def mean_share(first: Interval, second: Interval) -> Interval:
    """Return the mean of two independent shares with its 95 % interval.

    Args:
        first: a share with its interval.
        second: another.

    Example:
        >>> found = mean_share(wilson(9, 10), wilson(5, 10))
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.7, 0.499, 0.838)
    """
    value = (first.value + second.value) / 2
    low = value - math.hypot(first.value - first.low, second.value - second.low) / 2
    high = value + math.hypot(first.high - first.value, second.high - second.value) / 2
    return Interval(value, low, high)
