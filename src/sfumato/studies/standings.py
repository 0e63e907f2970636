# SPDX-License-Identifier: Apache-2.0
"""Say what a study's numbers come to: which rows do better than a run that is as accurate, and which layers matter to which task.

Source: ho2024tldmi, Section 4.3 (a defense that only costs accuracy protects no better than training less) and Section 4.2 (first
    layers matter to rebuilding people and not to naming them).
Equations: none.
Departures: the paper reads curves by eye; here a row is said to do better, and a task to weigh first layers more, where the whole
95 % interval over seeds is above 0.
"""

from __future__ import annotations

import math
import statistics

from sfumato.studies.column import Column
from sfumato.studies.compared import number
from sfumato.studies.measured import over_seeds
from sfumato.studies.results import Results
from sfumato.studies.subject import Trace
from sfumato.tables import show_interval
from sfumato.types import Interval

_NAMING = "fisher/task"


def standings(results: Results) -> list[str]:
    """Return sentences for each column that compares at the same accuracy, the best row first, and each profile over the layers.

    Args:
        results: of the study.
    """
    compared = [sentence for column in results.study.columns if column.beside == "matched" for sentence in _of(results, column)]
    profiles = [name for name in results.study.keys.traces if name.startswith("fisher/") and name != _NAMING]
    rows = results.study.rows_at(results.size)
    return compared + [said for row in rows for name in profiles if (said := _first_layers(results, row.label, name))]


def _of(results: Results, column: Column) -> list[str]:
    rows = [row for row in results.study.rows_at(results.size) if row.series != results.study.keys.matched]
    found = {row.label: value for row in rows if (value := number(results, row, column)) is not None}
    if not found:
        return []
    ranked = sorted(found, key=lambda label: -found[label].value)
    what = column.name or column.key
    if any(math.isnan(value.low) for value in found.values()):
        first = ranked[0]
        return [
            f"At the same accuracy {what} finds least with {first}, {_points(found[first])} below; without several seeds nobody "
            "knows how much of that is chance."
        ]
    better = [f"{label} {_points(found[label])}" for label in ranked if found[label].low > 0]
    worse = [f"{label} {_points(found[label])}" for label in ranked if found[label].high < 0]
    open_ = [label for label in ranked if found[label].low <= 0 <= found[label].high]
    said = [
        (better, f"At the same accuracy {what} finds less, in points: {'; '.join(better)}."),
        (worse, f"At the same accuracy {what} finds more, in points: {'; '.join(worse)}."),
        (open_, f"At the same accuracy no difference in {what} can be shown for {', '.join(open_)}."),
    ]
    return [sentence for rows_of_it, sentence in said if rows_of_it]


def _first_layers(results: Results, row: str, name: str) -> str:
    """Say whether rebuilding weighs the first third of the layers more than naming does; "" where one was not measured."""
    both = [(cell.traces[_NAMING], cell.traces[name]) for cell in results.of(row) if {_NAMING, name} <= cell.traces.keys()]
    if not both:
        return ""
    shares = [tuple(_first_third(trace, int(max(rebuilding.x))) for trace in (naming, rebuilding)) for naming, rebuilding in both]
    first, second = (f"{100 * statistics.fmean(share[place] for share in shares):.1f} %" for place in (0, 1))
    found = over_seeds([Interval(more - less, math.nan, math.nan) for less, more in shares])
    told = "no difference can be shown"
    if not found.low <= 0 <= found.high and len(shares) > 1:
        less = Interval(-found.value, -found.high, -found.low)
        told = f"more, by {_points(found)} points" if found.value > 0 else f"less, by {_points(less)} points"
    elif len(shares) == 1:
        told = "how much of the difference is chance, one seed does not say"
    what = name.removeprefix("fisher/").replace("/", ", ")
    return (
        f"{row}: of the layers before the last, the first third has {first} of the Fisher information for naming people and "
        f"{second} of that for rebuilding them ({what}): {told}."
    )


def _first_third(trace: Trace, layers: int) -> float:
    """Return what the first third of so many layers has of their information, in [0, 1]; of a cut layer its part."""
    kept = [(number, share) for number, share in zip(trace.x, trace.y, strict=True) if number <= layers]
    return sum(share * min(max(layers / 3 - (number - 1), 0.0), 1.0) for number, share in kept) / sum(share for _, share in kept)


def _points(value: Interval) -> str:
    """Write points with their interval, where it is known."""
    scaled = Interval(*(100 * number for number in (value.value, value.low, value.high)))
    return f"{scaled.value:.1f} points" if math.isnan(scaled.low) else show_interval(scaled, ".1f")
