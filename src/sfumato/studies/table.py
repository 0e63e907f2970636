# SPDX-License-Identifier: Apache-2.0
"""A study as a table and sentences, ready to print: ours beside the paper's. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.studies.column import Column
from sfumato.studies.results import Results
from sfumato.studies.study import Average, Study
from sfumato.studies.study import Row as StudyRow
from sfumato.studies.summary import average, gain, number, paired, pairs, published_gain
from sfumato.tables import Row, show_interval, show_number
from sfumato.types import Interval

NOT_RUN = "not run"
FAILED = "failed"
_UNKNOWN = "not measured"
_NOT_PRINTED = ""


@dataclass(frozen=True)
class StudyTable:
    """A study's table.

    Attributes:
        columns: the heading of each column.
        sources: whose number each cell of a column is: "ours" and, where the paper has numbers, "paper".
        rows: label and cells, column by column a cell for each source.
    """

    columns: tuple[str, ...]
    sources: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """A heading for each cell, that of the label first."""
        return ("", *(text for column in self.columns for text in (column, *self.sources[1:])))


def study_table(results: Results) -> StudyTable:
    """Return every row of a study, ours beside the paper's, then the averages.

    Args:
        results: of the study.
    """
    study = results.study
    rows = [Row(_label(results, row), _cells(results, row)) for row in study.rows_at(results.size)]
    rows += [Row(_average_label(results, line), _average_cells(results, line)) for line in study.averages]
    sources = ("ours", "paper") if any(row.published for row in study.rows) else ("ours",)
    shown = [Row(row.label, tuple(cell for place, cell in enumerate(row.cells) if place % 2 < len(sources))) for row in rows]
    return StudyTable(tuple(column.heading for column in study.columns), sources, tuple(shown))


def paper_table(study: Study) -> tuple[tuple[str, ...], list[Row]]:
    """Return what a study runs and what the paper has for it: headings, and a line for each row and average.

    Args:
        study: the study.
    """
    headings = ("", "defenses", *(column.heading for column in study.columns))
    lines: list[tuple[str, str, Sequence[float]]] = [(row.label, _defenses(row), row.published) for row in study.rows]
    lines += [(line.label, "", line.published) for line in study.averages]
    return headings, [
        Row(label, (told, *(_theirs(column, published, place) for place, column in enumerate(study.columns))))
        for label, told, published in lines
    ]


def _defenses(row: StudyRow) -> str:
    told = []
    for defense in row.defenses:
        arguments = ", ".join(f"{key} = {value}" for key, value in defense.items() if key != "name")
        told.append(f"{defense.get('name')}({arguments})" if arguments else str(defense.get("name")))
    return " + ".join(told) or "none"


def _cells(results: Results, row: StudyRow) -> tuple[str, ...]:
    failed = any(cell.row == row.label for cell in results.failed)
    nothing = _UNKNOWN if results.of(row.label) else FAILED if failed else NOT_RUN
    return tuple(
        text
        for place, column in enumerate(results.study.columns)
        for text in (_ours(column, number(results, row, column), nothing), _theirs(column, row.published, place))
    )


def _label(results: Results, row: StudyRow) -> str:
    run, total = len(results.of(row.label)), len(results.seeds)
    return row.label if run in (0, total) else f"{row.label} ({run} of {total} seeds)"


def _average_cells(results: Results, line: Average) -> tuple[str, ...]:
    nothing = _UNKNOWN if pairs(results) else NOT_RUN
    return tuple(
        text
        for place, column in enumerate(results.study.columns)
        for text in (_ours(column, average(results, column, line.of), nothing), _theirs(column, line.published, place))
    )


def _average_label(results: Results, line: Average) -> str:
    run, total = len(pairs(results)), paired(results)
    return line.label if run == total else f"{line.label} ({run} of {total} pairs)"


def _ours(column: Column, interval: Interval | None, nothing: str) -> str:
    return nothing if interval is None else column.ours(interval)


def _theirs(column: Column, published: Sequence[float], place: int) -> str:
    return column.theirs(published[place]) if published else _NOT_PRINTED


def gains(results: Results) -> list[str]:
    """Say how much the rows that add to another gain over it, ours and the paper's, a sentence for each part.

    Args:
        results: of the study.
    """
    run, total = len(pairs(results)), paired(results)
    said = []
    for part in ("train", "infer"):
        ours, theirs = gain(results, part), published_gain(results, part)
        claimed = results.study.keys.gain.get(part)
        if ours is None and claimed is None:
            continue
        known = NOT_RUN if ours is None else _percent(ours)
        same = "" if theirs is None else f"; the paper's own rows over these pairs {show_number(theirs, '.1f')} %"
        printed = "" if claimed is None else f"; the paper says {show_number(claimed, '.1f')} % over all"
        said.append(f"Gain in MSE by what rows add, {part}: {known} over {run} of {total} pairs{same}{printed}.")
    return said


def _percent(gained: Interval) -> str:
    return show_interval(gained, ".1f", " %") if gained.low < gained.high else f"{show_number(gained.value, '.1f')} %"


def facts(results: Results) -> list[str]:
    """Say what the numbers are, a sentence each: source, size, data, reading, intervals, weights.

    Args:
        results: of the study.
    """
    study, data = results.study, results.data
    attacked = any(column.source == "attack" for column in study.columns)
    said = [f"Paper: {study.keys.source}."]
    if data is not None:
        counts = ", ".join(f"{data.counts[part]:,} {part}" for part in ("private", "test") if part in data.counts)
        said.append(f'Ours: size "{results.size}", {data.name} ({counts}).')
    if results.size == "smoke" and any(row.published for row in study.rows):
        said.append("This size shows that everything runs: its numbers are not to be compared with the paper's.")
    if any(column.part for column in study.columns):
        said.append(_READINGS[results.reading])
    if attacked:
        said.append(f"Attacks that choose among their weights are scored with {_SELECTIONS[study.keys.selection]}.")
    count = len(results.seeds)
    varies = any(column.source != "half" for column in study.columns)
    seeds = (
        "One seed: intervals are 95 % bootstrap intervals over pictures and say nothing about other seeds."
        if count == 1
        else f"Means over {count} seeds, each of which trains and attacks anew, with 95 % t-intervals over the seeds."
    )
    return [*said, seeds] if varies else said


_SELECTIONS = {
    "best": "those that did best on pictures which the adversary set aside",
    "last": "those of the last epoch",
}
_READINGS = {
    "scored": (
        'Reading "scored": the adversary trains on the training pictures; train and infer are the pictures that it is scored on.'
    ),
    "trained": (
        'Reading "trained": train and infer are the pictures that the adversary trains on: all training pictures, scored on the '
        "test pictures, or 90 % of the test pictures, scored on the others."
    ),
}


def remarks(results: Results) -> list[str]:
    """Say what is missing or doubtful: rows that were not run, cells that failed, doubts about published numbers.

    Args:
        results: of the study.
    """
    study = results.study
    shown: list[StudyRow | Average] = [*study.rows_at(results.size), *study.averages]
    headings = {column.text: column.heading for column in study.columns}
    missing: dict[str, list[str]] = {}
    for cell in results.cells:
        if cell.error and cell not in results.failed:
            missing.setdefault(cell.error, []).append(cell.row)
    return [
        *(f"{', '.join(dict.fromkeys(labels))}: {error}" for error, labels in missing.items()),
        *(f"{cell.row}, seed {cell.seed}: failed: {cell.error}" for cell in results.failed),
        *(f"{line.label}, {headings[key]}: {note}" for line in shown for key, note in line.notes.items()),
        *study.keys.notes,
    ]
