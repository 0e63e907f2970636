# SPDX-License-Identifier: Apache-2.0
"""Which layers of a model name people and which rebuild them, as a page, as Markdown and as JSON. Nothing is measured here.

Source: ho2024tldmi, Figure 1-II and section 4.3.
Equations: none.
Departures: as in `sfumato.fisher_drawing`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato import fisher_drawing as layers
from sfumato import markdown
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.curve import NARROW
from sfumato.files import write_atomic
from sfumato.fisher_words import READING, facts, point_name, recipe_lines, suggestion, unmeasured, verdict
from sfumato.importance_record import FreezeSearch, Importance, Rebuilding, importance_to_json
from sfumato.page import render
from sfumato.tables import Row, show_number

POINTS: Sequence[str] = (
    "Freeze up to",
    "Trainable parameters",
    "Accuracy",
    "How known",
    "Rebuilding: share frozen",
    "Naming: share kept",
)
"""The headings of `points`."""

FORMS = ("fisher.html", "fisher.json", "fisher.md")
"""Names of the files that are written."""


def save_importance(found: Importance, folder: Path) -> None:
    """Write fisher.json, fisher.md and fisher.html.

    Args:
        found: the record.
        folder: where; made when missing.

    Raises:
        StorageError: it cannot be written.
    """
    record = json.dumps(importance_to_json(found), indent=1, ensure_ascii=False) + "\n"
    for name, text in zip(FORMS, (importance_html(found), record, importance_markdown(found)), strict=True):
        write_atomic(folder / name, text.encode(errors="backslashreplace"))


def lines_of(found: Importance, one: Rebuilding) -> Mapping[str, FisherProfile]:
    """Return the profiles that are compared for one attack, by the names that they have beside each other."""
    return {"naming": found.naming, **{f"rebuilding, {distance}": profile for distance, profile in one.profiles.items()}}


def points(search: FreezeSearch) -> list[Row]:
    """Return the freeze points as a table, from nothing frozen to most.

    Args:
        search: what was found.
    """
    return [
        Row(
            point_name(one, search),
            (
                f"{one.point.trainable:,}",
                _percent(one.accuracy),
                "measured" if one.measured else "read off",
                _percent(one.rebuilding_frozen),
                _percent(one.naming_kept),
            ),
        )
        for one in search.advice.table
    ]


def origin(found: Importance) -> list[str]:
    """Say what somebody needs to make the numbers again.

    Args:
        found: the record.
    """
    return [
        f"recipe: SHA-256 {found.recipe}",
        f"data: {found.data}; SHA-256 of the training pictures {found.pictures}",
        f"seed: {found.seed}",
        f"hardware: {found.hardware}",
        *(f"version of {name}: {version}" for name, version in found.versions.items()),
    ]


def importance_markdown(found: Importance) -> str:
    """Write what was found as Markdown, without the picture.

    Args:
        found: the record.

    Returns:
        The text; whatever a record says is escaped.
    """
    blocks = [f"# {markdown.escape(_title(found))}", *map(markdown.escape, verdict(found))]
    if found.freezing is not None:
        blocks += [markdown.escape(suggestion(found.freezing))]
    blocks += ["## What was measured", markdown.items(facts(found)), "## How to read it", markdown.items(READING)]
    for one in found.rebuilding:
        shown = lines_of(found, one)
        blocks += [f"## The layers, with the attack {markdown.escape(one.attack)}"]
        blocks += [markdown.table(layers.headings(shown), layers.listing(shown))]
        blocks += [markdown.table(layers.SUMMARY, layers.summary(shown))]
    if found.freezing is not None:
        blocks += ["## Where to freeze", markdown.table(POINTS, points(found.freezing)), *_fenced(found.freezing)]
    blocks += ["## What was not measured", markdown.items(unmeasured(found))]
    return "\n\n".join([*blocks, "## How this was made", markdown.items(origin(found))]) + "\n"


def importance_html(found: Importance) -> str:
    """Write what was found as one HTML page that needs nothing else: no network, no script.

    Args:
        found: the record.

    Returns:
        The page; whatever a record says is escaped.
    """
    return render(
        "fisher.html.j2",
        title=_title(found),
        verdict=verdict(found),
        suggestion="" if found.freezing is None else suggestion(found.freezing),
        facts=facts(found),
        reading=READING,
        charts=[_chart(found, one) for one in found.rebuilding],
        summary=layers.SUMMARY,
        headings=POINTS,
        search=found.freezing,
        points=[] if found.freezing is None else points(found.freezing),
        lines="" if found.freezing is None else recipe_lines(found.freezing),
        unmeasured=unmeasured(found),
        origin=origin(found),
    )


def _chart(found: Importance, one: Rebuilding) -> dict[str, Any]:
    """Return the profiles for one attack as a drawing for wide and for narrow pages, and as tables."""
    shown = lines_of(found, one)
    return {
        "attack": one.attack,
        "wide": layers.drawing(shown),
        "narrow": layers.drawing(shown, width=NARROW),
        "headings": layers.headings(shown),
        "rows": layers.listing(shown),
        "summary": layers.summary(shown),
    }


def _title(found: Importance) -> str:
    return f"Which layers of {found.title} name people, and which rebuild them"


def _fenced(search: FreezeSearch) -> list[str]:
    lines = recipe_lines(search)
    return [f"In the recipe, before other defenses:\n\n```toml\n{lines}\n```"] if lines else []


def _percent(share: float) -> str:
    return f"{show_number(100 * share, '.1f')} %"
