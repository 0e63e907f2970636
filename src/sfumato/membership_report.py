# SPDX-License-Identifier: Apache-2.0
"""What audits found of the predictions, as a section of a report and as a report of its own: HTML, Markdown and JSON.

A model that only exists as a table of answers has no picture, no cut and no cost to tell of: its report is this section.

Example:
    >>> from sfumato.types import Interval
    >>> accuracy = Interval(0.99, 0.98, 1.0), Interval(0.88, 0.85, 0.9)
    >>> found = Membership((), 500, 500, 0, accuracy, 0, "", (), (0,), {}, "cpu", "a table of logits")
    >>> PREDICTIONS.to_markdown([found]).splitlines()[0]
    '# What the predictions give away'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfumato import markdown
from sfumato.curve import NARROW, WIDE
from sfumato.membership_record import membership_from_json, membership_to_json
from sfumato.membership_tables import (
    EPSILON,
    SLICE_COLUMNS,
    in_turn,
    membership_columns,
    membership_rows,
    membership_table,
    named,
    slice_table,
)
from sfumato.membership_types import Membership
from sfumato.membership_verdict import membership_verdict
from sfumato.roc_drawing import Line, draw_roc, lines_of, strongest_of
from sfumato.surface_report import SurfaceReport
from sfumato.tables import Row, show_share

TITLE = "What the predictions give away"
"""Heading of a report on the predictions."""
_TURNS = "Attacks over models in turn stand below those on the target: they speak of models like it, counted together."


@dataclass(frozen=True)
class Section:
    """What there is to show of one audit.

    Attributes:
        name: of the audit.
        facts: about the examples, a sentence each.
        drawings: the ROC curves, "wide" and "narrow"; empty texts where there is none.
        drawn: what is in them, a sentence.
        columns: headings of the attacks' table.
        rows: the attacks.
        turns: what the attacks over models in turn are, a sentence, or "" where the target is not told from them.
        refused: why numbers are not quoted, a sentence each.
        sliced: the attack whose slices are shown, or "".
        slice_columns: headings of its table.
        slices: its rows.
    """

    name: str
    facts: tuple[str, ...]
    drawings: Mapping[str, str]
    drawn: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    turns: str
    refused: tuple[str, ...]
    sliced: str
    slice_columns: tuple[str, ...]
    slices: tuple[Row, ...]


def sections(names: Sequence[str], memberships: Sequence[Membership | None]) -> list[Section]:
    """Lay out what there is to show, one section for each audit that asked about the predictions.

    Args:
        names: a heading for each audit.
        memberships: what was found; None where nobody asked.

    Example:
        >>> sections(["digits"], [None])
        []
    """
    return [_section(name, found) for name, found in zip(names, memberships, strict=True) if found is not None]


def _section(name: str, found: Membership) -> Section:
    lines = lines_of(found)
    strongest = found.strongest()
    missing = (bound.missing for result in found.results for bound in (result.tpr_at_1, result.tpr_at_01))
    return Section(
        name=name,
        facts=tuple(facts_of(found)),
        drawings=drawings(lines),
        drawn=_drawn(found, lines),
        columns=membership_columns(found),
        rows=tuple(membership_table(found)),
        turns=_TURNS if in_turn(found) else "",
        refused=tuple(dict.fromkeys(f"{reason[:1].upper()}{reason[1:]}." for reason in missing if reason)),
        sliced=named(strongest) if strongest and strongest.slices else "",
        slice_columns=SLICE_COLUMNS,
        slices=tuple(slice_table(strongest.slices)) if strongest else (),
    )


def facts_of(found: Membership) -> list[str]:
    """Say which examples were asked about, and what the target makes of them."""
    inside, outside = (show_share(share) for share in found.accuracy)
    repeats = "example repeats" if found.duplicates == 1 else "examples repeat"
    repeated = f"{found.duplicates:,} {repeats} another of the same side, and each counts as often as it occurs."
    canaries = f", canaries ({found.canaries})" if found.canaries else ""
    trained = f"{found.references:,} reference models were" if found.references else "No reference model was"
    return [
        f"{found.members:,} members and {found.nonmembers:,} non-members{canaries}.",
        f"The target is right on {inside} of the members and on {outside} of the non-members.",
        f"{trained} trained.",
        *([repeated] if found.duplicates else []),
    ]


def _drawn(found: Membership, lines: Sequence[Line]) -> str:
    attacks = len({(result.name, result.targets) for result in found.results})
    further = attacks - sum(line.attacks for line in lines)
    return f"Of the weakest attacks, {further} are in the table only." if further else ""


def drawings(lines: Sequence[Line]) -> dict[str, str]:
    """Draw ROC curves for wide and for narrow pages."""
    return {name: draw_roc(lines, width=width) for name, width in (("wide", WIDE), ("narrow", NARROW))}


def overview(names: Sequence[str], memberships: Sequence[Membership | None]) -> dict[str, str]:
    """Draw the strongest attack of each of several audits together; empty texts where there is only one."""
    lines = strongest_of(names, memberships)
    return drawings(lines if len(lines) > 1 else [])


def markdown_blocks(names: Sequence[str], memberships: Sequence[Membership | None]) -> list[str]:
    """Return the section on the predictions as blocks of Markdown; none where nobody asked.

    Args:
        names: a heading for each audit.
        memberships: what was found; None where nobody asked.

    Example:
        >>> markdown_blocks(["digits"], [None])
        []
    """
    shown = sections(names, memberships)
    blocks = ["## Who was trained on"] if shown else []
    for section in shown:
        blocks += [f"### {markdown.escape(section.name)}", markdown.items(section.facts)]
        blocks += [markdown.table(section.columns, section.rows), EPSILON] if section.rows else ["No attack was run."]
        blocks += [section.turns] if section.turns else []
        blocks += map(markdown.escape, section.refused)
        if section.slices:
            title = f"#### By slice, with the attack {markdown.escape(section.sliced)}"
            blocks += [title, markdown.table(section.slice_columns, section.slices)]
    return blocks


PREDICTIONS: SurfaceReport[Membership] = SurfaceReport(
    surface="predictions",
    title=TITLE,
    scored="examples",
    words="words.html.j2",
    section="predictions.html.j2",
    verdict=membership_verdict,
    rows=membership_rows,
    blocks=markdown_blocks,
    write=membership_to_json,
    read=membership_from_json,
    advice="make one with: sfumato audit --logits ... --json",
    shown=lambda names, found: {"sections": sections(names, found), "overview": overview(names, found)},
)
"""How what was found of the predictions is written down."""


def save_membership(memberships: Sequence[Membership], path: str | Path) -> Path:
    """Write what was found of the predictions as one file, by the ending of its name.

    Args:
        memberships: one or several; the order is that of the columns.
        path: ends in .html, .md or .json; its folder is made when missing.

    Returns:
        The path written.

    Raises:
        ConfigError: another ending, or nothing to write.
        StorageError: the file cannot be written; a file that was there stays as it was.

    Example:
        >>> save_membership([], "audit.pdf")
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected a report ending in .html, .md, .json, got 'audit.pdf'; choose one of these
    """
    return PREDICTIONS.save(memberships, path)


def load_memberships(path: str | Path) -> list[Membership]:
    """Read what `save_membership` wrote as JSON.

    Args:
        path: a file with the record of one audit of predictions, or of several.

    Returns:
        The audits in their order; none where the file holds the record of something else.

    Raises:
        ConfigError: the file is not JSON, or such a record is not whole.
        StorageError: the file is missing or cannot be read.
    """
    return PREDICTIONS.load(path)
