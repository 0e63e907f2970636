# SPDX-License-Identifier: Apache-2.0
"""Number plates: the finest detail of a vehicle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.canvas import Canvas, Panel, planes

DIGITS = 5
"""How many there are on a plate."""

_ROWS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")  # octal: 7 is three dots
_DOTS = torch.tensor([[[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in digit] for digit in _ROWS])
_HEIGHT, _WIDTH = 7, 4 * DIGITS + 1  # in dots
_DOT = 0.238 / _WIDTH


def draw_plate(canvas: Canvas, plate: Tensor, y: Tensor) -> None:
    """Paint plates; a pixel has the mean of nine places in it.

    Args:
        canvas: N pictures.
        plate: digits, (N, DIGITS), int64.
        y: of the middle of the plate, (N,), in units of the canvas.
    """
    shape = Panel(x=0.0, y=y, width=0.125, height=0.040, corner=0.008)
    layer = canvas.layer(shape, (0.97, 0.95, 0.86))
    dots, third = _dots(plate).flatten(1), planes(layer.step) / 3
    covered = torch.zeros_like(layer.x)
    for down in (-1, 0, 1):
        row = ((layer.y - planes(y) + down * third) / _DOT + _HEIGHT / 2).floor()
        for right in (-1, 0, 1):
            column = ((layer.x + right * third) / _DOT + _WIDTH / 2).floor()
            inside = (row >= 0) & (row < _HEIGHT) & (column >= 0) & (column < _WIDTH)
            place = (row * _WIDTH + column).clamp(0, _HEIGHT * _WIDTH - 1).long()
            covered += dots.gather(1, place.flatten(1)).view(place.shape) * inside
    layer.cover(covered / 9, (0.07, 0.08, 0.22))
    canvas.paint(shape, layer.pixels)


def _dots(plate: Tensor) -> Tensor:
    """Return which dots of each plate are dark, (N, _HEIGHT, _WIDTH), 0 or 1: a margin of one around and between the digits."""
    spaced = F.pad(_DOTS[plate], (0, 1))
    return F.pad(spaced.transpose(1, 2).flatten(2), (1, 0, 1, 1)).float()
