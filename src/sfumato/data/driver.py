# SPDX-License-Identifier: Apache-2.0
"""The people of the synthetic street: who they are, and how one looks behind a windscreen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.data.canvas import Canvas, Ellipse, Panel

SKINS = torch.tensor([[0.98, 0.84, 0.74], [0.87, 0.67, 0.51], [0.66, 0.45, 0.31], [0.40, 0.26, 0.18]])
HAIR = torch.tensor([[0.09, 0.07, 0.07], [0.42, 0.24, 0.12], [0.90, 0.74, 0.40], [0.80, 0.80, 0.82]])
CUTS = ("short", "long", "bun", "curly", "cap")
EYEWEAR = ("none", "glasses", "sunglasses")
BEARDS = ("none", "full")
CLOTHES = torch.tensor([
    [0.80, 0.20, 0.22], [0.18, 0.35, 0.70], [0.92, 0.92, 0.90], [0.25, 0.52, 0.35], [0.88, 0.70, 0.22], [0.35, 0.30, 0.38],
])  # fmt: skip

PERSONS = len(SKINS) * len(HAIR) * len(CUTS) * len(EYEWEAR) * len(BEARDS)
"""How many different persons there can be."""

_DARK = (0.08, 0.08, 0.10)
_WHITE = (0.97, 0.97, 0.95)
_CAP = (0.15, 0.55, 0.62)
_PEAK = (0.09, 0.33, 0.37)
_LIPS = torch.tensor([0.2, 0.0, 0.0])
_WIDTH, _HEIGHT = 0.062, 0.080  # half a face, in units of the vehicle


@dataclass(frozen=True)
class Drivers:
    """Persons as they sit in N pictures.

    Args:
        features: the numbers of skin, hair, cut, eyewear and beard, (N, 5), int64.
        clothes: (N, 3), [0, 1]; they are not the person's, and change from picture to picture.
        seat: where the middle of the face is, (N, 2), in units of the vehicle.
    """

    features: Tensor
    clothes: Tensor
    seat: Tensor


def persons(count: int, generator: torch.Generator) -> Tensor:
    """Choose different persons: each shares as few features as can be with those before.

    Args:
        count: at most `PERSONS`; more persons begin with the same ones.
        generator: draws the order in which possible persons are considered.

    Returns:
        The numbers of skin, hair, cut, eyewear and beard of each, (count, 5), int64.

    Example:
        >>> persons(3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 5])
    """
    kinds = (SKINS, HAIR, CUTS, EYEWEAR, BEARDS)
    possible = torch.tensor(list(itertools.product(*(range(len(kind)) for kind in kinds))))
    possible = possible[torch.randperm(PERSONS, generator=generator)]
    chosen = possible[:1]
    while len(chosen) < count:
        differing = (possible[:, None] != chosen).sum(dim=2)
        # The nearest one decides; among equals, how near all the others are.
        best = (differing.amin(dim=1) * 5 * PERSONS + differing.sum(dim=1)).argmax()
        chosen = torch.cat([chosen, possible[best][None]])
    return chosen[:count]


def draw_driver(canvas: Canvas, drivers: Drivers) -> None:
    """Paint head and shoulders."""
    skin, hair = SKINS[drivers.features[:, 0]], HAIR[drivers.features[:, 1]]
    x, y = drivers.seat.unbind(1)
    _behind(canvas, drivers, hair)
    canvas.paint(Panel(x=x, y=y + 0.165, width=0.115, height=0.075, slope=0.35, corner=0.04), drivers.clothes)
    canvas.paint(Panel(x=x, y=y + 0.13, width=0.006, height=0.035), drivers.clothes * 0.6)
    canvas.paint(Panel(x=x, y=y + _HEIGHT, width=0.026, height=0.03, corner=0.01), skin * 0.8)
    for side in (-1, 1):
        canvas.paint(Ellipse(x=x + side * _WIDTH, y=y + 0.005, width=0.012, height=0.018), skin * 0.9)
    canvas.paint(Ellipse(x=x, y=y, width=_WIDTH, height=_HEIGHT), skin)
    _face(canvas, drivers, skin, hair)
    _above(canvas, drivers, hair)


def _is(drivers: Drivers, column: int, number: int) -> Tensor:
    return (drivers.features[:, column] == number).float()


def _behind(canvas: Canvas, drivers: Drivers, hair: Tensor) -> None:
    """Paint the hair that lies behind the face."""
    x, y = drivers.seat.unbind(1)
    long, bun, curly = (_is(drivers, 2, CUTS.index(cut)) for cut in ("long", "bun", "curly"))
    canvas.paint(Panel(x=x, y=y + 0.035, width=0.082, height=0.085, slope=0.1, corner=0.03), hair, long)
    canvas.paint(Ellipse(x=x, y=y - 0.105, width=0.034, height=0.030), hair, bun)
    canvas.paint(Ellipse(x=x, y=y - 0.03, width=0.098, height=0.086), hair, curly)


def _face(canvas: Canvas, drivers: Drivers, skin: Tensor, hair: Tensor) -> None:
    """Paint beard, mouth, nose, eyes and what is before them."""
    x, y = drivers.seat.unbind(1)
    beard, glasses, shades = _is(drivers, 4, 1), _is(drivers, 3, 1), _is(drivers, 3, 2)
    canvas.paint(Ellipse(x=x, y=y + 0.05, width=0.052, height=0.037), hair * 0.85, beard)
    canvas.paint(Panel(x=x, y=y + 0.045, width=0.020, height=0.006, corner=0.006), 0.55 * skin + _LIPS)
    canvas.paint(Panel(x=x, y=y + 0.016, width=0.006, height=0.014, slope=0.2, corner=0.004), skin * 0.82)
    for side in (-1, 1):
        eye = x + side * 0.027
        canvas.paint(Panel(x=eye, y=y - 0.024, width=0.017, height=0.0045), hair * 0.7)
        canvas.paint(Panel(x=eye, y=y - 0.006, width=0.025, height=0.019, corner=0.012), _DARK, glasses)
        canvas.paint(Panel(x=eye, y=y - 0.006, width=0.018, height=0.012, corner=0.008), skin * 0.5 + 0.5, glasses)
        canvas.paint(Ellipse(x=eye, y=y - 0.006, width=0.013, height=0.009), _WHITE)
        canvas.paint(Ellipse(x=eye, y=y - 0.006, width=0.007, height=0.008), _DARK)
        canvas.paint(Panel(x=eye, y=y - 0.006, width=0.026, height=0.019, corner=0.012), _DARK, shades)
    canvas.paint(Panel(x=x, y=y - 0.010, width=0.056, height=0.004), _DARK, glasses + shades)


def _above(canvas: Canvas, drivers: Drivers, hair: Tensor) -> None:
    """Paint the hair above the forehead, or a cap."""
    x, y = drivers.seat.unbind(1)
    cap = _is(drivers, 2, CUTS.index("cap"))
    canvas.paint(Panel(x=x, y=y - 0.060, width=0.060, height=0.028, slope=0.2, corner=0.026), hair)
    for side in (-1, 1):
        canvas.paint(Panel(x=x + side * 0.057, y=y - 0.028, width=0.008, height=0.026, corner=0.004), hair)
    canvas.paint(Panel(x=x, y=y - 0.066, width=0.064, height=0.034, slope=0.2, corner=0.030), _CAP, cap)
    canvas.paint(Panel(x=x, y=y - 0.036, width=0.074, height=0.007, corner=0.006), _PEAK, cap)
