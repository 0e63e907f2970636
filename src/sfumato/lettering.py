# SPDX-License-Identifier: Apache-2.0
"""Where the texts of a drawing go, in pixels: rows of a legend, labels beside points, and what appears over them."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LINE = 17
"""From one line of text to the next."""
_LETTER = 7.2  # at most the mean width of a letter in the usual fonts, at 13 pixels or at 12 in bold
_BESIDE = 12  # from a point to its label
_LEADER_FROM = 24  # a label that is further away gets a line to its point


class Box(NamedTuple):
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Return whether two rectangles share any area."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Box) -> bool:
        """Return whether another rectangle lies inside this one."""
        return self.left <= other.left and other.right <= self.right and self.top <= other.top and other.bottom <= self.bottom

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Return the place in the rectangle that is nearest to a place."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


@dataclass(frozen=True)
class Text:
    """Lines of text in a box.

    Attributes:
        lines: from the top.
        box: at least as large as the lines.
        anchor: "start", "middle" or "end": the part of a line that stands at `x`.
    """

    lines: tuple[str, ...]
    box: Box
    anchor: str = "start"

    @property
    def x(self) -> float:
        """Where the lines stand."""
        return {"start": self.box.left, "middle": (self.box.left + self.box.right) / 2, "end": self.box.right}[self.anchor]


def length(text: str) -> float:
    """Return at most how many pixels a text takes.

    Example:
        >>> length("MSE") < length("PSNR") < length("画像画像")
        True
    """
    return _LETTER * sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def wrap(text: str, pixels: float, lines: int = 4) -> tuple[str, ...]:
    """Break a text into at least one line and no more than some; what does not fit is left out and marked so.

    Example:
        >>> wrap("Bottleneck + Noise", 100)
        ('Bottleneck +', 'Noise')
    """
    letters = max(4, int(pixels * len(text) / max(length(text), 1)))
    return tuple(textwrap.wrap(text, letters, max_lines=lines, placeholder=" …")) or ("",)


def legend(names: Sequence[str], width: float) -> list[Text]:
    """Set names in rows, with room for a sample of each series before its name."""
    keys: list[Text] = []
    left, top, row, sample = 0.0, 0.0, 26.0, 46.0
    for name in names:
        (shown,) = wrap(name, width - sample - 6, lines=1)
        wide = sample + length(shown) + 6
        if left and left + wide > width:
            left, top = 0.0, top + row
        keys.append(Text((shown,), Box(left, top, left + wide, top + row)))
        left += wide + 12
    return keys


def over(place: tuple[float, float], texts: Sequence[str], width: float) -> Text:
    """Set texts in a box above a place, or below it where there is no room, inside a drawing of some width."""
    lines = [line for text in texts for line in wrap(text, min(width - 24, 410))]
    x, y = place
    wide, tall = 20 + max(map(length, lines)), 14 + LINE * len(lines)
    left = min(max(x - wide / 2, 2), width - wide - 2)
    top = y - tall - 14 if y > tall + 16 else y + 14
    return Text(tuple(lines), Box(left, top, left + wide, top + tall))


def beside(places: Sequence[tuple[float, float]], names: Sequence[str], *, frame: Box, taken: Sequence[Box]) -> list[Text]:
    """Set each name beside its place: off the other names and, where it can be, off what is drawn.

    Args:
        places: a point for each name.
        names: in the order in which they choose their place.
        frame: holds every name that fits into it.
        taken: what is drawn already.

    Returns:
        A text for each name.
    """
    placed: list[Text] = []
    for place, name in zip(places, names, strict=True):
        candidates = list(_around(place, wrap(name, 0.27 * (frame.right - frame.left) + 40)))
        inside = [text for text in candidates if frame.holds(text.box)]

        def cost(text: Text, place: tuple[float, float] = place) -> float:
            hidden = sum(text.box.meets(other.box) for other in placed)
            crossed = sum(text.box.meets(box) for box in taken)
            return 1000 * hidden + 8 * crossed + math.dist(place, text.box.nearest(*place))

        placed.append(min(inside or candidates, key=cost))
    return placed


def _around(place: tuple[float, float], lines: tuple[str, ...]) -> Iterator[Text]:
    x, y = place
    wide, tall = max(map(length, lines)), LINE * len(lines)
    for step in range(80):
        shift = (step + 1) // 2 * (7 if step % 2 else -7)  # 0, 7, -7, 14, ...
        top = y + shift - tall / 2
        yield Text(lines, Box(x + _BESIDE, top, x + _BESIDE + wide, top + tall), "start")
        yield Text(lines, Box(x - _BESIDE - wide, top, x - _BESIDE, top + tall), "end")
        if abs(shift) > tall / 2 + 8:  # nearer, it would lie on the point
            yield Text(lines, Box(x - wide / 2, top, x + wide / 2, top + tall), "middle")


def leader(place: tuple[float, float], label: Text) -> tuple[float, float] | None:
    """Return where a line from a point to its label ends; None where the label is beside the point."""
    end = label.box.nearest(*place)
    return end if math.dist(place, end) > _LEADER_FROM else None
