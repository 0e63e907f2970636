# SPDX-License-Identifier: Apache-2.0
"""What audits found of the predictions, as a section of a report and as a report of its own: HTML, Markdown and JSON.

A model that only exists as a table of answers has no picture, no cut and no cost to tell of: its report is this section.

Example:
    >>> from sfumato.types import Interval
    >>> accuracy = Interval(0.99, 0.98, 1.0), Interval(0.88, 0.85, 0.9)
    >>> found = Membership((), 500, 500, 0, accuracy, 0, "", (), (0,), {}, "cpu", "a table of logits")
    >>> membership_markdown([found]).splitlines()[0]
    '# What the predictions give away'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sfumato import markdown
from sfumato.curve import NARROW, WIDE
from sfumato.errors import ConfigError
from sfumato.files import read_json, write_atomic
from sfumato.inversion_types import Inversion, InversionResult
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
from sfumato.membership_types import Membership, MembershipResult
from sfumato.membership_verdict import membership_verdict
from sfumato.page import render
from sfumato.roc_drawing import Line, draw_roc, lines_of, strongest_of
from sfumato.tables import Row, show_share
from sfumato.types import AttackResult

TITLE = "What the predictions give away"
"""Heading of a report on the predictions."""
_Found = TypeVar("_Found", Membership, Inversion)
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


def settings_of(results: Iterable[AttackResult | MembershipResult | InversionResult]) -> list[tuple[str, str]]:
    """Return the hyper-parameters of attacks as (name, text), each different pair once."""
    pairs = ((result.name, ", ".join(f"{key} = {value}" for key, value in result.settings.items())) for result in results)
    return list(dict.fromkeys(pairs))


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
    writers: Mapping[str, Callable[[Sequence[Membership]], str]] = {
        ".html": membership_html,
        ".md": membership_markdown,
        ".json": _json_text,
    }
    return write_atomic(path, writers[report_ending(path)](memberships).encode(errors="backslashreplace"))


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
    record = read_json(path, expected="the record of an audit", advice="make one with: sfumato audit --logits ... --json")
    if not isinstance(record, dict) or record.get("surface") != "predictions":
        return []  # an audit of a recipe, which `report.load` reads
    held = record["audits"] if isinstance(record.get("audits"), list) else [record]
    return [membership_from_json(one) for one in held]


def report_ending(path: str | Path) -> str:
    """Return the ending of a report's name, in small letters.

    Raises:
        ConfigError: it is none of .html, .md and .json.

    Example:
        >>> report_ending("audit.HTML")
        '.html'
    """
    ending, known = Path(path).suffix.lower(), (".html", ".md", ".json")
    if ending not in known:
        raise ConfigError(f"expected a report ending in {', '.join(known)}, got '{path}'; choose one of these")
    return ending


def _json_text(memberships: Sequence[Membership]) -> str:
    records = [membership_to_json(found) for found in some(memberships)]
    held = records[0] if len(records) == 1 else {"format": 1, "surface": "predictions", "audits": records}
    return json.dumps(held, indent=1, ensure_ascii=False) + "\n"


def membership_markdown(memberships: Sequence[Membership]) -> str:
    """Write what was found of the predictions as Markdown.

    Args:
        memberships: one or several.

    Raises:
        ConfigError: there is nothing to write.
    """
    names = names_of(some(memberships))
    blocks = [f"# {TITLE}", *map(markdown.escape, membership_verdict(names, memberships))]
    blocks += ["## Headline numbers", markdown.table(["", *names], membership_rows(memberships))]
    blocks += [*markdown_blocks(names, memberships), "## What was not tested", markdown.items(untested_of(memberships))]
    return "\n\n".join([*blocks, *origin_blocks(names, memberships)]) + "\n"


def membership_html(memberships: Sequence[Membership]) -> str:
    """Write what was found of the predictions as one HTML page that needs nothing else: no network, no script.

    Args:
        memberships: one or several.

    Raises:
        ConfigError: there is nothing to write.
    """
    names = names_of(some(memberships))
    return render(
        "surface.html.j2",
        section="predictions.html.j2",
        words="words.html.j2",
        link="Predictions",
        scored="examples",
        title=TITLE,
        names=names,
        found=memberships,
        verdict=membership_verdict(names, memberships),
        headline=membership_rows(memberships),
        sections=sections(names, memberships),
        overview=overview(names, memberships),
        untested=untested_of(memberships),
        settings=[settings_of(one.results) for one in memberships],
    )


def names_of(found: Sequence[Membership | Inversion]) -> list[str]:
    """Return a heading for each: its title, numbered where two agree."""
    titles = [one.title or "answers" for one in found]
    return [f"{title} ({number})" if titles.count(title) > 1 else title for number, title in enumerate(titles, 1)]


def untested_of(found: Sequence[Membership | Inversion]) -> list[str]:
    """Return what none of several audits says anything about, each sentence once."""
    return list(dict.fromkeys(sentence for one in found for sentence in one.untested))


def origin_blocks(names: Sequence[str], found: Sequence[Membership | Inversion]) -> list[str]:
    """Return what somebody needs to make the numbers again, as blocks of Markdown."""
    blocks = ["## How this was made"]
    for name, one in zip(names, found, strict=True):
        facts = [
            f"seeds: {', '.join(map(str, one.seeds))}; hardware: {one.hardware}",
            *(f"version of {library}: {version}" for library, version in one.versions.items()),
            *(f"settings of {attack}: {text or 'none'}" for attack, text in settings_of(one.results)),
        ]
        blocks += [f"### {markdown.escape(name)}", markdown.items(facts)]
    return blocks


def some(found: Sequence[_Found]) -> Sequence[_Found]:
    """Return several audits.

    Raises:
        ConfigError: there is none.
    """
    if not found:
        raise ConfigError("expected one audit or several to report, got none; run an audit first")
    return found
