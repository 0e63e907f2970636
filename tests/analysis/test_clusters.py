# SPDX-License-Identifier: Apache-2.0
"""k-means and the loss of the CEM release, against slow literal NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.analysis.clusters import ClassClusters, cluster_classes, hinged_variance, lloyd, seed_means
from sfumato.seeds import ambient


def blobs(classes: int = 3, per_class: int = 40, dimensions: int = 5) -> tuple[Tensor, Tensor]:
    """Two blobs for each class."""
    stream = torch.Generator().manual_seed(0)
    y = torch.arange(classes * per_class) % classes
    half = torch.arange(classes * per_class) // classes % 2
    middle = 4 * torch.randn(classes, 2, dimensions, generator=stream, dtype=torch.float64)
    return middle[y, half] + 0.3 * torch.randn(len(y), dimensions, generator=stream, dtype=torch.float64), y


def clustered(z: Tensor, y: Tensor, k: int = 2) -> ClassClusters:
    with ambient(0, "test"):
        means = torch.stack([seed_means(z[y == number], k, power=1) for number in range(int(y.max()) + 1)])
    return cluster_classes(z, y, means)


def test_seeds_are_different_rows_that_lie_apart() -> None:
    z, y = blobs(classes=1)
    half = torch.arange(len(z)) % 2
    with ambient(0, "test"):
        means = seed_means(z, 2)
    own = [int((z == mean).all(1).nonzero()[0]) for mean in means]
    assert half[own[0]] != half[own[1]]
    assert len(y) == len(z)


def test_seeds_of_rows_that_are_all_the_same_are_that_row() -> None:
    with ambient(0, "test"):
        assert seed_means(torch.ones(5, 2), 3).equal(torch.ones(3, 2))


def test_lloyd_ends_at_a_fixed_point_and_keeps_a_mean_without_rows() -> None:
    z, _ = blobs()
    start = torch.cat([z[:4], torch.full((1, z.shape[1]), 1e3, dtype=z.dtype)])
    means, own = lloyd(z, start, iterations=50)
    assert means[4].equal(start[4])
    for number in range(4):
        assert torch.allclose(means[number], z[own == number].mean(0))
    assert torch.equal(own, torch.cdist(z, means).argmin(1))


def test_clusters_of_a_class_are_its_blobs() -> None:
    z, y = blobs()
    found = clustered(z, y)
    assert torch.allclose(found.weights, torch.full((3, 2), 0.5, dtype=found.weights.dtype))
    for number in range(3):
        rows = z[y == number]
        own = torch.cdist(rows, found.means[number]).argmin(1)
        for cluster in range(2):
            expected = (rows[own == cluster] - found.means[number, cluster]).square().mean()
            assert found.variances[number, cluster].item() == pytest.approx(expected.item())


def literal(found: ClassClusters, z: np.ndarray, y: np.ndarray, floor: float) -> float:
    """The released loss: a loop over classes and clusters."""
    classes, k, _ = found.means.shape
    losses = []
    for c in range(classes):
        rows = z[y == c]
        if not len(rows):
            continue
        means, loss = found.means[c].numpy(), 0.0
        own = np.array([np.argmin(((row - means) ** 2).sum(1)) for row in rows])
        for j in range(k):
            part = rows[own == j]
            if not len(part):
                continue
            batch = ((part - means[j]) ** 2).mean()
            w = found.weights[c, j].item()
            a = min(10 * len(part) / (w * found.pictures / classes), 0.99)
            v = a * batch + (1 - a) * found.variances[c, j].item()
            loss += w * max(math.log(v + 0.01) - math.log(floor + 0.01), 0.0)
        losses.append(loss)
    return float(np.mean(losses))


@pytest.mark.parametrize("floor", [0.0, 0.05, 1e3])
def test_the_released_loss_and_its_gradient(floor: float) -> None:
    z, y = blobs()
    found = clustered(z, y)
    batch = z[:14].clone().requires_grad_()
    labels = y[:14].clone()
    labels[labels == 2] = 1  # a class that is not in the batch
    loss = hinged_variance(found, batch, labels, floor=floor)
    start = batch.detach().numpy()
    assert loss.item() == pytest.approx(literal(found, start, labels.numpy(), floor), rel=1e-9, abs=1e-12)
    loss.backward()
    assert batch.grad is not None
    for place in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-6
        values = [literal(found, start + sign * step, labels.numpy(), floor) for sign in (1, -1)]
        assert batch.grad[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)
    assert (batch.grad.abs().sum().item() == 0) == (floor == 1e3)
