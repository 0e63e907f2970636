# SPDX-License-Identifier: Apache-2.0
"""What attacks made of classes, laid out to look at: a class a row, with what target and evaluator make of each picture.

Example:
    >>> import torch
    >>> from sfumato.inversion_types import InversionExhibit, Rebuilt
    >>> made = Rebuilt("gmi", 0, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), (0.97,), (False,))
    >>> (row,) = gallery_rows([InversionExhibit("anna", None, (made,))], trusted=True)
    >>> row.strips[0].shots[0].verdict, row.strips[0].shots[0].confidence
    ('not recognized', 'target: 97 %')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sfumato.inversion_types import InversionExhibit, Rebuilt
from sfumato.png import png
from sfumato.tables import show_number
from sfumato.types import Pixels

_SIDE = 96  # pixels of the page that a picture is wide, about: faces of 32 pixels can be told from each other at three times that
Verdict = Literal["recognized", "not recognized", "not judged", ""]


@dataclass(frozen=True)
class Shot:
    """One picture with what is said of it.

    Attributes:
        picture: a PNG in base64.
        alt: what it is, for who cannot see it.
        verdict: whether the evaluator takes it for the class: "recognized", "not recognized", or "not judged" where the evaluator
            is below its gate; "" for a private picture. "Right" would read as praise, and here it is what leaks.
        confidence: of the target in the class, such as "target: 97 %"; "" for a private picture.
    """

    picture: str
    alt: str
    verdict: Verdict = ""
    confidence: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures of one class by one attack, or the private ones.

    Attributes:
        heading: the attack's name, or "private".
        note: what to keep in mind, or "".
        shots: the pictures.
    """

    heading: str
    note: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class GalleryRow:
    """One class.

    Attributes:
        name: of the class.
        tally: how many of the pictures that are shown the evaluator takes for the class, a clause.
        side: how wide a picture is to be shown, in pixels of the page.
        strips: the private pictures where they are shown, then those of each attack.
    """

    name: str
    tally: str
    side: int
    strips: tuple[Strip, ...]


def gallery_rows(gallery: Sequence[InversionExhibit], *, trusted: bool, order: Sequence[str] = ()) -> list[GalleryRow]:
    """Lay out classes.

    Args:
        gallery: the classes, in their order.
        trusted: whether the evaluator may judge; where not, its verdicts are not shown.
        order: of the attacks by name, as their table has it; those that it does not name come last, in their own order.
    """
    places = {name: place for place, name in reversed(list(enumerate(order)))}  # of several seeds the first counts

    def arranged(exhibit: InversionExhibit) -> InversionExhibit:
        return replace(exhibit, rebuilt=tuple(sorted(exhibit.rebuilt, key=lambda one: places.get(one.attack, len(order)))))

    return [_row(arranged(exhibit), trusted) for exhibit in gallery]


def withheld(gallery: Sequence[InversionExhibit]) -> str:
    """Say why no private picture is shown, or "" where one is, or where there is nothing to show.

    Args:
        gallery: the classes.

    Example:
        >>> withheld([InversionExhibit("anna", None, ())])
        'Private pictures are not shown, since they may show real people; audit and report with --show-private to see them.'
    """
    if not gallery or any(exhibit.private is not None for exhibit in gallery):
        return ""
    return "Private pictures are not shown, since they may show real people; audit and report with --show-private to see them."


def _row(exhibit: InversionExhibit, trusted: bool) -> GalleryRow:
    strips = [_strip(exhibit.name, one, trusted) for one in exhibit.rebuilt]
    pictures = [one.pixels for one in exhibit.rebuilt]
    if exhibit.private is not None:
        strips.insert(0, _private(exhibit.name, exhibit.private))
        pictures.append(exhibit.private)
    right, total = (sum(map(count, exhibit.rebuilt)) for count in (lambda one: sum(one.right), lambda one: len(one.right)))
    tally = f"{right} of the {total} pictures shown recognized" if trusted else "not judged"
    return GalleryRow(exhibit.name, tally, _side(pictures), tuple(strips))


def _side(pictures: Sequence[Pixels]) -> int:
    """Return how wide pictures are shown: a whole multiple of their own width, so that every pixel is as wide as the next."""
    width = max((one.shape[-1] for one in pictures), default=_SIDE)
    return min(width * max(1, round(_SIDE / width)), 2 * _SIDE)


def _private(name: str, pixels: Pixels) -> Strip:
    alts = (f"Private picture {number} of {name}" for number in range(1, len(pixels) + 1))
    return Strip("private", "", tuple(Shot(png(one), alt) for one, alt in zip(pixels.cpu(), alts, strict=True)))


def _strip(name: str, made: Rebuilt, trusted: bool) -> Strip:
    note = "" if made.reached else "not reached; what the prior shows"
    return Strip(made.attack, note, tuple(_shot(name, made, place, trusted) for place in range(len(made.pixels))))


def _shot(name: str, made: Rebuilt, place: int, trusted: bool) -> Shot:
    verdict: Verdict = "not judged" if not trusted else "recognized" if made.right[place] else "not recognized"
    alt = f"Reconstruction {place + 1} of {name}, by {made.attack}"
    return Shot(png(made.pixels[place].cpu()), alt, verdict, f"target: {show_number(100 * made.confidence[place], '.0f')} %")
