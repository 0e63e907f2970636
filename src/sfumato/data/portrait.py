# SPDX-License-Identifier: Apache-2.0
"""A drawn face: which factors make an identity, what changes from picture to picture, and how both become pixels.

The factors are known exactly, so that what an attack recovers of an identity can be measured, which no photograph allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.data.canvas import Canvas, Ellipse, Frame, Number, Panel, planes
from sfumato.types import Pixels

FACTORS = (
    "skin", "face_width", "face_size", "eye_gap", "eye_size", "eye_color", "brow_angle", "brow_height", "nose", "mouth_width",
    "mouth_fullness", "hair_color", "hair_length", "hairline",
)  # fmt: skip
"""What makes an identity: numbers in [0, 1], in this order."""

NUISANCES = 29
"""How many numbers in [0, 1] make the rest of a picture: pose, expression, light, clothes and background."""

NOISE = 0.035
"""The noise of a pixel is uniform up to this far either way."""

_SKIN = torch.tensor([[0.99, 0.86, 0.77], [0.90, 0.69, 0.53], [0.66, 0.45, 0.31], [0.36, 0.23, 0.16]])
_HAIR = torch.tensor([[0.07, 0.06, 0.07], [0.36, 0.20, 0.10], [0.72, 0.30, 0.12], [0.93, 0.78, 0.42], [0.86, 0.86, 0.88]])
_IRIS = torch.tensor([[0.16, 0.08, 0.04], [0.20, 0.42, 0.16], [0.18, 0.45, 0.85]])
_DARK = (0.16, 0.05, 0.06)
_WHITE = (0.97, 0.97, 0.95)
_LIPS = torch.tensor([0.34, -0.04, 0.0])
_TILT = 0.17632698  # the tangent of 10 degrees


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """A stroke of a brush along a parabola, as brows and mouths are.

    Args:
        x: of the center.
        y: of the center.
        width: half of it.
        height: half of it, in the middle; at an end it is 0.4 of that.
        tilt: how far it goes down on the way right by 1.
        bend: how far its ends are below its middle, over the square of half the width.
    """

    x: Number
    y: Number
    width: Number
    height: Number
    tilt: Number = 0.0
    bend: Number = 0.0

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance up or down, or beyond an end, which is a little more than the true one."""
        along = y - planes(self.tilt) * x - planes(self.bend) * x.square()
        across = x / planes(self.width)
        thick = planes(self.height) * (1 - 0.6 * across.square())
        return torch.maximum(along.abs() - thick, x.abs() - planes(self.width))

    def reach(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        """Return the half sizes of a rectangle that holds it with a margin."""
        across = torch.as_tensor(self.width) + margin
        tilt, bend = torch.as_tensor(self.tilt).abs(), torch.as_tensor(self.bend).abs()
        return across, self.height + margin + tilt * across + bend * across.square()


def draw_portraits(factors: Tensor, nuisances: Tensor, noise: Tensor) -> Pixels:
    """Draw faces.

    Args:
        factors: of the identity of each picture, (N, len(FACTORS)), float32, [0, 1].
        nuisances: (N, NUISANCES), float32, [0, 1]; 0.5 is the middle of each: an upright, calm face in even light.
        noise: of the pixels, (N, 3, S, S), float32, [0, 1]; 0.5 is none.

    Returns:
        (N, 3, S, S), uint8; the same for a face whichever others are drawn with it.

    Example:
        >>> middle = torch.full((1, len(FACTORS)), 0.5), torch.full((1, NUISANCES), 0.5), torch.full((1, 3, 16, 16), 0.5)
        >>> draw_portraits(*middle).shape
        torch.Size([1, 3, 16, 16])
    """
    own = dict(zip(FACTORS, factors.unbind(1), strict=True))
    pose, mimic, light, colors = (2 * nuisances - 1).split([5, 5, 7, 12], dim=1)
    canvas = Canvas.whole(torch.empty_like(noise), _frame(own["face_size"], pose))
    _background(canvas, colors[:, 3:9] * 0.3 + 0.5, blob=colors[:, 9:12])
    skin, hair = _between(_SKIN, own["skin"]), _between(_HAIR, own["hair_color"])
    width = 0.195 + 0.085 * own["face_width"]
    _behind(canvas, own, width, skin, hair, clothes=(colors[:, :3] + 1) / 2)
    canvas.paint(Ellipse(x=0.0, y=0.0, width=width, height=0.29), skin)
    _fringe(canvas, own, width, hair)
    _nose(canvas, own, pose[:, 4], skin)
    _mouth(canvas, own, mimic, skin)
    _eyes(canvas, own, mimic, hair)
    lit = canvas.pixels * _light(canvas, light) + (noise - 0.5) * (2 * NOISE)
    return (lit * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def _frame(face_size: Tensor, pose: Tensor) -> Frame:
    """Place the face: shifted by up to 5 % of the picture, turned by up to 10 degrees, and as large as the identity's."""
    across, down, turn, zoom = pose[:, :4].unbind(1)
    scale = (0.82 + 0.32 * face_size) * (1 + 0.03 * zoom)
    # A rotation of this tangent without trigonometry, which is not exact to the bit.
    tangent = _TILT * turn
    cosine = scale / (1 + tangent.square()).sqrt()
    sine = cosine * tangent
    matrix = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)
    return Frame(matrix, torch.stack([0.5 + 0.05 * across, 0.53 + 0.05 * down], dim=1))


def _background(canvas: Canvas, colors: Tensor, *, blob: Tensor) -> None:
    """Paint a wall that goes from one color to another, and something round in front of it."""
    first, second = (part[:, :, None, None] for part in colors.split(3, dim=1))
    down = (torch.arange(canvas.size, dtype=torch.float32)[:, None] + 0.5) / canvas.size
    canvas.pixels.copy_(first + (second - first) * down)
    x, y, size = blob.unbind(1)
    shape = Ellipse(x=0.7 * x, y=0.7 * y, width=0.22 + 0.12 * size, height=0.22 + 0.12 * size)
    canvas.paint(shape, (0.5, 0.5, 0.5), 0.5, soft=0.08)


def _behind(canvas: Canvas, own: dict[str, Tensor], width: Tensor, skin: Tensor, hair: Tensor, *, clothes: Tensor) -> None:
    """Paint the hair that lies behind the face, shoulders, neck and ears."""
    length = own["hair_length"]
    canvas.paint(Ellipse(x=0.0, y=-0.07, width=width + 0.03 + 0.05 * length, height=0.275 + 0.03 * length), hair)
    falling = Panel(x=0.0, y=-0.07 + 0.25 * length, width=width + 0.01 + 0.06 * length, height=0.02 + 0.25 * length, corner=0.02)
    canvas.paint(falling, hair)
    canvas.paint(Panel(x=0.0, y=0.55, width=0.34, height=0.16, slope=0.6, corner=0.08), clothes)
    canvas.paint(Panel(x=0.0, y=0.32, width=0.095, height=0.12, corner=0.04), skin * 0.82)
    for side in (-1, 1):
        canvas.paint(Ellipse(x=side * width, y=0.01, width=0.035, height=0.06), skin * 0.88)


def _fringe(canvas: Canvas, own: dict[str, Tensor], width: Tensor, hair: Tensor) -> None:
    """Paint the hair above the forehead: little, or down to the brows."""
    low = own["hairline"]
    crown = Ellipse(x=0.0, y=-0.265 + 0.055 * low, width=0.82 * width + 0.03, height=0.055 + 0.065 * low)
    canvas.paint(crown, hair)


def _nose(canvas: Canvas, own: dict[str, Tensor], turned: Tensor, skin: Tensor) -> None:
    """Paint a nose that points a little to a side."""
    length = 0.04 + 0.055 * own["nose"]
    shape = Panel(x=0.008 * turned, y=-0.02 + length, width=0.014 + 0.026 * own["nose"], height=length, slope=0.22, corner=0.012)
    canvas.paint(shape, skin * 0.66)


def _mouth(canvas: Canvas, own: dict[str, Tensor], mimic: Tensor, skin: Tensor) -> None:
    """Paint lips, which smile or not, and open."""
    smile, opened = mimic[:, 3], mimic[:, 4].clamp(min=0)
    width, full = 0.04 + 0.095 * own["mouth_width"], 0.012 + 0.046 * own["mouth_fullness"]
    bend = -1.0 - 1.6 * smile
    lips = Stroke(x=0.0, y=0.195 - 0.006 * smile, width=width, height=full, bend=bend)
    canvas.paint(lips, (0.5 * skin + _LIPS).clamp(0, 1))
    line = Stroke(x=0.0, y=0.195 - 0.006 * smile, width=0.8 * width, height=0.004 + 0.010 * opened, bend=bend)
    canvas.paint(line, _DARK)


def _eyes(canvas: Canvas, own: dict[str, Tensor], mimic: Tensor, hair: Tensor) -> None:
    """Paint eyes that look to a side and close a little, and brows above them."""
    gaze, closed, raised = mimic[:, 0], mimic[:, 1], mimic[:, 2]
    apart, size = 0.072 + 0.05 * own["eye_gap"], 0.036 + 0.038 * own["eye_size"]
    open_ = size * (0.84 + 0.10 * closed)
    brow = -0.1 - 0.1 * own["brow_height"] + 0.008 * raised
    iris, tilt = _between(_IRIS, own["eye_color"]), 1.5 * own["brow_angle"] - 0.75
    for side in (-1, 1):
        canvas.paint(Ellipse(x=side * apart, y=-0.03, width=size, height=open_), _WHITE)
        canvas.paint(Ellipse(x=side * apart + 0.012 * gaze, y=-0.03, width=0.62 * size, height=0.66 * size), iris)
        canvas.paint(Ellipse(x=side * apart + 0.012 * gaze, y=-0.03, width=0.25 * size, height=0.25 * size), (0.02, 0.02, 0.02))
        stroke = Stroke(x=side * (apart + 0.008), y=brow, width=0.06, height=0.02, tilt=-side * tilt, bend=2.0)
        canvas.paint(stroke, hair * 0.55)


def _light(canvas: Canvas, light: Tensor) -> Tensor:
    """Return what each pixel is multiplied by, (N, 3, S, S): brightness, a lamp at a side, and its color."""
    gain, across, down, second = (part[:, None, None] for part in light[:, :4].unbind(1))
    middles = (torch.arange(canvas.size, dtype=torch.float32) + 0.5) / canvas.size - 0.5
    lamp = 0.95 + 0.2 * gain + (0.5 * across + 0.1 * second) * middles + 0.4 * down * middles[:, None]
    return lamp[:, None] * (1 + 0.07 * light[:, 4:7, None, None])


def _between(palette: Tensor, value: Tensor) -> Tensor:
    """Return the colors at `value`, (N,), [0, 1], on the way along a palette, (N, 3)."""
    place = value * (len(palette) - 1)
    step = place.long().clamp(max=len(palette) - 2)
    return torch.lerp(palette[step], palette[step + 1], (place - step)[:, None])
