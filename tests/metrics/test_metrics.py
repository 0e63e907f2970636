# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import structural_similarity_index_measure

from sfumato.errors import DataError
from sfumato.metrics import image
from sfumato.metrics.interval import mean_interval, psnr_interval
from sfumato.metrics.utility import hits
from slow import slow_region_mse, slow_ssim


def test_ssim_is_the_mean_over_gaussian_windows() -> None:
    x = torch.rand(2, 3, 14, 6, generator=torch.Generator().manual_seed(0))
    y = (x + 0.2 * torch.rand(2, 3, 14, 6, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    expected = [slow_ssim(a, b) for a, b in zip(y.numpy(), x.numpy(), strict=True)]
    assert image.ssim(y, x).tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_agrees_with_torchmetrics_in_value_and_gradient() -> None:
    x, y = torch.rand(3, 3, 16, 20, dtype=torch.float64), torch.rand(3, 3, 16, 20, dtype=torch.float64, requires_grad=True)
    theirs = structural_similarity_index_measure(y, x, data_range=1.0, reduction="none")
    ours = image.ssim(y, x)
    assert torch.allclose(ours, theirs, atol=1e-8)
    gradients = [torch.autograd.grad(value.sum(), y)[0] for value in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-8)


def test_ssim_of_a_picture_with_itself_is_one_and_falls_with_noise() -> None:
    x = torch.rand(1, 3, 16, 16)
    noisy = [image.ssim((x + s * torch.randn(x.shape)).clamp(0, 1), x).item() for s in (0.0, 0.1, 0.4)]
    assert noisy[0] == pytest.approx(1)
    assert noisy[0] > noisy[1] > noisy[2]


def test_psnr_of_the_mean_mse_is_that_of_the_cem_tables() -> None:
    assert image.psnr(torch.tensor(0.0293)).item() == pytest.approx(15.33, abs=5e-3)


def test_mse_is_a_number_a_picture() -> None:
    x, y = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    expected = [((a - b) ** 2).mean() for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert image.mse(x, y).tolist() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=30))
def test_the_psnr_of_the_mean_is_at_most_the_mean_psnr(errors: list[float]) -> None:
    mse = torch.tensor(errors, dtype=torch.float64)
    assert image.psnr(mse.mean()).item() <= image.psnr(mse).mean().item() + 1e-9


def test_the_error_of_a_region_is_that_of_its_pixels() -> None:
    stream = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 3, 6, 7, generator=stream), torch.rand(5, 3, 6, 7, generator=stream)
    boxes = torch.tensor([[1, 2, 4, 5], [0, 0, 6, 7], [3, 3, 3, 6], [-2, 5, 2, 99], [5, 6, 6, 7]])
    assert_regions(y, x, boxes)
    assert_regions(y[:2], x[:2], boxes[1:3])
    sides = [len(side) for side in image.region_mse(y, x, boxes)]
    assert sides == [4, 4]  # the third box is empty, the second is the picture


def assert_regions(x_hat: torch.Tensor, x: torch.Tensor, boxes: torch.Tensor) -> None:
    inside, outside = image.region_mse(x_hat, x, boxes)
    expected = [slow_region_mse(*pair, box) for *pair, box in zip(x_hat.numpy(), x.numpy(), boxes.tolist(), strict=True)]
    assert inside.tolist() == pytest.approx([within for within, _ in expected if within is not None], rel=1e-5)
    assert outside.tolist() == pytest.approx([beside for _, beside in expected if beside is not None], rel=1e-5)


def test_a_region_needs_pictures_of_one_shape() -> None:
    with pytest.raises(DataError, match=r"expected reconstructions of shape \(1, 1, 8, 8\), found \(1, 1, 8, 9\)"):
        image.region_mse(torch.rand(1, 1, 8, 9), torch.rand(1, 1, 8, 8), torch.zeros(1, 4, dtype=torch.int64))


@pytest.mark.parametrize("metric", [image.mse, image.ssim, image.lpips])
def test_shapes_must_agree(metric: object) -> None:
    with pytest.raises(DataError, match=r"expected reconstructions of shape \(1, 1, 8, 8\), found \(1, 1, 8, 9\)"):
        metric(torch.rand(1, 1, 8, 9), torch.rand(1, 1, 8, 8))


def test_ssim_says_that_pictures_are_too_small() -> None:
    with pytest.raises(DataError, match="at least 6x6"):
        image.ssim(torch.rand(1, 1, 5, 8), torch.rand(1, 1, 5, 8))


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    stream = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        found = mean_interval(torch.randn(100, generator=stream), stream)
        assert found.low <= found.value <= found.high
        covered += found.low <= 0 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    found = mean_interval(values, torch.Generator().manual_seed(1))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std().item() / math.sqrt(1000), rel=0.1)


def test_the_interval_of_psnr_is_that_of_the_mean_mse() -> None:
    errors = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 0.1
    a, b = mean_interval(errors, torch.Generator().manual_seed(1)), psnr_interval(errors, torch.Generator().manual_seed(1))
    assert b.value == pytest.approx(-10 * math.log10(a.value))
    assert (b.low, b.high) == pytest.approx((-10 * math.log10(a.high), -10 * math.log10(a.low)), abs=0.02)


def test_hits_are_the_highest_logits() -> None:
    assert hits(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])).tolist() == [1.0, 0.0]
