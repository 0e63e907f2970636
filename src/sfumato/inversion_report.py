# SPDX-License-Identifier: Apache-2.0
"""What audits found of the weights, as a section of a report and as a report of its own: HTML, Markdown and JSON.

Private pictures are left out of every form unless they are asked for: they may show real people.

Example:
    >>> markdown_blocks(["portraits"], [None])
    []
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sfumato import markdown
from sfumato.inversion_record import inversion_from_json, inversion_to_json
from sfumato.inversion_sections import sections
from sfumato.inversion_tables import inversion_rows
from sfumato.inversion_types import Inversion
from sfumato.inversion_verdict import inversion_verdict
from sfumato.surface_report import SurfaceReport

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


WEIGHTS: SurfaceReport[Inversion] = SurfaceReport(
    surface="weights",
    title=TITLE,
    scored="classes",
    words="weights_words.html.j2",
    section="weights.html.j2",
    verdict=inversion_verdict,
    rows=inversion_rows,
    blocks=markdown_blocks,
    write=inversion_to_json,
    read=inversion_from_json,
    advice="make one with audit.save('audit.json')",
    shown=lambda names, found: {"weights": sections(names, found)},
)
"""How what was found of the weights is written down; private pictures are shown where they are there."""


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
    return WEIGHTS.save([kept for found in inversions if (kept := without_private(found, kept=show_private))], path)


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
    return WEIGHTS.load(path)
