# SPDX-License-Identifier: Apache-2.0
"""Random variations of pictures, `sfumato.data.variation`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.attacks.weights.search import Rows
from sfumato.data.variation import DRAWS, Variation, center
from sfumato.errors import ConfigError
from style_toys import drawn


def pictures(count: int = 3, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.sigmoid(drawn(count, channels, height, width, seed=0))


def rows(index: Tensor, total: int = 5, step: int = 0) -> Rows:
    return Rows(index, torch.zeros(len(index), dtype=torch.int64), total, step, 0)


def literal(x: np.ndarray, draws: np.ndarray, variation: Variation) -> np.ndarray:
    """One picture, pixel by pixel: where each comes from, in pixels, and the four around that place."""
    channels, height, width = x.shape
    area, shape, right, down, turn = draws[:5]
    share = variation.scale[0] + (variation.scale[1] - variation.scale[0]) * area
    ratio = math.exp(math.log(variation.ratio[0]) + math.log(variation.ratio[1] / variation.ratio[0]) * shape)
    wide = min(width, math.sqrt(share * width * height * ratio))
    tall = min(height, math.sqrt(share * width * height / ratio))
    left, top = (width - wide) * right, (height - tall) * down
    angle = math.radians(variation.rotation) * (2 * turn - 1)
    out = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            # From the middle of the output, turned, and then as far into the crop.
            a, b = j + 0.5 - width / 2, i + 0.5 - height / 2
            a, b = a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)
            u = left + wide * (0.5 + a / width) - 0.5
            v = top + tall * (0.5 + b / height) - 0.5
            u, v = min(max(u, 0), width - 1), min(max(v, 0), height - 1)
            u0, v0 = int(u), int(v)
            u1, v1 = min(u0 + 1, width - 1), min(v0 + 1, height - 1)
            for c in range(channels):
                low = x[c, v0, u0] * (1 - u + u0) + x[c, v0, u1] * (u - u0)
                high = x[c, v1, u0] * (1 - u + u0) + x[c, v1, u1] * (u - u0)
                out[c, i, j] = low * (1 - v + v0) + high * (v - v0)
    return out


@pytest.mark.parametrize(
    "variation",
    [
        Variation(scale=(0.5, 0.9), ratio=(0.8, 1.2)),
        Variation(rotation=30),
        Variation(scale=(0.4, 0.6), ratio=(0.5, 1.0), rotation=90),
        Variation(scale=(0.9, 1.0), ratio=(2.0, 3.0)),  # wider than the picture
    ],
    ids=["crop", "turn", "both", "clipped"],
)
@pytest.mark.parametrize("size", [(8, 8), (6, 9)])
def test_crops_and_turns_are_those_of_the_pixels(variation: Variation, size: tuple[int, int]) -> None:
    x, draws = pictures(4, 2, *size).double(), torch.rand(4, DRAWS, dtype=torch.float64)
    expected = np.stack([literal(one, own, variation) for one, own in zip(x.numpy(), draws.numpy(), strict=True)])
    np.testing.assert_allclose(variation.vary(x, draws).numpy(), expected, atol=1e-9)


def test_jitter_is_brightness_then_contrast() -> None:
    x, draws = pictures(2), torch.full((2, DRAWS), 0.5)
    draws[0, 5], draws[1, 6] = 0.0, 1.0
    darker, sharper = Variation(jitter=0.2).vary(x, draws)
    torch.testing.assert_close(darker, 0.8 * x[0])
    gray = (0.299 * x[1, 0] + 0.587 * x[1, 1] + 0.114 * x[1, 2]).mean()
    torch.testing.assert_close(sharper, (gray + 1.2 * (x[1] - gray)).clamp(0, 1))


def test_flips_are_exact_and_as_often_as_asked() -> None:
    x = pictures(400, 1)
    found = Variation(flip=0.25)(x, rows(torch.arange(400), 400))
    mirrored = (found == x.flip(-1)).flatten(1).all(1)
    assert bool(((found == x).flatten(1).all(1) | mirrored).all())
    assert 0.15 < mirrored.float().mean() < 0.35


def test_nothing_enabled_changes_nothing() -> None:
    x = pictures()
    assert Variation()(x, rows(torch.arange(3))) is x


def test_the_numbers_of_a_row_do_not_depend_on_its_batch() -> None:
    every = Variation(scale=(0.3, 1.0), ratio=(0.5, 2.0), rotation=20, jitter=0.3, flip=0.5)
    x = pictures(5)
    whole = every(x, rows(torch.arange(5)))
    alone = torch.cat([every(x[[row]], rows(torch.tensor([row]))) for row in range(5)])
    torch.testing.assert_close(whole, alone)
    assert not torch.equal(whole, every(x, rows(torch.arange(5), step=1)))
    assert not torch.equal(whole, every(x, rows(torch.arange(5)), "second"))
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1


def test_there_is_a_gradient_to_every_picture() -> None:
    x = pictures().requires_grad_()
    Variation(scale=(0.5, 0.9), rotation=10, jitter=0.2, flip=0.5)(x, rows(torch.arange(3))).sum().backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().sum(1) > 0).all())


@pytest.mark.parametrize("channels", [1, 2])
def test_other_colors_are_weighed_alike(channels: int) -> None:
    x, draws = pictures(1, channels), torch.full((1, DRAWS), 0.5)
    draws[0, 6] = 0.0
    torch.testing.assert_close(Variation(jitter=1.0).vary(x, draws), x.mean().expand_as(x))


def test_the_center_is_cut_and_resized_with_antialiasing() -> None:
    x = pictures(2, 3, 10, 10)
    expected = F.interpolate(x[..., 1:9, 1:9], size=(10, 10), mode="bilinear", antialias=True)
    torch.testing.assert_close(center(x, 0.8), expected)
    assert center(x, 1.0) is x


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": (0.0, 1.0)}, {"scale": (0.9, 0.5)}, {"scale": (0.5, 1.1)}, {"ratio": (0.0, 1.0)}, {"ratio": (2.0, 1.0)},
        {"rotation": -1.0}, {"rotation": 181.0}, {"jitter": 1.5}, {"flip": -0.1}, {"flip": math.nan},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_out_of_range_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Variation(**arguments)
