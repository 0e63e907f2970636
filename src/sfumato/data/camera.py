# SPDX-License-Identifier: Apache-2.0
"""The cameras of the synthetic street: where each stands, what it sees behind the vehicles, and the light of each picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.canvas import Canvas, Ellipse, Frame, Panel, planes
from sfumato.data.vehicle import View

CAMERA, SHOT = 15, 16
"""How many random numbers make a camera, and one of its pictures."""

_GRAIN = 128
_WALLS = torch.tensor([[0.55, 0.48, 0.42], [0.42, 0.46, 0.52], [0.60, 0.57, 0.48], [0.35, 0.45, 0.34], [0.50, 0.38, 0.34]])


@dataclass(frozen=True)
class Shots:
    """How N pictures were taken.

    Args:
        frame: where the vehicle is.
        view: what is seen besides its front.
        seat: how far the driver moved from the seat, (N, 2), in units of the vehicle.
        gain: of red, green and blue, (N, 3).
        shadow: that falls across, (N, 3): place, lean and opacity.
    """

    frame: Frame
    view: View
    seat: Tensor
    gain: Tensor
    shadow: Tensor


def random_shots(cameras: Tensor, uniform: Tensor) -> Shots:
    """Make pictures of random numbers in [0, 1).

    Args:
        cameras: the numbers of the camera of each picture, (N, CAMERA), float32.
        uniform: the numbers of the picture, (N, SHOT), float32.
    """
    camera, shot = (2 * cameras - 1).unbind(1), (2 * uniform - 1).unbind(1)
    scale = 0.94 + 0.04 * camera[0] + 0.03 * shot[0]
    turn = 0.05 * camera[1] + 0.03 * shot[1]
    skew = 0.08 * camera[2] + 0.02 * shot[2]
    # The rotation whose tangent is `turn`, after a skew; without trigonometry, which is not exact to the bit.
    cosine = scale / (1 + turn.square()).sqrt()
    sine = turn * cosine
    matrix = torch.stack([cosine, cosine * skew - sine, sine, sine * skew + cosine], dim=1).view(-1, 2, 2)
    side = 0.065 * camera[3] + 0.02 * shot[3]
    center = torch.stack([0.5 - 0.4 * side + 0.025 * shot[4], 0.52 + 0.015 * camera[4] + 0.02 * shot[5]], dim=1)
    cast = torch.stack(camera[5:8], dim=1) * 0.10
    return Shots(
        frame=Frame(matrix, center),
        view=View(side=side, above=0.06 + 0.03 * camera[8], glare=uniform[:, 6:8]),
        seat=torch.stack([0.02 * shot[8], 0.012 * shot[9]], dim=1),
        gain=(1 + cast) * (1.0 + 0.18 * shot[10] + 0.05 * camera[9])[:, None] * (1 + 0.03 * torch.stack(shot[11:14], dim=1)),
        shadow=torch.stack([0.5 * shot[14], 0.5 * camera[10], 0.4 * uniform[:, 15]], dim=1),
    )


def backgrounds(cameras: Tensor, size: int, generators: list[torch.Generator]) -> Tensor:
    """Draw the street as each camera sees it, (C, 3, size, size), float32, [0, 1].

    Args:
        cameras: the numbers of each, (C, CAMERA), float32.
        size: side in pixels.
        generators: draws the grain of the asphalt, one for each camera.
    """
    tone, place, line, wall = cameras[:, 11:].unbind(1)
    frame = Frame(torch.eye(2).expand(len(cameras), 2, 2), torch.full((len(cameras), 2), 0.5))
    asphalt = 0.42 + 0.14 * planes(tone)
    canvas = Canvas.whole(torch.ones(len(cameras), 3, size, size) * asphalt, frame)
    lean = 2 * place - 1
    for step in (-0.2, 0.05, 0.3, 0.5):
        mark = Panel(x=(line - 0.5) * 1.6 + lean * step, y=step, width=0.014 + 0.01 * step, height=0.07, lean=lean)
        canvas.paint(mark, (0.88, 0.88, 0.84))
    edge = torch.where(place < 0.5, -0.62, 0.62)
    canvas.paint(Panel(x=edge, y=0.0, width=0.2, height=0.6, slope=-0.12, lean=0.3 * lean), (0.62, 0.60, 0.57))
    canvas.paint(Ellipse(x=-0.5 * edge, y=0.42, width=0.05, height=0.018), (0.18, 0.18, 0.19))
    _wall(canvas, _WALLS[(wall * len(_WALLS)).long()], 0.16 + 0.1 * line)
    return (canvas.pixels * _grain(size, generators)).clamp(0, 1)


def _wall(canvas: Canvas, color: Tensor, height: Tensor) -> None:
    """Paint houses along the upper edge."""
    canvas.paint(Panel(x=0.0, y=-0.5, width=0.6, height=height), color)
    for column in range(9):
        x = -0.5 + 0.125 * column
        canvas.paint(Panel(x=x, y=-0.5 + 0.45 * height, width=0.032, height=0.28 * height), color * 0.45)
        canvas.paint(Panel(x=x, y=-0.5 + 0.82 * height, width=0.032, height=0.03 * height), color * 1.25)
    canvas.paint(Panel(x=0.0, y=-0.5 + height, width=0.6, height=0.012), color * 0.6)


def _grain(size: int, generators: list[torch.Generator]) -> Tensor:
    """Return factors about 1, (C, 1, size, size); pictures of another size show the same grain."""
    grains = [torch.rand(1, 1, _GRAIN, _GRAIN, generator=generator) for generator in generators]
    scaled = [F.interpolate(grain, size=(size, size), mode="bilinear", antialias=True) for grain in grains]
    return 1 + 0.22 * (torch.cat(scaled) - 0.5)
