# SPDX-License-Identifier: Apache-2.0
"""A study as a table and sentences, ready to print: ours beside the paper's. Nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.membership_types import Bound
from sfumato.studies.column import Column
from sfumato.studies.compared import number
from sfumato.studies.inverted import judged, reservations
from sfumato.studies.results import Results
from sfumato.studies.standings import standings
from sfumato.studies.study import Average, Study
from sfumato.studies.study import Row as StudyRow
from sfumato.studies.summary import average, gain, over_settings, paired, pairs, published_gain, settings
from sfumato.tables import Row, show_interval, show_number
from sfumato.types import Interval

NOT_RUN = "not run"
FAILED = "failed"
_UNKNOWN = "not measured"
_NOT_COMPARED = "no comparison"
_NOT_PRINTED = ""


@dataclass(frozen=True)
class StudyTable:
    """A study's table.

    Attributes:
        columns: the heading of each column.
        sources: for each column, whose number each of its cells is: "ours" and, where the paper has numbers, "paper".
        rows: label and cells, column by column a cell for each source.
    """

    columns: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """A heading for each cell, that of the label first."""
        cells = zip(self.columns, self.sources, strict=True)
        return ("", *(text for column, sources in cells for text in (column, *sources[1:])))


def study_table(results: Results) -> StudyTable:
    """Return every row of a study, ours beside the paper's, then the averages.

    Args:
        results: of the study.
    """
    study = results.study
    rows = [Row(_label(results, row), _cells(results, row)) for row in study.rows_at(results.size)]
    rows += [Row(_average_label(results, line), _average_cells(results, line)) for line in study.averages]
    printed = len(study.keys.columns) if _has_numbers(study) else 0
    sources = tuple(("ours", "paper") if place < printed else ("ours",) for place in range(len(study.columns)))
    shown = [
        Row(row.label, tuple(cell for place, cell in enumerate(row.cells) if place % 2 < len(sources[place // 2])))
        for row in rows
    ]
    return StudyTable(tuple(column.heading for column in study.columns), sources, tuple(shown))


def paper_table(study: Study) -> tuple[tuple[str, ...], list[Row]]:
    """Return what a study runs and what the paper has for it: headings, and a line for each row and average.

    Args:
        study: the study.
    """
    count = len(study.keys.columns)
    headings = ("", "defenses", *(column.heading for column in study.columns[:count]))
    lines = [Row(row.label, (_defenses(row), *_published(study, row)[:count])) for row in study.rows]
    return headings, lines + [Row(line.label, ("", *_published(study, line)[:count])) for line in study.averages]


def _has_numbers(study: Study) -> bool:
    """Return whether the paper has any."""
    return any(row.published for row in study.rows) or any(line.published for line in study.averages)


def _defenses(row: StudyRow) -> str:
    told = []
    for defense in row.defenses:
        arguments = ", ".join(f"{key} = {value}" for key, value in defense.items() if key != "name")
        told.append(f"{defense.get('name')}({arguments})" if arguments else str(defense.get("name")))
    return " + ".join(told) or "none"


def _cells(results: Results, row: StudyRow) -> tuple[str, ...]:
    failed = any(cell.row == row.label for cell in results.failed)
    run = bool(results.of(row.label))
    nothing = FAILED if failed and not run else NOT_RUN
    theirs = _published(results.study, row)
    return tuple(
        text
        for column, published in zip(results.study.columns, theirs, strict=True)
        for text in (_shown(results, row, column, _nothing(column, row) if run else nothing), published)
    )


def _shown(results: Results, row: StudyRow, column: Column, nothing: str) -> str:
    """Write what a row has for a column; a run beside itself shows nothing."""
    if column.beside == "matched" and row.series == results.study.keys.matched:
        return ""
    return _ours(column, number(results, row, column), nothing, row.against)


def _nothing(column: Column, row: StudyRow) -> str:
    """Say why a row that was run has no number."""
    if column.beside in ("ratio", "matched"):
        return _NOT_COMPARED if row.against or column.beside == "matched" else ""
    return _UNKNOWN


def _label(results: Results, row: StudyRow) -> str:
    run, total = len(results.of(row.label)), len(results.seeds)
    return row.label if run in (0, total) else f"{row.label} ({run} of {total} seeds)"


def _average_cells(results: Results, line: Average) -> tuple[str, ...]:
    of_pairs = line.of in ("without", "with")
    nothing = _UNKNOWN if (pairs(results) if of_pairs else settings(results, line.of)[0]) else NOT_RUN
    mean = average if of_pairs else over_settings
    theirs = _published(results.study, line)
    return tuple(
        text
        for column, published in zip(results.study.columns, theirs, strict=True)
        for text in (_ours(column, mean(results, column, line.of), nothing, _against(results.study, line)), published)
    )


def _average_label(results: Results, line: Average) -> str:
    if line.of in ("without", "with"):
        run, total, of = len(pairs(results)), paired(results), "pairs"
    else:
        run, total, of = *map(len, settings(results, line.of)), "settings"
    return line.label if run == total else f"{line.label} ({run} of {total} {of})"


def _against(study: Study, line: StudyRow | Average) -> str:
    """Return the label of the row that a line's drops are from, or ""."""
    rows = [line] if isinstance(line, StudyRow) else [row for row in study.rows if row.series == line.of]
    return rows[0].against if rows else ""


def _ours(column: Column, interval: Interval | None, nothing: str, against: str) -> str:
    return nothing if interval is None else column.ours(interval, against=against)


def _published(study: Study, line: StudyRow | Average) -> list[str]:
    """Write the published numbers of a line, a text for each column."""
    columns, against = study.columns[: len(line.published)], _against(study, line)
    known = [
        _NOT_PRINTED if value == "-" else column.theirs(value, against=against)
        for column, value in zip(columns, line.published, strict=True)
    ]
    return known + [_NOT_PRINTED] * (len(study.columns) - len(known))


def gains(results: Results) -> list[str]:
    """Say how much rows gain over those that they add to, ours and the paper's, and over runs that are as accurate.

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
    return said + standings(results)


def _percent(gained: Interval) -> str:
    return show_interval(gained, ".1f", " %") if gained.low < gained.high else f"{show_number(gained.value, '.1f')} %"


def facts(results: Results) -> list[str]:
    """Say what the numbers are, a sentence each: source, size, data, reading, intervals, weights.

    Args:
        results: of the study.
    """
    study = results.study
    sources = {column.source for column in study.columns}
    said = [f"Paper: {study.keys.source}."]
    said += [f'Ours: size "{results.size}", {pictures}.' for pictures in _pictures(results)]
    if results.size == "smoke" and _has_numbers(study):
        said.append("This size shows that everything runs: its numbers are not to be compared with the paper's.")
    beside = {column.beside for column in study.columns}
    said += [told for kind, told in _BESIDE.items() if kind in beside]
    if any(column.part for column in study.columns):
        said.append(_READINGS[results.reading])
    if "inference" in sources:
        said.append(_INFERENCE)
    said += judged(results)
    if "attack" in sources:
        said.append(f"Attacks that choose among their weights are scored with {_SELECTIONS[study.keys.selection]}.")
    count = len(results.seeds)
    varies = sources - {"half", "compression"}
    seeds = (
        f"One seed: intervals are 95 % intervals {_OVER['inversion' in sources]} and say nothing about other seeds."
        if count == 1
        else f"Means over {count} seeds, each of which trains and attacks anew, with 95 % t-intervals over the seeds."
    )
    return [*said, seeds] if varies else said


def _pictures(results: Results) -> list[str]:
    """Say which pictures there are, and of which rows where these differ; those that a seed draws anew are the same here."""
    found: dict[str, list[str]] = {}
    for data, rows in results.pictures:
        counts = ", ".join(f"{data.counts[part]:,} {name}" for part, name in _PARTS.items() if data.counts.get(part))
        found.setdefault(f"{data.name} ({counts})", []).extend(rows)
    return [f"{told}; {', '.join(dict.fromkeys(rows))}" if len(found) > 1 else told for told, rows in found.items()]


_BESIDE = {
    "drop": (
        "A drop is how far a row's number lies below that of the row it stands against, with the same seed: in points where the "
        "number is in percent, else in percent of that row's. A row that stands against none shows the number. With one seed a "
        "drop has no interval."
    ),
    "ratio": (
        "A ratio of drops says how many points of attack accuracy a lost point of accuracy buys, beside the row that a row "
        "stands against: the higher, the better the bargain. Where no accuracy is lost there is none."
    ),
    "matched": (
        "A run that is as accurate: the row without the defense at an earlier checkpoint of its training, between two "
        "checkpoints by a straight line. What lies below it is not due to lost accuracy; 0 or less says that stopping earlier "
        "does as much. With one seed it has no interval, and how much of it is chance is not known. A row that is more accurate "
        "than every checkpoint is compared with the best of them."
    ),
    "times": (
        "Training times are wall times on this machine, over that of the row that a row stands against, without pretraining."
    ),
}
_INFERENCE = (
    "Attack accuracy is the mean of the shares of members and of non-members that are told right, at a threshold that other "
    "examples chose; 50 % is a guess. The attack gap takes for a member what the target names right: it trains nothing, and any "
    "other should do better."
)
_PARTS = {
    "private": "private",
    "nonmembers": "non-members",
    "reference": "reference",
    "test": "test",
    "pretrain": "of pretraining",
    "public": "public",
}
_OVER = {False: "over pictures", True: "over pictures, those of attacks on weights over classes,"}
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
        *_baseless(results),
        *_refused(results),
        *reservations(results),
        *(f"{line.label}, {headings[key]}: {note}" for line in shown for key, note in line.notes.items()),
        *study.keys.notes,
    ]


def _refused(results: Results) -> list[str]:
    """Say why a number of an attack on predictions is not quoted."""
    said = [
        f"{column.heading}: {bound.missing}"
        for column in results.study.columns
        if column.source == "inference"
        for cell in results.cells
        for result in (cell.membership.results if cell.membership else ())
        if result.name == column.name and isinstance(bound := getattr(result, column.key, None), Bound) and bound.missing
    ]
    return list(dict.fromkeys(said))


def _baseless(results: Results) -> list[str]:
    """Say of each row that has no numbers whose drops need it."""
    lost: dict[str, list[str]] = {}
    for row in results.study.rows_at(results.size) if any(column.whole for column in results.study.columns) else ():
        if row.against and results.of(row.label) and not results.of(row.against):
            lost.setdefault(row.against, []).append(row.label)
    return [f"'{first}' has no numbers, so these have no drops: {', '.join(labels)}" for first, labels in lost.items()]
