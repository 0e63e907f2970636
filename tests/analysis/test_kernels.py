# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.analysis.kernels import LEAST, centered, coco, gaussian_kernel, gaussian_kernels, hsic, linear_kernel, nocco
from sfumato.errors import DataError

Measure = Callable[[Tensor, Tensor], Tensor]
MEASURES = {"hsic": hsic, "nocco": nocco, "coco": coco}


def slow_gaussian(samples: np.ndarray, sigma: float) -> np.ndarray:
    """The kernel, pair by pair."""
    m, d = samples.shape
    kernel = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            squared = sum((samples[i, k] - samples[j, k]) ** 2 for k in range(d))
            kernel[i, j] = math.exp(-squared / (2 * sigma**2 * d))
    return kernel


def slow(name: str, k: np.ndarray, other: np.ndarray) -> float:
    """The measures as the release computes them."""
    m = len(k)
    h = np.eye(m) - np.ones((m, m)) / m
    if name == "hsic":
        return float(np.trace(k @ h @ other @ h)) / (m - 1) ** 2
    if name == "coco":
        return math.sqrt(math.sqrt(((h @ k @ h @ h @ other @ h) ** 2).sum())) / m
    r, s = (kernel @ h @ np.linalg.inv(kernel @ h + 1e-5 * m * np.eye(m)) for kernel in (k, other))
    return float((r * s.T).sum())


def pairs(m: int = 12) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    a = torch.rand(m, 2, 3, generator=stream, dtype=torch.float64)
    return a, a.flatten(1)[:, :4].sin() + 0.5 * torch.rand(m, 4, generator=stream, dtype=torch.float64)


def published(m: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, features that have nothing to do with them, and 40 classes, in the sizes of a network for 3x32x32 pictures."""
    stream = torch.Generator().manual_seed(0)
    x, z = torch.rand(m, 3072, generator=stream), torch.randn(m, 512, generator=stream)
    return x.double(), z.double(), F.one_hot(torch.randint(40, (m,), generator=stream), 40).double()


@pytest.mark.parametrize("sigma", [0.7, 5.0])
def test_the_gaussian_kernel_is_its_definition(sigma: float) -> None:
    a, _ = pairs()
    expected = slow_gaussian(a.flatten(1).numpy(), sigma)
    assert expected.min() < 0.995
    np.testing.assert_allclose(gaussian_kernel(a, sigma).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(gaussian_kernel(a.float() + 100, sigma).numpy(), expected, rtol=1e-4)  # float32, far from 0


def test_kernels_of_several_sets_are_those_of_each() -> None:
    a, b = pairs()
    together = gaussian_kernels([a, b], 5.0)
    assert torch.equal(together, torch.stack([gaussian_kernel(a, 5.0), gaussian_kernel(b, 5.0)]))


def test_the_layout_in_memory_changes_nothing() -> None:
    z = torch.rand(6, 3, 4, 4, dtype=torch.float64)
    other = z.to(memory_format=torch.channels_last)
    torch.testing.assert_close(gaussian_kernel(other, 0.5), gaussian_kernel(z, 0.5))
    torch.testing.assert_close(linear_kernel(other), linear_kernel(z))
    assert torch.autograd.gradcheck(lambda samples: hsic(gaussian_kernel(samples, 0.5), linear_kernel(z)), other.requires_grad_())


def test_the_linear_kernel_says_which_labels_are_the_same() -> None:
    y = torch.tensor([0, 2, 0, 1])
    assert torch.equal(linear_kernel(F.one_hot(y, 3).float()), (y[:, None] == y).double())


def test_centered_kernels_are_those_of_centered_samples() -> None:
    a, _ = pairs()
    flat = a.flatten(1)
    torch.testing.assert_close(centered(linear_kernel(a)), linear_kernel(flat - flat.mean(0)))
    h = torch.eye(12, dtype=torch.float64) - 1 / 12
    torch.testing.assert_close(centered(flat @ flat.T), h @ flat @ flat.T @ h)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("label", [False, True])
def test_a_measure_is_its_definition(name: str, label: bool) -> None:
    a, b = pairs()
    first = gaussian_kernel(a, 0.5)
    second = linear_kernel(F.one_hot(torch.arange(12) % 5, 5).double()) if label else gaussian_kernel(b, 5.0)
    expected = slow(name, first.numpy(), second.numpy())
    assert expected > 1e-4
    assert MEASURES[name](first, second).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("measure", MEASURES.values())
def test_leading_dimensions_are_broadcast(measure: Measure) -> None:
    a, b = pairs()
    left, right = gaussian_kernels([a, b], 5.0), gaussian_kernels([b, a, a + b[:, :3, None].mT], 5.0)
    every = measure(left[:, None], right)
    assert every.shape == (2, 3)
    torch.testing.assert_close(every[1, 2], measure(left[1], right[2]))


@pytest.mark.parametrize("measure", MEASURES.values())
def test_gradients_are_those_of_finite_differences(measure: Measure) -> None:
    a, b = pairs(6)
    fixed = gaussian_kernel(a, 0.5)
    assert torch.autograd.gradcheck(lambda z: measure(gaussian_kernel(z, 0.5), fixed) * 1e2, b.requires_grad_())


@pytest.mark.parametrize("measure", MEASURES.values())
class TestEveryMeasure:
    def test_pairs_may_come_in_any_order_and_either_set_first(self, measure: Measure) -> None:
        a, b = pairs()
        order = torch.randperm(12)
        k, other = gaussian_kernel(a, 0.5), gaussian_kernel(b, 0.5)
        value = measure(k, other).item()
        assert measure(gaussian_kernel(a[order], 0.5), gaussian_kernel(b[order], 0.5)).item() == pytest.approx(value, rel=1e-9)
        assert measure(other, k).item() == pytest.approx(value, rel=1e-9)
        turn = torch.linalg.qr(torch.rand(4, 4, dtype=torch.float64)).Q
        assert measure(k, gaussian_kernel(b @ turn + 3, 0.5)).item() == pytest.approx(value, rel=1e-9)

    def test_samples_that_are_all_the_same_depend_on_nothing(self, measure: Measure) -> None:
        a, _ = pairs()
        z = torch.full((12, 3), 0.3, dtype=torch.float64, requires_grad=True)
        found = measure(gaussian_kernel(z, 5.0), gaussian_kernel(a, 5.0))
        found.backward()
        assert found.item() == pytest.approx(0, abs=1e-12)
        assert z.grad is not None
        assert z.grad.isfinite().all()

    def test_labels_of_one_class_say_nothing(self, measure: Measure) -> None:
        a, _ = pairs()
        assert measure(gaussian_kernel(a, 5.0), linear_kernel(torch.eye(3)[[1] * 12])).item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("m", [2, 3, 4])
    def test_how_samples_are_paired_shows_from_three_on(self, measure: Measure, m: int) -> None:
        a, b = pairs(m)
        k, other = gaussian_kernel(a, 5.0), gaussian_kernel(b, 5.0)
        swapped = torch.tensor([1, 0, 2, 3][:m])
        change = abs(measure(k, other[swapped][:, swapped]).item() / measure(k, other).item() - 1)
        assert (change > 1e-5) == (m >= LEAST)

    def test_autocast_changes_nothing_but_what_the_features_are(self, measure: Measure) -> None:
        a, b = (samples.bfloat16() for samples in pairs())
        with torch.autocast("cpu", torch.bfloat16):
            found = measure(gaussian_kernel(a, 5.0), gaussian_kernel(b, 5.0))
        assert found.item() == measure(gaussian_kernel(a.float(), 5.0), gaussian_kernel(b.float(), 5.0)).item()
        assert found.dtype == torch.float64

    def test_kernels_of_other_samples_are_refused(self, measure: Measure) -> None:
        with pytest.raises(DataError, match=r"as many samples, found \(3, 3\) and \(4, 4\); pass them in pairs"):
            measure(torch.eye(3), torch.eye(4))


def test_sets_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"as many samples, found \[3, 4\]; pass them in pairs"):
        gaussian_kernels([torch.rand(3, 2), torch.rand(4, 2)], 5.0)


def test_the_measures_have_the_values_that_published_code_gives() -> None:
    x, z, y = published()
    of_x, of_z = gaussian_kernels([x, z], 5.0)
    of_y = linear_kernel(y)
    assert of_x.mean().item() == pytest.approx(0.997, abs=5e-4)
    assert nocco(of_x, of_z).item() == pytest.approx(51.7, abs=0.2)
    assert nocco(of_x, of_x).item() == pytest.approx(44.1, abs=0.2)
    assert nocco(of_z, of_y).item() == pytest.approx(30.5, abs=3)
    assert coco(of_x, of_z).item() == pytest.approx(5.2e-4, abs=2e-5)
    assert coco(of_z, of_y).item() == pytest.approx(1.1e-2, abs=1e-3)


def test_the_normalized_form_falls_where_dependence_grows_and_hsic_does_not() -> None:
    stream = torch.Generator().manual_seed(0)
    factors, x, z, noise, grain = (
        torch.randn(size, generator=stream, dtype=torch.float64) for size in ((64, 8), (8, 3072), (8, 512), (64, 512), (64, 3072))
    )
    pictures = 0.5 + 0.15 * (factors @ x / math.sqrt(8) + 0.3 * grain)  # a few things that differ, and grain
    shown = factors @ z / math.sqrt(8)  # features that show these things alone, as wide as the noise
    mixed = [share * shown + math.sqrt(1 - share**2) * noise for share in (0.0, 0.3, 0.6, 0.9, 1.0)]
    k, others = gaussian_kernel(pictures, 5.0), gaussian_kernels(mixed, 5.0)
    normalized, plain, covariance = (measure(k, others).tolist() for measure in (nocco, hsic, coco))
    assert normalized[-1] < 0.8 * normalized[0]
    for grown in (plain, covariance):
        assert all(after > 1.05 * before for before, after in pairwise(grown))


@pytest.mark.gpu
@pytest.mark.parametrize("measure", MEASURES.values())
def test_nothing_waits_for_a_cuda_device(measure: Measure) -> None:
    x, z, y = (samples.to("cuda", torch.float32) for samples in published())
    z.requires_grad_()
    expected = measure(gaussian_kernel(x.cpu(), 5.0), gaussian_kernel(z.detach().cpu(), 5.0)).item()
    try:
        for mode in ("default", "error"):  # the first time, libraries are loaded
            torch.cuda.set_sync_debug_mode(mode)
            fixed = torch.stack([gaussian_kernel(x, 5.0), linear_kernel(y)])[:, None]
            found = measure(fixed, gaussian_kernels([z, z.square()], 5.0))
            found.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found[0, 0].item() == pytest.approx(expected, rel=1e-4)
