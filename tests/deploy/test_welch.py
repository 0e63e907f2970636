# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sfumato.deploy.exporting.parity import ALPHA
from sfumato.deploy.exporting.welch import _welch, compare_noise

SHAPES = {"maps": (64, 32, 4, 3, 7), "vectors": (64, 32, 16), "few draws of large maps": (4, 32, 4, 18, 18)}
BASE = torch.rand(32, 16, 18, 18, generator=torch.Generator().manual_seed(5))


def clean(shape: tuple[int, ...]) -> Tensor:
    part = BASE[:, : shape[2]]
    return part[..., 0, 0] if len(shape) == 3 else part[..., : shape[3], : shape[4]]


def gaussian(shape: tuple[int, ...], sigma: float = 0.3) -> Tensor:
    return clean(shape) + sigma * torch.randn(shape)


def laplace(shape: tuple[int, ...], sigma: float = 0.3) -> Tensor:
    both = torch.empty(2, *shape).exponential_() * sigma / 2**0.5
    return clean(shape) + both[0] - both[1]


def dropout(shape: tuple[int, ...], p: float = 0.3) -> Tensor:
    return clean(shape) * (torch.rand(shape) >= p)


NOISES: dict[str, Callable[..., Tensor]] = {"gaussian": gaussian, "laplace": laplace, "dropout": dropout}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_noise_passes_and_more_of_it_does_not(shape: str, noise: str) -> None:
    draw, size, strength = NOISES[noise], SHAPES[shape], 0.3
    # of vectors a test of so many draws has one number where it has hundreds of maps
    other = strength * (1.2 if shape == "vectors" and noise != "gaussian" else 1.05)
    found = [compare_noise(draw(size, strength), draw(size, strength)).p for _ in range(10)]
    assert min(found) > 1e-3
    assert sum(p < 0.2 for p in found) <= 6
    assert compare_noise(draw(size, strength), draw(size, other)).p < ALPHA


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_is_caught_and_its_channel_named(shape: str) -> None:
    size = SHAPES[shape]
    moved = gaussian(size)
    moved[:, :, 2] += 0.1
    test = compare_noise(gaussian(size), moved)
    assert test.p < ALPHA
    assert test.of == "the mean of channel 2"


@pytest.mark.parametrize("shape", SHAPES)
def test_laplace_noise_of_the_same_spread_is_not_gaussian(shape: str) -> None:
    test = compare_noise(gaussian(SHAPES[shape]), laplace(SHAPES[shape]))
    assert test.p < ALPHA
    assert "mean absolute deviation" in test.of


def test_noise_that_is_correlated_over_places_is_no_false_alarm() -> None:
    size = (16, 32, 4, 5, 5)
    found = [compare_noise(*(clean(size) + torch.randn(*size[:3], 1, 1).expand(size) for _ in range(2))).p for _ in range(20)]
    assert min(found) > 1e-3


def test_channels_without_noise_do_not_count() -> None:
    size = SHAPES["maps"]
    quiet = [gaussian(size) for _ in range(2)]
    for releases in quiet:
        releases[:, :, 1] = clean(size)[:, 1]
    quiet[1][:, :, 1] += 1e-7  # another order of additions
    assert compare_noise(*quiet).p > 1e-3
    assert compare_noise(clean(size).expand(size), clean(size).expand(size)).p == 1.0


def test_what_noise_does_not_change_is_equal_or_is_not() -> None:
    still = torch.zeros(8, 4, 3)
    moved = still.clone()
    moved[:, :, 1] = 1
    assert _welch(still, still) == [1.0, 1.0, 1.0]
    first, second, third = _welch(still, moved)
    assert (first, second < 1e-30, third) == (1.0, True, 1.0)


def test_few_releases_have_few_degrees_of_freedom() -> None:
    found = [min(_welch(torch.randn(2, 1, 1), torch.randn(2, 1, 1))) for _ in range(400)]
    assert sum(p < 0.01 for p in found) < 14  # 4 of 400 by chance; with a normal distribution in place of t, 50
