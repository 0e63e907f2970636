# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from sfumato.errors import DataError
from sfumato.metrics.frechet import frechet_distance, gaussian_frechet, kernel_distance, shrunk_covariance


def drawn(count: int, length: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, length, generator=torch.Generator().manual_seed(seed))


def covariance(length: int, seed: int) -> Tensor:
    root = drawn(length, length, seed).double()
    return root @ root.T


@pytest.mark.parametrize("length", [1, 4, 9])
def test_the_distance_of_gaussians_is_that_of_the_matrix_square_root(length: int) -> None:
    first, second, mean, other = (
        covariance(length, 0),
        covariance(length, 1),
        drawn(1, length, 2)[0].double(),
        drawn(1, length, 3)[0].double(),
    )
    root = np.real(sqrtm(first.numpy() @ second.numpy()))
    slow = ((mean - other).numpy() ** 2).sum() + np.trace(first.numpy() + second.numpy() - 2 * root)
    assert gaussian_frechet(mean, first, other, second) == pytest.approx(slow, rel=1e-8)


def test_gaussians_of_one_axis_have_the_known_distance() -> None:
    mean, variance = torch.tensor([1.0], dtype=torch.float64), torch.tensor([[9.0]], dtype=torch.float64)
    assert gaussian_frechet(mean, variance, mean + 2, 4 * variance) == pytest.approx(2**2 + (3 - 6) ** 2)


def test_a_covariance_without_full_rank_has_a_finite_distance() -> None:
    x = drawn(3, 8, 0).double()
    flat = x.T @ x / 3
    assert gaussian_frechet(x[0], flat, x[0], flat) == pytest.approx(0, abs=1e-6)
    assert gaussian_frechet(x[0], flat, x[0], torch.zeros_like(flat)) == pytest.approx(flat.trace().item())


@pytest.mark.parametrize(("count", "length"), [(5, 12), (40, 6), (300, 3)])
def test_the_covariance_is_shrunk_as_much_as_elsewhere(count: int, length: int) -> None:
    x = drawn(count, length, 0) @ torch.diag(torch.arange(1.0, length + 1))
    assert shrunk_covariance(x).numpy() == pytest.approx(ledoit_wolf(x.double().numpy())[0], rel=1e-6)


def test_the_covariance_is_shrunk_by_the_scatter_of_its_terms() -> None:
    x = drawn(7, 3, 0).double().numpy()
    centered = x - x.mean(0)
    sample = sum(np.outer(row, row) for row in centered) / 7
    level = np.trace(sample) / 3
    noise = sum(((np.outer(row, row) - sample) ** 2).sum() for row in centered) / 7**2
    scatter = ((sample - level * np.eye(3)) ** 2).sum()
    slow = sample + min(noise, scatter) / scatter * (level * np.eye(3) - sample)
    assert shrunk_covariance(torch.from_numpy(x)).numpy() == pytest.approx(slow)


@pytest.mark.parametrize("count", [1, 4])
def test_rows_that_are_the_same_have_no_covariance(count: int) -> None:
    assert shrunk_covariance(torch.ones(count, 3)).abs().sum() == 0


def test_many_pictures_tell_the_distance_of_their_distributions() -> None:
    first, second = drawn(6000, 3, 0), 2 * drawn(6000, 3, 1) + torch.tensor([3.0, 0.0, 4.0])
    assert frechet_distance(first, second) == pytest.approx(25 + 3, rel=0.03)
    assert frechet_distance(first, drawn(6000, 3, 2)) < 0.01
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def kernel(first: np.ndarray, second: np.ndarray) -> float:
    return float((first @ second / len(first) + 1) ** 3)


def test_the_kernel_distance_is_that_of_a_sum_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.metrics.frechet._ROWS", 4)
    x, y = drawn(9, 5, 0), drawn(11, 5, 1, scale=1.5)
    a, b = x.double().numpy(), y.double().numpy()
    within = [np.mean([kernel(p, q) for i, p in enumerate(s) for j, q in enumerate(s) if i != j]) for s in (a, b)]
    slow = sum(within) - 2 * np.mean([kernel(p, q) for p in a for q in b])
    assert kernel_distance(x, y) == pytest.approx(slow)


def test_the_kernel_distance_of_one_distribution_is_about_0_and_below_it_half_of_the_time() -> None:
    found = [kernel_distance(drawn(200, 4, 2 * seed), drawn(150, 4, 2 * seed + 1)) for seed in range(60)]
    spread = np.std(found) / np.sqrt(60)
    assert abs(np.mean(found)) < 3 * spread
    assert 10 < sum(one < 0 for one in found) < 50
    assert kernel_distance(drawn(200, 4, 0), drawn(150, 4, 1) + 1) > 10 * np.std(found)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(("first", "second"), [((1, 3), (5, 3)), ((5, 3), (1, 3)), ((5, 3), (5, 4))])
def test_sets_without_a_distance_are_refused(distance: object, first: tuple[int, int], second: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="two sets of 2 pictures or more in one embedding, found"):
        distance(torch.zeros(first), torch.zeros(second))  # type: ignore[operator]
