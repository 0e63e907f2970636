# SPDX-License-Identifier: Apache-2.0
"""Say which rows of a study do better than a run without them that is as accurate, and which do not. Nothing is measured here.

Source: ho2024tldmi, Section 4.3: a defense that only costs accuracy protects no better than training less.
Equations: none.
Departures: the paper reads curves by eye; here a row is said to do better where the whole 95 % interval over seeds is above 0.
"""

from __future__ import annotations

import math

from sfumato.studies.column import Column
from sfumato.studies.compared import number
from sfumato.studies.results import Results
from sfumato.tables import show_interval
from sfumato.types import Interval


def standings(results: Results) -> list[str]:
    """Return a sentence or more for each column that compares at the same accuracy, the best row first.

    Args:
        results: of the study.
    """
    return [sentence for column in results.study.columns if column.beside == "matched" for sentence in _of(results, column)]


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


def _points(value: Interval) -> str:
    """Write points with their interval, where it is known."""
    scaled = Interval(*(100 * number for number in (value.value, value.low, value.high)))
    return f"{scaled.value:.1f} points" if math.isnan(scaled.low) else show_interval(scaled, ".1f")
