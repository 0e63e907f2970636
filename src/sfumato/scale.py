# SPDX-License-Identifier: Apache-2.0
"""From numbers to places on an axis: round ticks, and a logarithm where the numbers span much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sfumato.tables import show_number
from sfumato.types import Interval

LIMIT = 1e12
"""Numbers from here on cannot be drawn; nothing that is measured comes near."""
LOG_FROM = 20.0
"""A logarithmic axis begins where the largest value is this many times the smallest."""


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        start: place of the first tick.
        end: place of the last tick.
        ticks: round numbers, ascending, that enclose everything to be shown.
        labels: a text for each tick.
        log: whether equal distances are equal factors.
    """

    start: float
    end: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool

    def __call__(self, value: float) -> float:
        """Return the place of a number; one beyond the ticks gets the place of the nearest."""
        bounded = min(max(value, self.ticks[0]), self.ticks[-1])
        low, high, here = map(math.log10, (self.ticks[0], self.ticks[-1], bounded)) if self.log else self._plain(bounded)
        return self.start + (self.end - self.start) * (here - low) / (high - low)

    def _plain(self, value: float) -> tuple[float, float, float]:
        return self.ticks[0], self.ticks[-1], value


def can_draw(value: float) -> bool:
    """Return whether a number has a place on an axis: it is finite and below `LIMIT`."""
    return abs(value) < LIMIT


def scale(intervals: Sequence[Interval], start: float, end: float, *, ticks: int = 5, log: bool = False) -> Scale:
    """Lay out an axis.

    Args:
        intervals: what to show, at least one, each with a value that can be drawn; bounds that cannot be are left out.
        start: place of the first tick.
        end: place of the last tick.
        ticks: about how many ticks.
        log: take a logarithmic axis where the values span a factor of more than `LOG_FROM`.

    Returns:
        The axis; it begins at zero where zero is near.

    Example:
        >>> scale([Interval(0.031, 0.03, 0.032), Interval(0.077, 0.07, 0.08)], 0, 100).labels
        ('0.00', '0.02', '0.04', '0.06', '0.08')
        >>> scale([Interval(0.001, 0.001, 0.001), Interval(0.05, 0.05, 0.05)], 0, 100, log=True).labels
        ('0.001', '0.002', '0.005', '0.01', '0.02', '0.05')
    """
    values = [interval.value for interval in intervals]
    bounds = [number for interval in intervals for number in (interval.value, interval.low, interval.high) if can_draw(number)]
    if log and min(values) > 1 / LIMIT and max(values) > LOG_FROM * min(values):
        # A bound that is zero, or next to it, would leave no room for the values.
        marks = _log_ticks(max(min(bounds), min(values) / 10), max(bounds))
        return Scale(start, end, marks, tuple(show_number(mark, ".4g") for mark in marks), log=True)
    marks, form = _linear_ticks(min(bounds), max(bounds), ticks)
    return Scale(start, end, marks, tuple(show_number(mark, form) for mark in marks), log=False)


def _linear_ticks(low: float, high: float, count: int) -> tuple[tuple[float, ...], str]:
    """Return multiples of 1, 2 or 5 times a power of ten that enclose the bounds, and how to write them."""
    if 0 <= low < high / 2:
        low = 0.0
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-3):  # a single number
        low, high = low - 0.05 * max(abs(low), 1e-3), high + 0.05 * max(abs(high), 1e-3)
    power = math.floor(math.log10((high - low) / count))
    step = next(factor * 10.0**power for factor in (1, 2, 5, 10) if factor * 10.0**power * count >= high - low)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)  # rounding must not cost a tick
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return tuple(number * step for number in range(first, last + 1)), f",.{decimals}f"


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return 1, 2 and 5 times the powers of ten that enclose the bounds, or powers alone where these are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = last - first
    factors: Iterable[int] = (1, 2, 5) if decades <= 3 else (1,)
    marks = [factor * 10.0**power for power in range(first, last + 1, 1 + decades // 8) for factor in factors]
    inside = [mark for mark in marks if low < mark < high]
    below = max((mark for mark in marks if mark <= low), default=marks[0])
    above = min((mark for mark in marks if mark >= high), default=10.0 ** (last + decades // 8))
    return (below, *inside, above)
