# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.data.canvas import Canvas, Ellipse, Frame, Panel

SIZE = 24
SHAPES = [
    Panel(x=0.05, y=-0.02, width=0.21, height=0.13),
    Panel(x=0.0, y=0.1, width=0.2, height=0.15, corner=0.08),
    Panel(x=-0.1, y=0.0, width=0.15, height=0.2, slope=0.4, corner=0.03),
    Panel(x=0.0, y=0.0, width=0.05, height=0.3, lean=-0.6),
    Ellipse(x=0.1, y=0.05, width=0.2, height=0.12),
]
WHITE = (1.0, 1.0, 1.0)


def frame(turn: float = 0.2, scale: float = 0.9) -> Frame:
    matrix = scale * torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return Frame(matrix[None], torch.tensor([[0.52, 0.47]]))


def black(count: int = 1) -> torch.Tensor:
    return torch.zeros(count, 3, SIZE, SIZE)


def holds(shape: Panel | Ellipse, x: float, y: float) -> bool:
    """Say literally whether a place is inside."""
    x, y = x - shape.x, y - shape.y
    if isinstance(shape, Ellipse):
        return (x / shape.width) ** 2 + (y / shape.height) ** 2 < 1
    half = shape.width + shape.slope * y
    across, down = abs(x - shape.lean * y), abs(y)
    steep = 1 / math.sqrt(1 + (abs(shape.slope) + abs(shape.lean)) ** 2)
    over = ((across - half) * steep + shape.corner, down - shape.height + shape.corner)
    if min(over) > 0:
        return math.hypot(*over) < shape.corner
    return max(over) < shape.corner


def share(shape: Panel | Ellipse, where: Frame, parts: int = 8) -> np.ndarray:
    """Count places of each pixel that are inside, one by one."""
    inverse, center = np.linalg.inv(where.matrix[0].numpy()), where.center[0].numpy()
    covered = np.zeros((SIZE, SIZE))
    for row, column in np.ndindex(SIZE * parts, SIZE * parts):
        x, y = inverse @ (np.array([column + 0.5, row + 0.5]) / (SIZE * parts) - center)
        covered[row // parts, column // parts] += holds(shape, x, y) / parts**2
    return covered


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pixel_is_covered_by_the_share_of_it_that_is_inside(shape: Panel | Ellipse) -> None:
    canvas = Canvas.whole(black(), frame())
    canvas.paint(shape, WHITE)
    error = np.abs(canvas.pixels[0, 0].numpy() - share(shape, frame()))
    assert error.max() < 0.25
    assert error.mean() < 0.005


@pytest.mark.parametrize("soft", [0.0, 0.15])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_left_out_of_the_window(shape: Panel | Ellipse, soft: float, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = Frame(
        torch.cat([frame(turn).matrix for turn in (-1.0, 0.0, 0.7)]), torch.tensor([[0.5, 0.5], [0.1, 0.2], [0.9, 1.0]])
    )
    windowed, whole = Canvas.whole(black(3), turned), Canvas.whole(black(3), turned)
    windowed.paint(shape, WHITE, soft=soft)
    monkeypatch.setattr(Canvas, "_window", lambda *_: (slice(None), slice(None)))
    whole.paint(shape, WHITE, soft=soft)
    assert torch.equal(windowed.pixels, whole.pixels)


def test_a_shape_outside_of_the_pictures_changes_nothing() -> None:
    canvas = Canvas.whole(black(), frame())
    canvas.paint(Ellipse(x=3.0, y=-4.0, width=0.5, height=0.5), WHITE)
    assert canvas.pixels.max() == 0


def test_opacity_and_color_are_each_picture_s_own() -> None:
    both = Frame(frame().matrix.expand(2, 2, 2), frame().center.expand(2, 2))
    canvas = Canvas.whole(black(2), both)
    color = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    canvas.paint(Panel(x=0.0, y=0.0, width=0.2, height=0.2), color, torch.tensor([1.0, 0.25]))
    assert canvas.pixels[0].amax(dim=(1, 2)).tolist() == [1.0, 0.5, 0.0]
    assert canvas.pixels[1].amax(dim=(1, 2)).tolist() == [0.0, 0.0, 0.25]


def test_a_layer_shows_through_its_shape_only() -> None:
    canvas = Canvas.whole(black(), frame())
    glass = Panel(x=0.0, y=0.0, width=0.2, height=0.2)
    inside = canvas.layer(glass, (0.0, 1.0, 0.0))
    inside.paint(Panel(x=0.2, y=0.0, width=0.2, height=1.0), (1.0, 0.0, 0.0))
    assert canvas.pixels.max() == 0
    canvas.paint(glass, inside.pixels)
    plain = Canvas.whole(black(), frame())
    plain.paint(glass, WHITE)
    assert torch.allclose(canvas.pixels.sum(dim=1), plain.pixels[:, 0], atol=1e-6)
    assert canvas.pixels[0, 0].sum() > 5
    assert canvas.pixels[0, 1].sum() > 5
