# SPDX-License-Identifier: Apache-2.0
"""What audits found of the weights, as a section of a report and as a report of its own: HTML, Markdown and JSON.

Private pictures are left out of every form unless they are asked for: they may show real people.

Example:
    >>> markdown_blocks(["portraits"], [None])
    []
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sfumato import markdown
from sfumato.files import read_json, write_atomic
from sfumato.inversion_record import inversion_from_json, inversion_to_json
from sfumato.inversion_sections import sections
from sfumato.inversion_tables import inversion_rows
from sfumato.inversion_types import Inversion
from sfumato.inversion_verdict import inversion_verdict
from sfumato.membership_report import names_of, origin_blocks, report_ending, settings_of, some, untested_of
from sfumato.page import render

TITLE = "What the weights give away"
"""Heading of a report on the weights."""


def markdown_blocks(names: Sequence[str], inversions: Sequence[Inversion | None]) -> list[str]:
    """Return the section on the weights as blocks of Markdown, without the pictures; none where nobody asked.

    Args:
        names: a heading for each audit.
        inversions: what was found; None where nobody asked.

    Example:
        >>> markdown_blocks(["portraits"], [None])
        []
    """
    shown = sections(names, inversions)
    blocks = ["## What the weights show of the classes"] if shown else []
    for section in shown:
        blocks += [f"### {markdown.escape(section.name)}", markdown.items(section.facts)]
        blocks += [f"**{section.below}**"] if section.below else []
        blocks += [markdown.table(section.columns, section.rows)] if section.rows else ["No attack was run."]
        blocks += ["#### The priors", markdown.table(section.prior_columns, section.priors)] if section.priors else []
        if section.classes:
            title = f"#### Class by class, with the attack {markdown.escape(section.by)}"
            blocks += [title, markdown.table(section.class_columns, section.classes)]
    return blocks


def without_private(found: Inversion | None, *, kept: bool = False) -> Inversion | None:
    """Return what was found without private pictures.

    Args:
        found: the record; None where nobody asked.
        kept: leave them where they are.
    """
    if found is None or kept:
        return found
    return replace(found, gallery=tuple(replace(exhibit, private=None) for exhibit in found.gallery))


def save_inversion(inversions: Sequence[Inversion], path: str | Path, *, show_private: bool = False) -> Path:
    """Write what was found of the weights as one file, by the ending of its name.

    Args:
        inversions: one or several; the order is that of the columns.
        path: ends in .html, .md or .json; its folder is made when missing.
        show_private: write the private pictures too, where the galleries have any.

    Returns:
        The path written.

    Raises:
        ConfigError: another ending, or nothing to write.
        StorageError: the file cannot be written; a file that was there stays as it was.

    Example:
        >>> save_inversion([], "audit.pdf")
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected a report ending in .html, .md, .json, got 'audit.pdf'; choose one of these
    """
    writers: Mapping[str, Callable[[Sequence[Inversion]], str]] = {
        ".html": inversion_html,
        ".md": inversion_markdown,
        ".json": _json_text,
    }
    write = writers[report_ending(path)]
    shown = [kept for found in inversions if (kept := without_private(found, kept=show_private))]
    return write_atomic(path, write(shown).encode(errors="backslashreplace"))


def load_inversions(path: str | Path) -> list[Inversion]:
    """Read what `save_inversion` wrote as JSON.

    Args:
        path: a file with the record of one audit of weights, or of several.

    Returns:
        The audits in their order; none where the file holds the record of something else.

    Raises:
        ConfigError: the file is not JSON, or such a record is not whole.
        StorageError: the file is missing or cannot be read.
    """
    record = read_json(path, expected="the record of an audit", advice="make one with audit.save('audit.json')")
    if not isinstance(record, dict) or record.get("surface") != "weights":
        return []  # an audit of a recipe or of answers, which others read
    held = record["audits"] if isinstance(record.get("audits"), list) else [record]
    return [inversion_from_json(one) for one in held]


def _json_text(inversions: Sequence[Inversion]) -> str:
    records = [inversion_to_json(found) for found in some(inversions)]
    held = records[0] if len(records) == 1 else {"format": 1, "surface": "weights", "audits": records}
    return json.dumps(held, indent=1, ensure_ascii=False) + "\n"


def inversion_markdown(inversions: Sequence[Inversion]) -> str:
    """Write what was found of the weights as Markdown, without the pictures.

    Args:
        inversions: one or several.

    Raises:
        ConfigError: there is nothing to write.
    """
    names = names_of(some(inversions))
    blocks = [f"# {TITLE}", *map(markdown.escape, inversion_verdict(names, inversions))]
    blocks += ["## Headline numbers", markdown.table(["", *names], inversion_rows(inversions))]
    blocks += [*markdown_blocks(names, inversions), "## What was not tested", markdown.items(untested_of(inversions))]
    return "\n\n".join([*blocks, *origin_blocks(names, inversions)]) + "\n"


def inversion_html(inversions: Sequence[Inversion]) -> str:
    """Write what was found of the weights as one HTML page that needs nothing else: no network, no script.

    Args:
        inversions: one or several; private pictures are shown where they are there.

    Raises:
        ConfigError: there is nothing to write.
    """
    names = names_of(some(inversions))
    return render(
        "surface.html.j2",
        section="weights.html.j2",
        words="weights_words.html.j2",
        link="Weights",
        scored="classes",
        title=TITLE,
        names=names,
        found=inversions,
        verdict=inversion_verdict(names, inversions),
        headline=inversion_rows(inversions),
        weights=sections(names, inversions),
        untested=untested_of(inversions),
        settings=[settings_of(one.results) for one in inversions],
    )
