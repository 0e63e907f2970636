# SPDX-License-Identifier: Apache-2.0
"""A study as Markdown and as a page, with its charts and pictures. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato import markdown
from sfumato.curve import NARROW, Axis, Point, Series, draw, listing
from sfumato.files import write_atomic
from sfumato.page import render
from sfumato.studies.column import Column
from sfumato.studies.compared import number
from sfumato.studies.results import Results, write_results
from sfumato.studies.subject import Trace
from sfumato.studies.table import facts, gains, remarks, study_table
from sfumato.studies.trace import Kind, read_trace
from sfumato.tables import Row
from sfumato.types import Interval


def save_study(results: Results, folder: Path) -> None:
    """Write study.json, report.md and report.html.

    Args:
        results: of the study.
        folder: where; made when missing.

    Raises:
        StorageError: it cannot be written.
    """
    write_results(results, folder / "study.json")
    write_atomic(folder / "report.md", study_markdown(results).encode(errors="backslashreplace"))
    write_atomic(folder / "report.html", study_html(results).encode(errors="backslashreplace"))


def curves(results: Results) -> list[tuple[list[Series], Axis, Axis]]:
    """Return the charts of a study: in each a series for each row that is varied.

    Args:
        results: of the study.
    """
    chart, columns = results.study.keys.chart, {column.text: column for column in results.study.columns}
    return [_curve(results, columns[x], columns[y]) for x, y in (chart.pairs if chart else ())]


def _curve(results: Results, x: Column, y: Column) -> tuple[list[Series], Axis, Axis]:
    points: dict[str, list[Point]] = {}
    for row in results.study.rows_at(results.size):
        pair = number(results, row, x), number(results, row, y)
        if pair[0] is not None and pair[1] is not None:
            points.setdefault(row.series, []).append(Point(_scaled(pair[0], x), _scaled(pair[1], y), row.label))
    return [Series(name, tuple(own)) for name, own in points.items()], _axis(x), _axis(y)


def traced(results: Results) -> list[tuple[Kind, list[Series]]]:
    """Return what was recorded of the rows along an axis, of the first seed.

    Args:
        results: of the study.

    Returns:
        For each kind a series for each row. Of a single row those kinds that have the same axes are drawn as one.
    """
    kinds = {name: read_trace(name) for name in results.study.keys.traces}
    cells = [cell for cell in results.cells if cell.seed == results.seeds[0] and cell.traces]
    if len(cells) == 1:
        return _together([(kind, cells[0].traces[name]) for name, kind in kinds.items() if name in cells[0].traces])
    found = [
        (kind, [kind.series(cell.row, cell.traces[name]) for cell in cells if name in cell.traces])
        for name, kind in kinds.items()
    ]
    return [(kind, series) for kind, series in found if series]


def _together(found: Sequence[tuple[Kind, Trace]]) -> list[tuple[Kind, list[Series]]]:
    """Draw the traces of one row that have the same axes as one."""
    groups: dict[tuple[Axis, Axis], list[tuple[Kind, Trace]]] = {}
    for kind, trace in found:
        groups.setdefault((kind.x, kind.y), []).append((kind, trace))
    drawn = []
    for (x, y), group in groups.items():
        title = group[0][0].title if len(group) == 1 else f"{y.title[:1].upper()}{y.title[1:]}, by {x.title}"
        drawn.append((replace(group[0][0], title=title), [kind.series(kind.title, trace) for kind, trace in group]))
    return drawn


def _scaled(interval: Interval, column: Column) -> Interval:
    factor = column.measure.scale
    return Interval(factor * interval.value, factor * interval.low, factor * interval.high)


def _axis(column: Column) -> Axis:
    name = " ".join(part for part in (column.name, column.part, column.measure.title) if part)
    return Axis(name, column.measure.unit, column.measure.form or column.measure.printed)


def study_markdown(results: Results) -> str:
    """Write a study as Markdown, without charts and pictures.

    Args:
        results: of the study.

    Returns:
        The text; whatever a record says is escaped.
    """
    table = study_table(results)
    blocks = [f"# {markdown.escape(results.study.keys.title)}", *map(markdown.escape, facts(results))]
    blocks += [markdown.table(table.headings, table.rows), *map(markdown.escape, gains(results))]
    if remarks(results):
        blocks += ["## Remarks", markdown.items(remarks(results))]
    return "\n\n".join([*blocks, "## How this was made", markdown.items(origin(results))]) + "\n"


def origin(results: Results) -> list[str]:
    """Say what somebody needs to make the numbers again.

    Args:
        results: of the study.
    """
    command = f"sfumato study run {results.study.name} --size {results.size} --seeds {len(results.seeds)}"
    reading = "" if results.reading == "scored" else f" --reading {results.reading}"
    started = [row for row in results.study.rows_at(results.size) if row.start and results.of(row.label)]
    return [
        f"command: {command}{reading}",
        *(f"data: {data.name}; SHA-256 of the training pictures {data.fingerprint}" for data, _ in results.pictures),
        f"seeds: {', '.join(map(str, results.seeds))}",
        f"hardware: {'; '.join(dict.fromkeys(cell.hardware for cell in results.cells if cell.hardware)) or 'none'}",
        *(f"version of {name}: {version}" for name, version in results.versions.items()),
        *(f"defenses of {row}: {'; '.join(defenses) or 'none'}" for row, defenses in _defended(results).items()),
        *(f"{row.label} starts from the trained model of {row.start}" for row in started),
        *(f"recipe of {cell.row}, seed {cell.seed}: SHA-256 {cell.recipe}" for cell in results.cells if cell.recipe),
    ]


def _defended(results: Results) -> dict[str, tuple[str, ...]]:
    """Return the defenses of each row that was run, as they print themselves."""
    return {cell.row: cell.facts.defenses for cell in results.cells if cell.facts is not None}


def _drawing(series: Sequence[Series], x: Axis, y: Axis, *, title: str = "") -> dict[str, Any]:
    """Return a chart for wide and for narrow pages, and its points as a table; points that say nothing lose their label."""
    points, labeled = listing(series, x, y), any(point.label for one in series for point in one.points)
    return {
        "title": title,
        "wide": draw(series, x, y),
        "narrow": draw(series, x, y, width=NARROW),
        "headings": ("Row", *(("Point",) if labeled else ()), x, y),
        "points": points if labeled else [Row(row.label, row.cells[1:]) for row in points],
    }


def study_html(results: Results) -> str:
    """Write a study as one HTML page that needs nothing else: no network, no script.

    Args:
        results: of the study.

    Returns:
        The page; whatever a record says is escaped.
    """
    pictured, table = [cell for cell in results.cells if cell.pictures], study_table(results)
    return render(
        "study.html.j2",
        title=results.study.keys.title,
        heading="Ours beside the paper's" if any("paper" in some for some in table.sources) else "The numbers",
        facts=facts(results),
        gains=gains(results),
        table=table,
        remarks=remarks(results),
        charts=[_drawing(*chart) for chart in curves(results)],
        traces=[_drawing(series, kind.x, kind.y, title=kind.title) for kind, series in traced(results)],
        first=results.seeds[0],
        cells=pictured,
        sent=any("sent" in cell.pictures for cell in pictured),
        origin=origin(results),
    )
