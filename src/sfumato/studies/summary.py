# SPDX-License-Identifier: Apache-2.0
"""The numbers of a study: means over seeds with intervals, drops, averages of rows, gains. Nothing is run here.

Source: xia2025cem, Tables 1 to 3 (their last two rows) and section 5.2 (the gains); ding2024patrol, Tables I to V and VII (the
    drops) and I (means over settings).
Equations: gain of a part = mean over attacks of (average with / average without - 1) -> gain_percent; drop = before - after, or
    that over before -> drop; with several seeds the 95 % interval of a mean is t(n - 1) s / sqrt(n) -> over_seeds
Departures: the averages of CEM's paper are over all seven pairs and cut off after four digits; ours are over the pairs that were
    run. PATROL's paper does not say whether a drop of accuracy is in points or relative: here it is in points.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from sfumato.membership_types import Bound, Membership
from sfumato.studies.column import Column
from sfumato.studies.inverted import numbers
from sfumato.studies.results import Cell, Reading, Results
from sfumato.studies.study import Row
from sfumato.types import AttackResult, Compression, Interval

_PARTS: Mapping[tuple[Reading, str], tuple[str, str]] = {
    ("scored", "train"): ("private", "train"),
    ("scored", "infer"): ("private", "inference"),
    ("trained", "train"): ("private", "inference"),
    ("trained", "infer"): ("test", "inference"),
}
"""Where the adversary's pictures come from and which part is scored, by reading and column."""

_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101,
    2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantiles of Student's t with 1 to 30 degrees of freedom."""


def over_seeds(found: Sequence[Interval]) -> Interval:
    """Return the mean over seeds with its 95 % interval; with one seed, what that seed found.

    Args:
        found: what each seed found, at least one.

    Example:
        >>> over_seeds([Interval(1.0, 0.0, 2.0), Interval(3.0, 2.0, 4.0)])
        Interval(value=2.0, low=-10.706, high=14.706)
    """
    if len(found) == 1:
        return found[0]
    values = [interval.value for interval in found]
    freedom = len(values) - 1
    quantile = _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom
    mean, half = statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def measured(cell: Cell, column: Column, results: Results) -> Interval | None:
    """Return what a cell has for a column, or None where that was not measured.

    Args:
        cell: of the results.
        column: of their study.
        results: for the reading of the columns.
    """
    if column.source == "target":
        return cell.accuracy if column.key == "accuracy" else cell.utility.get(column.key)
    if column.source == "attack":
        return _recovered(cell, column, results)
    if column.source in ("side", "inference"):
        return None if cell.membership is None else _inferred(cell.membership, column)
    if column.source in ("inversion", "evaluator", "yardstick", "prior"):
        found = numbers(cell.inversion, column) if cell.inversion else []
        return over_seeds(found) if found else None
    if column.source == "certificate":
        values = [one.values[column.key] for one in cell.certificates if one.name == column.name and column.key in one.values]
        return _exact(values[0]) if values else None
    if column.source == "half" and column.key == "milliseconds":
        return _exact(cell.milliseconds[column.name]) if column.name in cell.milliseconds else None
    if cell.facts is None:
        return None
    if column.source == "compression":
        return _left(cell.facts.compression, column.key)
    key = "memory" if column.key == "megabytes" else column.key
    count: int | None = getattr(cell.facts, f"{column.name}_{key}")
    return None if count is None else _exact(float(count))


def _inferred(membership: Membership, column: Column) -> Interval | None:
    """Return what an attack inferred, or how good the target is on one side, in [0, 1]."""
    if column.source == "side":
        return membership.accuracy[column.name == "nonmembers"]
    found = [result for result in membership.results if result.name == column.name]
    if not found:
        return None
    own = max(found, key=lambda result: result.targets)  # each model in turn was the target: that says most
    value = getattr(own, "balanced_accuracy" if column.key == "attack_accuracy" else column.key)
    if isinstance(value, Bound):
        if value.value is None or value.low is None or value.high is None:
            return None
        return Interval(value.value, value.low, value.high)
    return value if isinstance(value, Interval) else _exact(value)


def _left(compression: Compression | None, key: str) -> Interval | None:
    """Return what pruning left, or None where nothing was pruned or no time was measured."""
    if compression is None or (key.endswith("milliseconds") and compression.milliseconds is None):
        return None
    before, after = compression.milliseconds or (math.nan, math.nan)
    values: Mapping[str, float] = {
        "weights": compression.weights,
        "kept": compression.kept,
        "ratio": compression.ratio,
        "dense_megabytes": compression.bytes_dense,
        "megabytes": compression.bytes_stored,
        "dense_macs": compression.macs_dense,
        "macs": compression.macs_kept,
        "dense_milliseconds": before,
        "milliseconds": after,
    }
    return _exact(float(values[key]))


def _recovered(cell: Cell, column: Column, results: Results) -> Interval | None:
    """Return what an attack recovered, by the weights that the study scores."""
    auxiliary, part = _PARTS[results.reading, column.part]
    made: Mapping[str, AttackResult] = {
        result.selection: result
        for result in cell.attacks.get(auxiliary, ())
        if result.name == column.name and result.part == part
    }
    chosen = made.get(results.study.keys.selection) or made.get("only")
    if chosen is None or column.key in ("inside", "outside"):
        return None if chosen is None else chosen.regions.get(column.key)
    if column.key == "recognized":
        return None if chosen.recognized is None else chosen.recognized.accuracy
    interval: Interval | None = getattr(chosen, column.key)
    return interval


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
    """Return what a cell shows: its number, or how far that is below the one of the same seed that it stands against.

    Args:
        cell: of the results.
        row: that of the cell.
        column: of their study.
        results: where that other cell is.

    Returns:
        None where either was not measured. The interval of a drop is not known, and both its bounds are NaN.
    """
    after = measured(cell, column, results)
    if column.whole is None or not row.against:
        return after
    first = next((other for other in results.of(row.against) if other.seed == cell.seed), None)
    before = None if first is None else measured(first, column, results)
    if before is None or after is None:
        return None
    return Interval(drop(before.value, after.value, relative=column.whole.unit != "%"), math.nan, math.nan)


def _exact(value: float) -> Interval:
    return Interval(value, value, value)


def number(results: Results, row: Row, column: Column) -> Interval | None:
    """Return what a row came to, over the seeds that have numbers, without an interval where some have none; None where none has.

    Args:
        results: of the study.
        row: of the study.
        column: of the study.
    """
    found = [interval for cell in results.of(row.label) if (interval := found_in(cell, row, column, results)) is not None]
    if 0 < len(found) < len(results.seeds):  # an interval of some seeds is not that of all
        return Interval(statistics.fmean(interval.value for interval in found), math.nan, math.nan)
    return over_seeds(found) if found else None


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
    return statistics.fmean(values) if values else None


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
