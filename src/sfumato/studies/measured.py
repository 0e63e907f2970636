# SPDX-License-Identifier: Apache-2.0
"""The number that one cell of a study has for a column, and the mean of several cells."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from sfumato.membership_types import Bound, Membership
from sfumato.studies.column import Column
from sfumato.studies.inverted import numbers
from sfumato.studies.results import Cell, Reading, Results
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
    if column.source == "training":
        return (
            None
            if cell.training is None
            else _exact(getattr(cell.training, "parameters" if column.key == "parameters" else "seconds"))
        )
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


def _exact(value: float) -> Interval:
    return Interval(value, value, value)
