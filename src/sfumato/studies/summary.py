# SPDX-License-Identifier: Apache-2.0
"""The numbers of several rows of a study: averages and gains. Nothing is run here.

Source: xia2025cem, Tables 1 to 3 (their last two rows) and section 5.2 (the gains); ding2024patrol, Table I (means over
    settings).
Equations: gain of a part = mean over attacks of (average with / average without - 1) -> gain_percent; with several seeds the 95 %
    interval of a mean is t(n - 1) s / sqrt(n) -> over_seeds
Departures: the averages of CEM's paper are over all seven pairs and cut off after four digits; ours are over the pairs that were
    run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from sfumato.studies.column import Column
from sfumato.studies.compared import found_in
from sfumato.studies.measured import measured, over_seeds
from sfumato.studies.results import Cell, Results
from sfumato.studies.study import Row
from sfumato.types import Interval


def pairs(results: Results) -> list[tuple[Row, Row]]:
    """Return the rows that add to another, each after that other, in both of which every seed has numbers."""
    rows = {row.label: row for row in results.study.rows_at(results.size)}
    whole = {label for label in rows if {cell.seed for cell in results.of(label)} == set(results.seeds)}
    return [(rows[row.over], row) for row in rows.values() if row.over in whole and row.label in whole]


def paired(results: Results) -> int:
    """Return how many rows of the study add to another, run or not."""
    return sum(bool(row.over) for row in results.study.rows_at(results.size))


def settings(results: Results, series: str) -> tuple[list[Row], list[Row]]:
    """Return the rows that one was varied into: those in which every seed has numbers, and all of them."""
    rows = [row for row in results.study.rows_at(results.size) if row.series == series]
    return [row for row in rows if {cell.seed for cell in results.of(row.label)} == set(results.seeds)], rows


def over_settings(results: Results, column: Column, series: str) -> Interval | None:
    """Return the mean over the rows that one was varied into and that were run, each seed's mean being one number.

    Args:
        results: of the study.
        column: of the study.
        series: label of the row that was varied.
    """
    means = []
    for seed in results.seeds:
        own = [(row, cell) for row in settings(results, series)[0] for cell in results.of(row.label) if cell.seed == seed]
        found = [interval.value for row, cell in own if (interval := found_in(cell, row, column, results)) is not None]
        if own and len(found) == len(own):
            means.append(Interval(statistics.fmean(found), math.nan, math.nan))
    return over_seeds(means) if means else None


def average(results: Results, column: Column, of: str) -> Interval | None:
    """Return the mean over the pairs that were run.

    Args:
        results: of the study.
        column: of the study.
        of: "without" for the rows that others add to, "with" for those others.

    Returns:
        With one seed the interval is not known, and both its bounds are NaN.
    """
    return _over_pairs(results, lambda value: value(column, of))


def gain(results: Results, part: str) -> Interval | None:
    """Return the gain in percent of the pairs that were run, by the errors of all attacks on a part.

    Args:
        results: of the study.
        part: "train" or "infer".
    """
    columns = errors(results, part)
    if not columns:
        return None
    return _over_pairs(
        results, lambda value: gain_percent([(value(column, "without"), value(column, "with")) for column in columns])
    )


def errors(results: Results, part: str) -> list[Column]:
    """Return the columns that show an attack's mean squared error on a part."""
    return [column for column in results.study.columns if column.part == part and column.key == "mse"]


def gain_percent(averages: Sequence[tuple[float, float]]) -> float:
    """Return the mean relative gain, in percent.

    Args:
        averages: without and with, for each attack.

    Example:
        >>> round(gain_percent([(0.0148, 0.0183), (0.0156, 0.0194)]), 1)
        24.0
    """
    return 100 * statistics.fmean(after / before - 1 for before, after in averages)


def _over_pairs(results: Results, combined: Callable[[Callable[[Column, str], float]], float]) -> Interval | None:
    """Combine the averages of each seed into one number, and the seeds into a mean."""
    both = pairs(results)
    found = []
    for seed in results.seeds if both else ():
        cells = {cell.row: cell for cell in results.cells if cell.seed == seed}

        def value(column: Column, of: str, cells: Mapping[str, Cell] = cells) -> float:
            labels = [pair[of == "with"].label for pair in both]
            intervals = [measured(cells[label], column, results) for label in labels]
            return statistics.fmean(math.nan if interval is None else interval.value for interval in intervals)

        found.append(Interval(combined(value), math.nan, math.nan))
    known = [interval for interval in found if not math.isnan(interval.value)]
    return over_seeds(known) if known else None


def published_average(results: Results, column: Column, of: str, *, run: bool = False) -> float | None:
    """Return the mean of the paper's own rows, in the unit of the column; None where it has none.

    Args:
        results: of the study.
        column: of the study.
        of: "without" or "with".
        run: only over the pairs that were run.
    """
    rows = {row.label: row for row in results.study.rows_at(results.size)}
    both = pairs(results) if run else [(rows[row.over], row) for row in rows.values() if row.over in rows]
    place = results.study.columns.index(column)
    values = [pair[of == "with"].published[place] for pair in both if pair[0].published and pair[1].published]
    known = [value for value in values if value != "-"]
    return statistics.fmean(known) if known else None


def published_gain(results: Results, part: str) -> float | None:
    """Return the gain in percent by the paper's own rows, over the pairs that were run."""
    columns = errors(results, part)
    averages = [
        (before, after)
        for column in columns
        if (before := published_average(results, column, "without", run=True)) is not None
        and (after := published_average(results, column, "with", run=True)) is not None
    ]
    return gain_percent(averages) if averages else None
