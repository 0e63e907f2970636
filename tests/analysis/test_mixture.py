# SPDX-License-Identifier: Apache-2.0
"""Moments, mixtures and the loss of CEM against slow literal NumPy, one component and one row at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.analysis.mixture import (
    Mixture,
    Moments,
    entropy_loss,
    information,
    nearest,
    split_largest,
)

K, D = 3, 6


def rows(count: int = 90, dimensions: int = D, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows around K means, the means, and the mean that each row is nearest to; float64."""
    stream = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(K, dimensions, generator=stream, dtype=torch.float64)
    mix = torch.randn(dimensions, dimensions, generator=stream, dtype=torch.float64)
    z = means[torch.arange(count) % K] + 0.2 * torch.randn(count, dimensions, generator=stream, dtype=torch.float64) @ mix
    return z, means, nearest(z, means)


def fitted(covariance: str = "full", **given: int) -> tuple[Mixture, Tensor, Tensor]:
    z, means, component = rows(**given)
    moments = Moments(means, diagonal=covariance == "diagonal")
    for part, own in zip(z.split(20), component.split(20), strict=True):
        moments.add(part, own)
    return moments.mixture(covariance), z, component


def covariances(mixture: Mixture) -> list[np.ndarray]:
    if mixture.vectors is None:
        return [np.diag(v) for v in mixture.values.numpy()]
    return [v @ np.diag(w) @ v.T for v, w in zip(mixture.vectors.numpy(), mixture.values.numpy(), strict=True)]


def literal_loss(
    mixture: Mixture, z: np.ndarray, component: np.ndarray, sigma2: float, total: int, *, diagonal: bool = False
) -> float:
    """Eq. 5, 6 and 7, as they are printed."""
    noise, loss = sigma2 * np.eye(z.shape[1]), 0.0
    for j, sigma in enumerate(covariances(mixture)):
        own = z[component == j] - mixture.means[j].numpy()
        n = len(own)
        pi = (mixture.weights[j].item() * (total - len(z)) + n) / total  # Eq. (5)
        if n:
            delta = own.T @ own / n
            share = n / (pi * total)
            sigma = (1 - share) * sigma + share * (np.diag(np.diag(delta)) if diagonal else delta)  # Eq. (6)
        ratio = np.linalg.slogdet(sigma + noise)[1] - np.linalg.slogdet(noise)[1]
        loss += pi * (-math.log(pi) + 0.5 * ratio)  # Eq. (7)
    return loss


@pytest.mark.parametrize("flush", [1, 1024])
def test_streamed_moments_give_the_statistics_of_all_rows(flush: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.analysis.mixture.FLUSH", flush)
    mixture, z, component = fitted()
    for j, sigma in enumerate(covariances(mixture)):
        own = z[component == j].numpy()
        assert mixture.weights[j].item() == pytest.approx(len(own) / len(z))
        assert np.allclose(mixture.means[j], own.mean(0))
        assert np.allclose(sigma, np.cov(own.T, bias=True))


def test_diagonal_moments_are_the_diagonals_of_the_full_ones() -> None:
    full, diagonal = fitted("full")[0], fitted("diagonal")[0]
    assert diagonal.vectors is None
    for a, b in zip(covariances(full), covariances(diagonal), strict=True):
        assert np.allclose(np.diag(a), np.diag(b))


@pytest.mark.parametrize("count", [12, 90])
def test_the_shrunk_covariance_is_that_of_scikit_learn(count: int) -> None:
    reference = pytest.importorskip("sklearn.covariance")
    mixture, z, component = fitted("shrunk", count=count)
    for j, sigma in enumerate(covariances(mixture)):
        expected, amount = reference.ledoit_wolf(z[component == j].numpy())
        assert 0 < amount < 1
        assert np.allclose(sigma, expected)


@pytest.mark.parametrize("covariance", ["full", "shrunk", "diagonal"])
@pytest.mark.parametrize("batch", [2, 17])
def test_the_loss_and_its_gradient_are_those_of_the_paper(covariance: str, batch: int) -> None:
    mixture, z, component = fitted(covariance)
    sigma2, total = 0.03, 500
    x = z[:batch].clone().requires_grad_()
    loss = entropy_loss(mixture, x, component[:batch], noise_variance=sigma2, total=total)
    loss.backward()

    def literal(value: np.ndarray) -> float:
        return literal_loss(mixture, value, component[:batch].numpy(), sigma2, total, diagonal=mixture.vectors is None)

    start = z[:batch].numpy()
    assert loss.item() == pytest.approx(literal(start), rel=1e-10)
    assert x.grad is not None
    for place in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-5
        slope = (literal(start + step) - literal(start - step)) / 2e-5
        assert x.grad[place].item() == pytest.approx(slope, abs=1e-6)


def test_the_gradient_in_float32_is_that_of_float64() -> None:
    mixture, z, component = fitted()
    narrow = Mixture(*(value.float() for value in vars(mixture).values()))
    slopes = []
    for made, x in ((mixture, z[:32].clone()), (narrow, z[:32].float())):
        x.requires_grad_()
        entropy_loss(made, x, component[:32], noise_variance=0.01, total=90).backward()
        assert x.grad is not None
        slopes.append(x.grad.double())
    assert (slopes[0] - slopes[1]).abs().max() < 1e-6 * max(1.0, slopes[0].abs().max().item())


def test_the_bound_is_eq_3() -> None:
    mixture = fitted()[0]
    sigma2 = 0.05
    expected = sum(
        pi * (-math.log(pi) + 0.5 * (np.linalg.slogdet(sigma + sigma2 * np.eye(D))[1] - D * math.log(sigma2)))
        for pi, sigma in zip(mixture.weights.tolist(), covariances(mixture), strict=True)
    )
    assert information(mixture, sigma2).item() == pytest.approx(expected, rel=1e-10)


def test_one_gaussian_is_bounded_by_its_own_information() -> None:
    """For z_hat Gaussian, I(z; z_hat) is known, and one component meets it."""
    one = Mixture(torch.ones(1), torch.zeros(1, 2), torch.tensor([[3.0, 0.5]]), torch.eye(2)[None])
    assert information(one, 0.1).item() == pytest.approx(0.5 * (math.log(1 + 3 / 0.1) + math.log(1 + 0.5 / 0.1)))


def test_an_empty_component_gets_half_of_the_largest_of_its_group() -> None:
    z, means, component = rows()
    far = torch.full((1, D), 1e3, dtype=z.dtype)
    moments = Moments(torch.cat([means, far]))
    moments.add(z, component)
    mixture = moments.mixture("full")
    assert mixture.weights[K] == 0
    largest = int(mixture.weights.argmax())
    whole = split_largest(mixture)
    assert whole.weights.sum().item() == pytest.approx(1.0)
    assert whole.weights[K].item() == pytest.approx(mixture.weights[largest].item() / 2)
    apart = whole.means[largest] - whole.means[K]
    assert apart.norm().item() == pytest.approx(mixture.values[largest].max().sqrt().item())
    assert torch.allclose((whole.means[largest] + whole.means[K]) / 2, mixture.means[largest])
    grouped = split_largest(mixture, groups=2)
    assert grouped.weights[2] == grouped.weights[3]  # of the second half of the components, whatever the first half has
    assert torch.equal(grouped.weights[:2], mixture.weights[:2])


def test_moments_that_are_not_finite_are_named() -> None:
    moments = Moments(torch.zeros(2, 3))
    moments.add(torch.full((4, 3), 1e30), torch.tensor([1, 1, 1, 1]))
    assert moments.overflowed() == [1]
