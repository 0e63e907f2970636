# SPDX-License-Identifier: Apache-2.0
"""The vehicles of the synthetic street from the front, as a traffic camera sees them: make, color, plate and stickers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.data.canvas import Canvas, Ellipse, Number, Panel
from sfumato.data.driver import Drivers, draw_driver
from sfumato.data.plate import DIGITS, draw_plate


class Make(NamedTuple):
    """The measures of a make; widths and heights are halves, y grows downwards from the middle of the vehicle."""

    roof: Tensor  # y of the upper edge of the windscreen's frame
    belt: Tensor  # y of its lower edge
    nose: Tensor  # y where the hood ends and the front begins
    bottom: Tensor  # y of the lower edge of the bumper
    crown: Tensor  # width at the roof
    waist: Tensor  # width at the belt
    body: Tensor  # width of the front
    lamp_width: Tensor
    lamp_height: Tensor
    lamp_corner: Tensor
    grille_width: Tensor
    grille_height: Tensor
    ribs: Tensor  # 0: the bars of the grille lie, 1: they stand
    rack: Tensor  # 1: bars on the roof


MAKES = {
    "sedan": (-0.36, -0.07, 0.11, 0.33, 0.245, 0.320, 0.360, 0.075, 0.026, 0.020, 0.13, 0.032, 0, 0),
    "compact": (-0.38, -0.07, 0.08, 0.33, 0.225, 0.290, 0.310, 0.050, 0.050, 0.050, 0.09, 0.018, 0, 0),
    "van": (-0.39, -0.05, 0.06, 0.36, 0.310, 0.340, 0.355, 0.042, 0.062, 0.020, 0.19, 0.024, 0, 0),
    "pickup": (-0.37, -0.09, 0.03, 0.36, 0.255, 0.310, 0.385, 0.048, 0.048, 0.006, 0.20, 0.075, 1, 0),
    "wagon": (-0.38, -0.08, 0.08, 0.35, 0.255, 0.320, 0.365, 0.062, 0.034, 0.010, 0.11, 0.050, 1, 1),
    "coupe": (-0.33, -0.05, 0.13, 0.31, 0.215, 0.315, 0.385, 0.090, 0.018, 0.016, 0.16, 0.022, 0, 0),
}  # fmt: skip

COLORS = torch.tensor([
    [0.93, 0.93, 0.92], [0.68, 0.70, 0.73], [0.30, 0.32, 0.35], [0.11, 0.11, 0.13], [0.74, 0.12, 0.13],
    [0.14, 0.27, 0.62], [0.16, 0.42, 0.28], [0.93, 0.74, 0.16], [0.88, 0.45, 0.13], [0.44, 0.27, 0.18],
])  # fmt: skip

STICKERS = torch.tensor([
    [0.95, 0.95, 0.95], [0.95, 0.82, 0.15], [0.85, 0.15, 0.20], [0.12, 0.45, 0.80], [0.20, 0.65, 0.35], [0.10, 0.10, 0.12],
])  # fmt: skip

VEHICLE = 14 + DIGITS
"""How many random numbers make a vehicle."""

_MAKES = torch.tensor(list(MAKES.values()))
_GLASS = (0.07, 0.09, 0.11)
_DARK = (0.09, 0.09, 0.10)
_CHROME = (0.80, 0.81, 0.82)
_FRAME = 0.022  # of the windscreen
_SEAT = 0.43  # from the middle, as a share of half the roof


@dataclass(frozen=True)
class Vehicles:
    """The vehicles in N pictures.

    Args:
        make: number in `MAKES`, (N,), int64.
        color: (N, 3), [0, 1].
        plate: digits, (N, DIGITS), int64.
        places: where two stickers are, (N, 2, 2): x in halves of the vehicle's width, y from the belt, 0, to the bottom, 1.
        colors: numbers of the stickers in `STICKERS`, (N, 2), int64.
        round: whether each sticker is, (N, 2), 0 or 1.
        stripe: opacity of a stripe along the hood, (N,), 0 or 1.
    """

    make: Tensor
    color: Tensor
    plate: Tensor
    places: Tensor
    colors: Tensor
    round: Tensor
    stripe: Tensor


@dataclass(frozen=True)
class View:
    """How much of a vehicle besides its front a camera sees in N pictures.

    Args:
        side: how far the flank looks out, to the right where it is positive, (N,), in units.
        above: height of the roof in the picture, (N,), in units.
        glare: of the windscreen, (N, 2): place and opacity, [0, 1].
    """

    side: Tensor
    above: Tensor
    glare: Tensor


def random_vehicles(uniform: Tensor) -> Vehicles:
    """Make vehicles of random numbers in [0, 1).

    Args:
        uniform: (N, VEHICLE), float32.

    Example:
        >>> random_vehicles(torch.rand(2, VEHICLE)).plate.shape
        torch.Size([2, 5])
    """
    make, color, stripe, shade, plate, places, colors, rounds = uniform.split([1, 1, 1, 3, DIGITS, 4, 2, 2], dim=1)
    near, far = (places[:, :2] - 0.5) * torch.tensor([0.7, 0.3]), places[:, 2:]
    low = torch.stack([(far[:, 0] - 0.5).sign() * (0.45 + 0.35 * far[:, 0]), 0.82 + 0.1 * far[:, 1]], dim=1)
    return Vehicles(
        make=(make[:, 0] * len(MAKES)).long(),
        color=(COLORS[(color[:, 0] * len(COLORS)).long()] + 0.06 * (shade - 0.5)).clamp(0, 1),
        plate=(plate * 10).long(),
        places=torch.stack([near + torch.tensor([0.0, 0.28]), low], dim=1),
        colors=(colors * len(STICKERS)).long(),
        round=(rounds < 0.5).float(),
        stripe=(stripe[:, 0] < 0.25).float(),
    )


def windscreen(vehicles: Vehicles) -> Panel:
    """Return the glass of the windscreen; nothing of a driver is seen outside of it."""
    return _pillars(_make(vehicles), _FRAME)


def seats(vehicles: Vehicles, offset: Tensor) -> Tensor:
    """Return where the middle of a driver's face is, (N, 2), in units; `offset`, (N, 2), moves it from the seat."""
    make = _make(vehicles)
    return torch.stack([_SEAT * make.crown + offset[:, 0], make.roof + 0.135 + offset[:, 1]], dim=1)


def draw_vehicle(canvas: Canvas, vehicles: Vehicles, drivers: Drivers, view: View) -> None:
    """Paint vehicles, each with its driver."""
    make = _make(vehicles)
    _flank(canvas, make, vehicles, view)
    _cabin(canvas, make, vehicles, view)
    _windscreen(canvas, make, vehicles, drivers, view)
    _hood(canvas, make, vehicles)
    _front(canvas, make, vehicles)
    draw_plate(canvas, vehicles.plate, make.bottom - 0.065)
    _stickers(canvas, make, vehicles)


def _make(vehicles: Vehicles) -> Make:
    return Make(*_MAKES[vehicles.make].unbind(1))


def _pillars(make: Make, inset: float, x: Number = 0.0) -> Panel:
    """Return the trapezoid from roof to belt, smaller by an inset."""
    tall = make.belt - make.roof
    return Panel(
        x=x,
        y=(make.roof + make.belt) / 2,
        width=(make.crown + make.waist) / 2 - 1.3 * inset,
        height=tall / 2 - inset,
        slope=(make.waist - make.crown) / tall,
        corner=0.03 - inset / 2,
    )


def _flank(canvas: Canvas, make: Make, vehicles: Vehicles, view: View) -> None:
    """Paint what is behind the front: shadow on the ground, wheels, the flank and its windows."""
    shadow = Ellipse(x=0.6 * view.side, y=make.bottom + 0.03, width=make.body + 0.06, height=0.05)
    canvas.paint(shadow, (0.0, 0.0, 0.0), 0.7, soft=0.06)
    for side in (-1, 1):
        place = side * (make.body - 0.065)
        canvas.paint(Panel(x=place + view.side, y=make.bottom - 0.03, width=0.045, height=0.055, corner=0.02), (0.04, 0.04, 0.04))
        canvas.paint(Panel(x=place, y=make.bottom + 0.005, width=0.055, height=0.055, corner=0.02), _DARK)
    low = (make.belt + make.bottom) / 2
    flank = Panel(x=view.side, y=low - 0.04, width=make.body - 0.01, height=low - make.belt, corner=0.04)
    canvas.paint(flank, vehicles.color * 0.55)
    canvas.paint(_pillars(make, 0.0, view.side), vehicles.color * 0.5)
    canvas.paint(_pillars(make, _FRAME, view.side), _GLASS)


def _cabin(canvas: Canvas, make: Make, vehicles: Vehicles, view: View) -> None:
    """Paint the roof and the frame of the windscreen."""
    half = view.above / 2
    roof = Panel(x=view.side / 2, y=make.roof - half + 0.02, width=make.crown - 0.01, height=half + 0.02, corner=0.03)
    canvas.paint(roof, vehicles.color * 0.85 + 0.12)
    for place in (0.3, 0.8):
        rail = Panel(x=view.side / 2, y=make.roof - place * view.above, width=make.crown, height=0.008, corner=0.004)
        canvas.paint(rail, _DARK, make.rack)
    canvas.paint(_pillars(make, 0.0), vehicles.color * 0.82)


def _windscreen(canvas: Canvas, make: Make, vehicles: Vehicles, drivers: Drivers, view: View) -> None:
    """Paint the inside on a layer of its own, so that the glass cuts off what does not fit."""
    glass = windscreen(vehicles)
    inside = canvas.layer(glass, _GLASS)
    for side in (-1, 1):
        x = side * _SEAT * make.crown
        inside.paint(Panel(x=x, y=make.belt - 0.07, width=0.085, height=0.085, corner=0.04), (0.19, 0.19, 0.21))
        inside.paint(Panel(x=x, y=make.belt - 0.175, width=0.04, height=0.03, corner=0.02), (0.23, 0.23, 0.25))
    draw_driver(inside, drivers)
    inside.paint(Panel(x=0.0, y=make.belt, width=1.0, height=0.045), (0.13, 0.13, 0.14))
    inside.paint(Ellipse(x=drivers.seat[:, 0], y=make.belt, width=0.085, height=0.065), _DARK)
    inside.paint(Ellipse(x=drivers.seat[:, 0], y=make.belt, width=0.068, height=0.049), (0.16, 0.16, 0.17))
    inside.paint(Panel(x=0.0, y=make.roof + 0.045, width=0.035, height=0.012, corner=0.008), _DARK)
    place, bright = view.glare.unbind(1)
    glare = Panel(x=(place - 0.5) * 0.6, y=(make.roof + make.belt) / 2, width=0.05, height=0.2, lean=-0.6)
    inside.paint(glare, (1.0, 1.0, 1.0), 0.25 * bright)
    canvas.paint(glass, inside.pixels)


def _hood(canvas: Canvas, make: Make, vehicles: Vehicles) -> None:
    """Paint mirrors, hood, its creases and a stripe along it."""
    for side in (-1, 1):
        mirror = Panel(x=side * (make.waist + 0.035), y=make.belt - 0.02, width=0.034, height=0.026, corner=0.016)
        canvas.paint(mirror, vehicles.color * 0.7)
    tall = make.nose - make.belt
    middle = (make.nose + make.belt) / 2 + 0.01
    slope, width = (make.body - make.waist) / tall, (make.body + make.waist) / 2
    hood = Panel(x=0.0, y=middle, width=width, height=tall / 2 + 0.02, slope=0.8 * slope, corner=0.03)
    canvas.paint(hood, vehicles.color * 0.9 + 0.02)
    canvas.paint(Ellipse(x=0.0, y=middle, width=0.8 * width, height=0.6 * tall), vehicles.color * 0.75 + 0.22, 0.7, soft=0.1)
    canvas.paint(Panel(x=0.0, y=middle, width=0.045, height=tall / 2 + 0.02, slope=0.15), (0.95, 0.95, 0.95), vehicles.stripe)
    for side in (-1, 1):
        crease = Panel(x=side * 0.55 * width, y=middle, width=0.004, height=tall / 2 - 0.01, lean=side * 0.3)
        canvas.paint(crease, vehicles.color * 0.6)
        wiper = Panel(x=side * 0.4 * make.waist, y=make.belt - 0.012, width=0.09, height=0.004)
        canvas.paint(wiper, _DARK)


def _front(canvas: Canvas, make: Make, vehicles: Vehicles) -> None:
    """Paint front, bumper, lamps, grille and emblem."""
    middle, half = (make.nose + make.bottom) / 2, (make.bottom - make.nose) / 2
    canvas.paint(Panel(x=0.0, y=middle, width=make.body, height=half, corner=0.04), vehicles.color * 0.8)
    canvas.paint(Panel(x=0.0, y=make.bottom - 0.02, width=make.body - 0.02, height=0.022, corner=0.02), _DARK)
    canvas.paint(Panel(x=0.0, y=make.bottom - 0.115, width=make.body, height=0.004), vehicles.color * 0.5)
    high = make.nose + 0.02 + torch.maximum(make.lamp_height, make.grille_height)
    for side in (-1, 1):
        x = side * (make.body - make.lamp_width - 0.02)
        for rim, color in ((0.008, _DARK), (0.0, (0.86, 0.90, 0.94))):
            width, height, corner = make.lamp_width + rim, make.lamp_height + rim, make.lamp_corner + rim
            canvas.paint(Panel(x=x, y=high, width=width, height=height, corner=corner), color)
        core = 0.55 * torch.minimum(make.lamp_width, make.lamp_height)
        canvas.paint(Ellipse(x=x, y=high, width=core, height=core), (1.0, 0.98, 0.85))
        turn = Panel(x=side * (make.body - 0.06), y=make.bottom - 0.065, width=0.025, height=0.010, corner=0.01)
        canvas.paint(turn, (0.95, 0.60, 0.15))
    _grille(canvas, make, high)


def _grille(canvas: Canvas, make: Make, high: Tensor) -> None:
    canvas.paint(Panel(x=0.0, y=high, width=make.grille_width, height=make.grille_height, corner=0.012), _DARK)
    for place in (-0.5, 0.0, 0.5):
        y = high + place * 1.2 * make.grille_height
        bar = Panel(x=0.0, y=y, width=make.grille_width - 0.008, height=0.12 * make.grille_height)
        canvas.paint(bar, _CHROME, 1 - make.ribs)
    for place in (-0.75, -0.45, -0.15, 0.15, 0.45, 0.75):
        bar = Panel(x=place * make.grille_width, y=high, width=0.05 * make.grille_width, height=make.grille_height - 0.008)
        canvas.paint(bar, _CHROME, make.ribs)
    canvas.paint(Ellipse(x=0.0, y=high, width=0.02, height=0.02), _CHROME)


def _stickers(canvas: Canvas, make: Make, vehicles: Vehicles) -> None:
    for number in range(2):
        x, y = vehicles.places[:, number].unbind(1)
        x, y = x * make.body, make.belt + y * (make.bottom - make.belt)
        corner = 0.006 + 0.022 * vehicles.round[:, number]
        color = STICKERS[vehicles.colors[:, number]]
        canvas.paint(Panel(x=x, y=y, width=0.034, height=0.028, corner=corner), color)
        canvas.paint(Panel(x=x, y=y, width=0.018, height=0.008, corner=0.004), 1 - color)
