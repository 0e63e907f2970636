# SPDX-License-Identifier: Apache-2.0
"""k-means over features, and the loss that the CEM release computes on its clusters.

Source: arthur2007kmeans (seeding); xia2025cem, released code (`mode="reference"` of the defense), which is not its paper.
Equations: released code, no numbers in the paper -> hinged_variance.
Departures: a cluster that is empty keeps its place and its number; the release stores the others compacted and then reads them by
the old numbers. The release counts the pictures as batches times 128; here they are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def seed_means(z: Tensor, k: int, *, power: int = 2) -> Tensor:
    """Choose k rows of z that lie far apart (k-means++). Draws from the ambient stream.

    Args:
        z: (N, D), float, N >= 1.
        k: how many.
        power: a row is drawn with the probability of its distance to the chosen ones to this power: 2, or 1 as the release.

    Returns:
        (k, D). Where z has fewer than k different rows, some are there twice.

    Example:
        >>> means = seed_means(torch.tensor([[0.0], [0.0], [9.0]]), 2)
        >>> sorted(means.flatten().tolist())
        [0.0, 9.0]
    """
    chosen = [z[torch.randint(len(z), (1,), device=z.device)][0]]
    nearest = (z - chosen[0]).square().sum(1)
    while len(chosen) < k:
        odds = nearest if power == 2 else nearest.sqrt()
        total = odds.sum()  # 0 where all rows are the same, infinite where they are too large for float32
        drawn = torch.multinomial(torch.where((total > 0) & total.isfinite(), odds, torch.ones_like(odds)), 1)
        chosen.append(z[drawn][0])
        nearest = torch.minimum(nearest, (z - chosen[-1]).square().sum(1))
    return torch.stack(chosen)


def lloyd(z: Tensor, means: Tensor, *, iterations: int) -> tuple[Tensor, Tensor]:
    """Move means to the middle of the rows that are nearest to them, until no row changes its mean.

    Args:
        z: (N, D), float.
        means: (k, D); one that no row is nearest to stays.
        iterations: at most.

    Returns:
        Means, (k, D), and the number of the nearest one for each row, (N,), int64.
    """
    nearest = torch.cdist(z, means).argmin(1)
    for _ in range(iterations):
        counts = torch.bincount(nearest, minlength=len(means))[:, None]
        sums = torch.zeros_like(means).index_add_(0, nearest, z)
        means = torch.where(counts > 0, sums / counts.clamp_min(1), means)
        moved = torch.cdist(z, means).argmin(1)
        if moved.equal(nearest):
            break
        nearest = moved
    return means, nearest


@dataclass(frozen=True)
class ClassClusters:
    """Clusters of the features of each class.

    Attributes:
        means: (classes, k, D).
        weights: share of each cluster in its class, (classes, k); sums to 1.
        variances: mean over rows and dimensions of the squared distance to the mean, (classes, k).
        pictures: how many pictures they were made of.
    """

    means: Tensor
    weights: Tensor
    variances: Tensor
    pictures: int


def cluster_classes(z: Tensor, y: Tensor, means: Tensor, *, iterations: int = 50) -> ClassClusters:
    """Cluster each class by itself, from given means.

    Args:
        z: (N, D), float.
        y: class numbers, (N,), int64; every class is there.
        means: to start from, (classes, k, D).
        iterations: at most.
    """
    moved, weights, variances = [], [], []
    for number, start in enumerate(means):
        rows = z[y == number]
        middle, nearest = lloyd(rows, start, iterations=iterations)
        counts = torch.bincount(nearest, minlength=len(start))
        spread = (rows - middle[nearest]).square().mean(1)
        sums = torch.zeros(len(start), dtype=z.dtype, device=z.device).index_add_(0, nearest, spread)
        moved.append(middle)
        weights.append(counts.to(z.dtype) / len(rows))
        variances.append(sums / counts.clamp_min(1))
    return ClassClusters(torch.stack(moved), torch.stack(weights), torch.stack(variances), len(z))


def hinged_variance(clusters: ClassClusters, z: Tensor, y: Tensor, *, floor: float) -> Tensor:
    """Return the loss of the CEM release on one batch.

    With v_b the scalar variance of the batch's rows in a cluster about the stored mean, v the stored one, w the cluster's share
    and a = min(10 n / (w N / classes), 0.99):  sum_j w relu(log(a v_b + (1 - a) v + 0.01) - log(floor + 0.01)), mean over the
    classes of the batch. Each row belongs to the nearest mean of its own class.

    Args:
        clusters: of the last epoch.
        z: clean features, (B, D), with gradient.
        y: class numbers, (B,), int64.
        floor: variance below which a cluster costs nothing.

    Returns:
        A scalar.
    """
    classes, k, dimensions = clusters.means.shape
    own = clusters.means[y]
    with torch.no_grad():
        place = y * k + (z[:, None] - own).square().sum(2).argmin(1)
        counts = torch.bincount(place, minlength=classes * k)
    spread = (z - clusters.means.reshape(-1, dimensions)[place]).square().mean(1)
    batch = torch.zeros(classes * k, dtype=z.dtype, device=z.device).index_add(0, place, spread) / counts.clamp_min(1)
    weights, stored = clusters.weights.flatten(), clusters.variances.flatten()
    share = (10 * counts / (weights * clusters.pictures / classes).clamp_min(1e-12)).clamp_max(0.99)
    variance = share * batch + (1 - share) * stored
    hinge = ((variance + 0.01).log() - torch.log(variance.new_tensor(floor + 0.01))).relu()
    present = counts > 0
    total = (weights * hinge * present).sum()
    return total / (counts.reshape(classes, k).sum(1) > 0).sum()
