# SPDX-License-Identifier: Apache-2.0
"""What to cut out of a picture before it is brought to a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sfumato.errors import ConfigError

Sides = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


class Crop(Protocol):
    """A region of a picture."""

    def sides(self, width: int, height: int) -> Sides:
        """Return the region of a picture of this width and height, in pixels; right of left and below top, or it is empty."""


@dataclass(frozen=True)
class Middle:
    """The square in the middle of a picture.

    Args:
        side: of the square, in pixels of a picture whose shorter side is `of`; of others the same share.
        of: the shorter side that `side` is told for.

    Raises:
        ConfigError: side is not from 1 to `of`.

    Example:
        >>> Middle(108, of=178).sides(178, 218)
        (35, 55, 143, 163)
    """

    side: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.side <= self.of:
            raise ConfigError(
                f"crop must be from 1 to {self.of}, pixels of the shorter side, got {self.side}; {self.of} keeps all"
            )

    def sides(self, width: int, height: int) -> Sides:
        """Return the square, in whole pixels."""
        side = max(1, round(min(width, height) * self.side / self.of))
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


@dataclass(frozen=True)
class Box:
    """A rectangle that somebody has drawn around what matters.

    Args:
        left: in pixels, as the others.
        top: likewise.
        right: likewise.
        bottom: likewise.
        grown: how much wider and higher it is made, in shares of its width and height, as far as the picture reaches.
        middle: cut this out of the result; None takes all of it.

    Example:
        >>> Box(10, 10, 30, 30, grown=0.5).sides(32, 64)
        (5.0, 5.0, 32, 35.0)
    """

    left: float
    top: float
    right: float
    bottom: float
    grown: float = 0.0
    middle: Middle | None = None

    def sides(self, width: int, height: int) -> Sides:
        """Return the part of the grown rectangle that is in the picture."""
        across, down = (self.right - self.left) * self.grown / 2, (self.bottom - self.top) * self.grown / 2
        left, top = max(0, self.left - across), max(0, self.top - down)
        right, bottom = min(width, self.right + across), min(height, self.bottom + down)
        if self.middle is None or right <= left or bottom <= top:
            return left, top, right, bottom
        inner = self.middle.sides(int(right - left), int(bottom - top))
        return left + inner[0], top + inner[1], left + inner[2], top + inner[3]
