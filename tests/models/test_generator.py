# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.generator import Generator, grid_of


@pytest.mark.parametrize(("size", "widths"), [(64, (512, 256, 128, 64)), (32, (256, 128, 64))])
def test_the_generator_is_that_of_the_release(size: int, widths: tuple[int, ...]) -> None:
    generator = Generator((3, size, size))
    doublings = [layer for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [(c.in_channels, c.kernel_size[0], c.stride[0], c.bias is not None) for c in doublings] == [
        (width, 5, 2, width == 64) for width in widths
    ]
    convolutions = sum(25 * a * b for a, b in zip(widths, (*widths[1:], 3), strict=True)) + 3
    linear, norms = 100 * widths[0] * 16, 2 * (widths[0] * 16 + sum(widths[1:]))
    assert sum(p.numel() for p in generator.parameters()) == linear + norms + convolutions


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 16, 16), (3, 48, 48), (2, 40, 40)])
def test_any_doubled_grid_is_made(shape: tuple[int, int, int]) -> None:
    with seeds.ambient(0, "weights"):
        generator = Generator(shape, latent=5, width=2)
    z = torch.randn(3, 5, generator=seeds.generator(0, "z"))
    x = generator(z)
    assert x.shape == (3, *shape)
    assert x.min() > 0
    assert x.max() < 1
    x.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in generator.parameters())


def test_the_grid_is_the_largest_that_doublings_reach() -> None:
    assert [grid_of((1, size, size)) for size in (8, 10, 12, 14, 16, 28, 32, 64, 128, 1024)] == [
        (4, 1), (5, 1), (6, 1), (7, 1), (4, 2), (7, 2), (4, 3), (4, 4), (4, 5), (4, 8),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 7, 7), (3, 33, 33), (3, 18, 18), (3, 32, 16), (0, 32, 32)])
def test_pictures_that_cannot_be_made_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=f"got {shape[1]}x{shape[2]} with {shape[0]} channels; resize the pictures"):
        Generator(shape)


@pytest.mark.parametrize("sizes", [{"latent": 0}, {"width": 0}])
def test_sizes_below_one_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        Generator((1, 8, 8), **sizes)
