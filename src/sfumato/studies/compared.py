# SPDX-License-Identifier: Apache-2.0
"""What a row of a study shows beside another: what it loses, and what is left of that at the same accuracy. Nothing is run here.

Source: ding2024patrol, Tables I to V and VII (the drops); ho2024tldmi, Tables 5 and 7 (the ratio of drops), Table 12 (training
    time) and Section 4.3 (attacks at the same natural accuracy).
Equations: drop = before - after, or that over before -> drop; ratio = drop of attack accuracy / drop of natural accuracy ->
    number; matched = value of the compared run at the accuracy of the row - value of the row -> _matched
Departures: PATROL's paper does not say whether a drop of accuracy is in points or relative: here it is in points. TL-DMI's paper
shows attacks at the same accuracy as curves, to be read by eye; here the compared run's checkpoints are joined by straight lines.
"""

from __future__ import annotations

import bisect
import math
import statistics

from sfumato.studies.column import Column
from sfumato.studies.measured import measured, over_seeds
from sfumato.studies.results import Cell, Results
from sfumato.studies.study import Row
from sfumato.types import Interval


def drop(before: float, after: float, *, relative: bool) -> float:
    """Return by how much a number is lower than another, as a share; negative where it is higher.

    Args:
        before: of the row that another stands against.
        after: of that other.
        relative: to the number before.

    Example:
        >>> round(100 * drop(18.15, 18.15 - 0.84, relative=True), 1)
        4.6
    """
    if relative:
        return (before - after) / before if before else math.nan
    return before - after


def found_in(cell: Cell, row: Row, column: Column, results: Results) -> Interval | None:
    """Return what a cell shows: its number, or what that is beside the one of the same seed that it stands against.

    Args:
        cell: of the results.
        row: that of the cell.
        column: of their study.
        results: where that other cell is.

    Returns:
        None where either was not measured. The interval of a comparison is not known, and both its bounds are NaN.
    """
    after = measured(cell, column, results)
    if after is None:
        return None
    if column.beside == "matched":
        return _matched(cell, after.value, column, results)
    if not row.against:
        return Interval(1.0, 1.0, 1.0) if column.beside == "times" else None if column.beside == "ratio" else after
    first = next((other for other in results.of(row.against) if other.seed == cell.seed), None)
    if not column.beside or first is None:
        return after if not column.beside else None
    before = measured(first, column, results)
    if before is None:
        return None
    if column.beside == "times":
        return _unsure(after.value / before.value) if before.value else None
    relative = column.whole is not None and column.whole.unit != "%"
    return _unsure(drop(before.value, after.value, relative=relative))


def _matched(cell: Cell, value: float, column: Column, results: Results) -> Interval | None:
    """Return how far a number lies below that of the compared run at the same accuracy.

    A cell that is more accurate than every checkpoint of that run is compared with the most accurate of them; for one that is
    less accurate than all of them there is nothing to compare it with.
    """
    points = sorted(_checkpoints(cell.seed, column, results))
    if cell.accuracy is None or not points or cell.accuracy.value < points[0][0]:
        return None
    place = bisect.bisect_right(points, (cell.accuracy.value, math.inf))
    (x, y), (beyond, up) = points[place - 1], points[min(place, len(points) - 1)]
    share = (cell.accuracy.value - x) / (beyond - x) if beyond > x else 0.0
    return _unsure(y + share * (up - y) - value)


def _checkpoints(seed: int, column: Column, results: Results) -> list[tuple[float, float]]:
    """Return accuracy and number of each checkpoint of the run that others are compared with, of one seed."""
    series = results.study.keys.matched
    cells = [cell for row in results.study.rows_at(results.size) if row.series == series for cell in results.of(row.label)]
    found = [(cell.accuracy, measured(cell, column, results)) for cell in cells if cell.seed == seed]
    return [(accuracy.value, number.value) for accuracy, number in found if accuracy is not None and number is not None]


def number(results: Results, row: Row, column: Column) -> Interval | None:
    """Return what a row came to, over the seeds that have numbers, without an interval where some have none; None where none has.

    The ratio of drops is that of the mean drops: of a single seed the drop of accuracy may be nearly nothing.

    Args:
        results: of the study.
        row: of the study.
        column: of the study.
    """
    if column.beside == "ratio":
        lost = [(found_in(cell, row, column, results), _lost(cell, row, results)) for cell in results.of(row.label)]
        both = [(attack.value, accuracy) for attack, accuracy in lost if attack is not None and accuracy is not None]
        spent = statistics.fmean(accuracy for _, accuracy in both) if both else 0.0
        return _unsure(statistics.fmean(attack for attack, _ in both) / spent) if spent > 0 else None
    found = [interval for cell in results.of(row.label) if (interval := found_in(cell, row, column, results)) is not None]
    if 0 < len(found) < len(results.seeds):  # an interval of some seeds is not that of all
        return _unsure(statistics.fmean(interval.value for interval in found))
    if not found:
        return None
    mean, shown = over_seeds(found), column.whole if column.whole and not row.against else column.measure
    return _within(mean) if shown.unit == "%" and column.beside in ("", "drop") else mean


def _lost(cell: Cell, row: Row, results: Results) -> float | None:
    """Return how much accuracy a cell lost, in [-1, 1]."""
    first = next((other for other in results.of(row.against) if other.seed == cell.seed), None)
    if first is None or first.accuracy is None or cell.accuracy is None:
        return None
    return first.accuracy.value - cell.accuracy.value


def _within(share: Interval) -> Interval:
    """Cut the interval of a share, which Student's t knows nothing of, at 0 and 1."""
    return Interval(share.value, max(share.low, 0.0), min(share.high, 1.0))


def _unsure(value: float) -> Interval:
    """Return a number whose interval is not known."""
    return Interval(value, math.nan, math.nan)
