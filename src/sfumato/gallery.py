# SPDX-License-Identifier: Apache-2.0
"""Which pictures of audits stand beside which: what was sent, and what each adversary made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.png import png
from sfumato.tables import describe_attack, show_interval
from sfumato.types import AttackResult, Audit, Exhibit, Part


@dataclass(frozen=True)
class Panel:
    """Pictures of one exhibit, to show.

    Attributes:
        heading: a word or two to stand under each picture.
        note: which attack made them, and how well; empty for what was sent.
        alt: what a picture is, to follow its number.
        pictures: each a PNG in base64.
    """

    heading: str
    note: str
    alt: str
    pictures: tuple[str, ...]


def galleries(names: Sequence[str], audits: Sequence[Audit]) -> list[list[Panel]]:
    """Put the strongest attack of each audit beside what was sent.

    Args:
        names: a heading for each audit, as `columns` gives them.
        audits: one or several; only what they hold of inference time is shown.

    Returns:
        The panels of one gallery, what was sent first; audits of different pictures get a gallery each, and audits without
        pictures none.

    Example:
        >>> galleries([], [])
        []
    """
    shown = []
    for name, audit in zip(["rebuilt"] if len(audits) == 1 else names, audits, strict=True):
        sent, seen = _exhibits(audit, "inference")
        shown.append([_panel(name, audit, exhibit) for exhibit in (*sent[:1], *seen[:1])])
    if len({panels[0].pictures for panels in shown if panels and not panels[0].note}) > 1:
        return [panels for panels in shown if panels]
    together = list(dict.fromkeys(panel for panels in shown for panel in panels))
    return [together] if together else []


def sheets(names: Sequence[str], audits: Sequence[Audit]) -> list[tuple[str, list[Panel]]]:
    """Lay out, part by part, what the galleries leave out.

    Args:
        names: a heading for each audit, as `columns` gives them.
        audits: one or several.

    Returns:
        A heading and the panels below it, for each part that has any reconstruction to show.

    Example:
        >>> sheets([], [])
        []
    """
    laid = []
    parts: Sequence[tuple[Part, str, int]] = (("inference", "Pictures of inference time", 1), ("train", "Training pictures", 0))
    for part, heading, skip in parts:
        pairs = [(name, audit, *_exhibits(audit, part)) for name, audit in zip(names, audits, strict=True)]
        panels = [_panel(name, audit, exhibit) for name, audit, sent, seen in pairs for exhibit in (*sent, *seen[skip:])]
        if any(panel.note for panel in panels):
            laid.append((heading, list(dict.fromkeys(panels))))  # audits of the same pictures sent the same
    return laid


def _exhibits(audit: Audit, part: Part) -> tuple[list[Exhibit], list[Exhibit]]:
    """Return what was sent and, strongest attack first, what the adversary made of it."""

    def error(made: Exhibit) -> float:
        result = _result(audit, made)
        return result.mse.value if result else math.inf

    shown = [exhibit for exhibit in audit.exhibits if exhibit.part == part and len(exhibit.pixels)]
    made = [exhibit for exhibit in shown if exhibit.attack]
    return [exhibit for exhibit in shown if not exhibit.attack], sorted(made, key=error)


def _result(audit: Audit, made: Exhibit) -> AttackResult | None:
    key = (made.part, made.attack, made.selection, made.seed)
    return next((result for result in audit.attacks if (result.part, result.name, result.selection, result.seed) == key), None)


def _panel(name: str, audit: Audit, exhibit: Exhibit) -> Panel:
    pictures = tuple(png(picture) for picture in exhibit.pixels.cpu())
    if not exhibit.attack:
        sent = exhibit.part == "inference"
        return Panel("sent", "", "as the user sent it" if sent else "as the adversary trained on it", pictures)
    result = _result(audit, exhibit)
    note = describe_attack(exhibit) + (f": MSE {show_interval(result.mse, '#.3g')}" if result else "")
    return Panel(name, note, f"as the adversary rebuilds it ({name}), with the attack {describe_attack(exhibit)}", pictures)
