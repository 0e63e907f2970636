# SPDX-License-Identifier: Apache-2.0
"""Anti-aliased shapes on a batch of pictures at once: the share of a pixel that a shape covers follows from its signed distance.

What a picture shows does not depend on the others in its batch, to the bit: its pixels come of operations that IEEE 754 rounds
exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

Number = Tensor | float
"""One number for all pictures, or (N,), float32."""

Color = Tensor | tuple[float, float, float]
"""Red, green and blue in [0, 1]: one for all pictures, (N, 3), or one for each pixel, (N, 3, h, w)."""


def planes(value: Number) -> Tensor:
    """Shape a number so that it meets pixels, (N, 1, H, W): (N, 1, 1, 1), or () where it is one for all pictures."""
    return value[:, None, None, None] if isinstance(value, Tensor) else torch.tensor(value)


class Shape(Protocol):
    """A shape around a center, in units of the canvas; y grows downwards."""

    @property
    def x(self) -> Number:
        """Where its center is."""

    @property
    def y(self) -> Number:
        """Where its center is."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the signed distance from its outline, (N, 1, H, W), below 0 inside, to places relative to its center."""

    def reach(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far from the center, across and down, the distance is below `margin`, (N,), at most."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A rectangle with round corners, or a trapezoid.

    Args:
        x: of the center.
        y: of the center.
        width: half of it, at the height of the center.
        height: half of it.
        slope: how much of half the width is gained on the way down by 1.
        lean: how far the center line moves to the right on the way down by 1.
        corner: radius.
    """

    x: Number
    y: Number
    width: Number
    height: Number
    slope: Number = 0.0
    lean: Number = 0.0
    corner: Number = 0.0

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of a rectangle whose sides follow slope and lean."""
        corner, slope, lean = planes(self.corner), planes(self.slope), planes(self.lean)
        steep = (1 + (slope.abs() + lean.abs()).square()).rsqrt()
        across = ((x - lean * y).abs() - planes(self.width) - slope * y) * steep + corner
        down = y.abs() - planes(self.height) + corner
        outside = (across.clamp(min=0).square() + down.clamp(min=0).square()).sqrt()
        return outside + torch.maximum(across, down).clamp(max=0) - corner

    def reach(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        """Return the half sizes of a rectangle that holds it with a margin."""
        down, tilt = self.height + margin, torch.as_tensor(self.slope).abs() + torch.as_tensor(self.lean).abs()
        return self.width + tilt * down + margin * (1 + tilt.square()).sqrt(), down


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    """An ellipse.

    Args:
        x: of the center.
        y: of the center.
        width: half of it.
        height: half of it.
    """

    x: Number
    y: Number
    width: Number
    height: Number

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance along the shorter axis, a little less than the true one elsewhere."""
        width, height = planes(self.width), planes(self.height)
        radius = ((x / width).square() + (y / height).square()).sqrt()
        return (radius - 1) * torch.minimum(width, height)

    def reach(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        """Return the half axes of the ellipse at that distance."""
        grown = 1 + margin / torch.minimum(torch.as_tensor(self.width), torch.as_tensor(self.height))
        return self.width * grown, self.height * grown


@dataclass(frozen=True)
class Frame:
    """Where a canvas lies in its pictures, in sides of a picture: place = center + matrix @ (x, y).

    Args:
        matrix: (N, 2, 2), float32.
        center: (N, 2), float32.
    """

    matrix: Tensor
    center: Tensor

    def box(self, shape: Shape, margin: Tensor) -> Tensor:
        """Return left, top, right and bottom in the pictures, (N, 4), of what holds a shape and a margin, (N,), in units."""
        across, down = (half.expand(len(self.center)) for half in shape.reach(margin))
        center = torch.stack([torch.as_tensor(part).expand(len(self.center)) for part in (shape.x, shape.y)], dim=1)
        middle = self.center + (self.matrix * center[:, None]).sum(dim=2)
        half = (self.matrix.abs() * torch.stack([across, down], dim=1)[:, None]).sum(dim=2)
        return torch.cat([middle - half, middle + half], dim=1)

    def places(self, size: int) -> tuple[Tensor, Tensor]:
        """Return x and y of the middle of each pixel of pictures of `size` x `size`, each (N, 1, size, size)."""
        middles = (torch.arange(size, dtype=torch.float32) + 0.5) / size
        a, b, c, d = self.matrix.flatten(1)[..., None, None, None].unbind(1)
        across = middles[None, None, None, :] - planes(self.center[:, 0])
        down = middles[None, None, :, None] - planes(self.center[:, 1])
        area = a * d - b * c
        return (d * across - b * down) / area, (a * down - c * across) / area

    def unit(self) -> Tensor:
        """Return how long a unit is, (N,), in sides of a picture."""
        a, b, c, d = self.matrix.flatten(1).unbind(1)
        return (a * d - b * c).sqrt()


@dataclass(frozen=True)
class Canvas:
    """Pictures that are being painted, or the same window of each.

    Args:
        pixels: (N, 3, H, W), float32, [0, 1]; painted over in place.
        frame: gives the units in which shapes are.
        x: of the middle of each pixel, in units, (N, 1, H, W).
        y: likewise.
        step: the side of a pixel in units, (N,).
        size: side of the whole pictures in pixels.
        corner: the first row and column of the window.

    Example:
        >>> canvas = Canvas.whole(torch.zeros(1, 3, 8, 8), Frame(torch.eye(2)[None], torch.full((1, 2), 0.5)))
        >>> canvas.paint(Panel(x=0.0, y=0.0, width=0.25, height=0.5), (1.0, 1.0, 1.0))
        >>> canvas.pixels[0, 0, 0].tolist()
        [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    """

    pixels: Tensor
    frame: Frame
    x: Tensor
    y: Tensor
    step: Tensor
    size: int
    corner: tuple[int, int] = (0, 0)

    @classmethod
    def whole(cls, pixels: Tensor, frame: Frame) -> Canvas:
        """Return a canvas of whole pictures, (N, 3, size, size)."""
        size = pixels.shape[-1]
        return cls(pixels, frame, *frame.places(size), step=frame.unit().reciprocal() / size, size=size)

    def paint(self, shape: Shape, color: Color, opacity: Number = 1.0, *, soft: float = 0.0) -> None:
        """Paint a shape over what is there.

        Args:
            shape: in units of the frame.
            color: where it is given for each pixel, it is of the pixels of `layer` for this shape.
            opacity: [0, 1].
            soft: how long the way from covered to uncovered is, in units; it is at least a pixel.
        """
        ramp = self.step.clamp(min=soft)
        rows, columns = self._window(shape, ramp / 2)
        x = self.x[..., rows, columns] - planes(shape.x)
        y = self.y[..., rows, columns] - planes(shape.y)
        covered = (0.5 - shape.distance(x, y) / planes(ramp)).clamp(0, 1) * planes(opacity)
        _blend(self.pixels[..., rows, columns], color, covered)

    def cover(self, covered: Tensor, color: Color) -> None:
        """Paint a color as far as each pixel is covered, (N, 1, H, W), [0, 1]."""
        _blend(self.pixels, color, covered)

    def layer(self, shape: Shape, color: Color) -> Canvas:
        """Return a canvas of one color that holds a shape, to be painted and then to be that shape's color for each pixel."""
        rows, columns = self._window(shape, self.step / 2)
        window = self.pixels[..., rows, columns]
        return replace(
            self,
            pixels=_channels(color, window).expand(window.shape).clone(),
            x=self.x[..., rows, columns],
            y=self.y[..., rows, columns],
            corner=(self.corner[0] + rows.start, self.corner[1] + columns.start),
        )

    def _window(self, shape: Shape, margin: Tensor) -> tuple[slice, slice]:
        """Return the rows and columns outside of which the shape covers nothing in any picture."""
        box = self.frame.box(shape, margin) * self.size
        left, top = box[:, :2].amin(dim=0).floor().int().tolist()
        right, bottom = box[:, 2:].amax(dim=0).ceil().int().tolist()
        (above, before), (height, width) = self.corner, self.pixels.shape[-2:]
        return _span(top - above, bottom - above, height), _span(left - before, right - before, width)


def _span(start: int, stop: int, length: int) -> slice:
    first = min(max(start, 0), length)
    return slice(first, max(first, min(stop, length)))


def _channels(color: Color, like: Tensor) -> Tensor:
    values = color if isinstance(color, Tensor) else like.new_tensor([color])
    return values if values.ndim == 4 else values[:, :, None, None]


def _blend(pixels: Tensor, color: Color, covered: Tensor) -> None:
    pixels += covered * (_channels(color, pixels) - pixels)
