# SPDX-License-Identifier: Apache-2.0
"""A Gaussian mixture over features: its statistics from streamed moments, and the bound on I(z; z_hat) that it gives.

Source: xia2025cem, Theorem 2 and section 4; ledoit2004shrinkage (the shrunk covariance).
Equations: (3), the subtracted sum -> information; (5), (6), (7) -> entropy_loss; Ledoit-Wolf (14) -> Moments.mixture.
Departures: a row belongs to the component with the nearest mean (line 9 of Algorithm 1), in the fit too. The sum of Eq. 3 bounds
H(z) for any division of the rows by a function of z_hat, since H(z) <= H(j) + H(z|j) and a Gaussian has the most entropy of its
covariance, so that the bound does not need the features to be a mixture of Gaussians. (5) and (6) are applied to the mixture of
the last epoch for each batch by itself; the moments gather all batches exactly at the end of the epoch.

The determinant of (7) is that of one matrix plus the few rows of the batch. With Sigma = V diag(l) V^T known for each component,

    log|(1-a) Sigma + s^2 I + (a/n) D^T D| = sum log((1-a) l + s^2) + log|I_n + (a/n) D V diag(1/((1-a) l + s^2)) V^T D^T|

costs n D^2 for the n rows of the batch and not D^3. The small matrices of all components are blocks of one matrix of the size of
the batch, so that one Cholesky factor has every determinant on its diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Covariance = Literal["full", "shrunk", "diagonal"]
"""Of a component: the sample covariance, the same shrunk to a multiple of the identity (Ledoit-Wolf), or its diagonal."""

FLUSH = 1024
"""Rows that are gathered before they enter the second moments: a product with few rows reads more memory than it computes."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of k Gaussians in D dimensions, each covariance by its eigenvalues and eigenvectors.

    Attributes:
        weights: (k,), sums to 1.
        means: (k, D).
        values: eigenvalues, (k, D), at least 0; of a diagonal covariance the variances.
        vectors: eigenvectors in columns, (k, D, D), or None where the covariances are diagonal.
    """

    weights: Tensor
    means: Tensor
    values: Tensor
    vectors: Tensor | None


def nearest(z: Tensor, means: Tensor) -> Tensor:
    """Return the number of the nearest of k means, (k, D), for each row of z, (N, D): (N,), int64."""
    number: Tensor = torch.cdist(z, means).argmin(1)
    return number


class Moments:
    """Count, sum and second moment of the rows of each component, gathered batch by batch.

    Second moments are taken about fixed centers, so that float32 keeps its digits.

    Args:
        centers: where each component was, (k, D).
        diagonal: gather the diagonals of the second moments only.
    """

    def __init__(self, centers: Tensor, *, diagonal: bool = False) -> None:
        k, dimensions = centers.shape
        self.centers = centers
        self.diagonal = diagonal
        self.counts = centers.new_zeros(k)
        self.sums = torch.zeros_like(centers)
        self.seconds = centers.new_zeros((k, dimensions) if diagonal else (k, dimensions, dimensions))
        self._squares = centers.new_zeros(k)  # sum of |d|^4, d = z - center: the shrinkage needs it
        self._cubes = torch.zeros_like(centers)  # sum of |d|^2 d
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, z: Tensor, component: Tensor) -> None:
        """Take rows in.

        Args:
            z: (n, D), without gradient.
            component: of each row, (n,), int64.
        """
        self._waiting.append((z - self.centers[component], component))
        if sum(len(rows) for rows, _ in self._waiting) >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Enter the rows that wait."""
        if not self._waiting:
            return
        rows, component = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        counts = torch.bincount(component, minlength=len(self.counts))
        lengths = rows.square().sum(1)
        self.counts += counts
        self.sums.index_add_(0, component, rows)
        self._squares.index_add_(0, component, lengths.square())
        self._cubes.index_add_(0, component, rows * lengths[:, None])
        if self.diagonal:
            self.seconds.index_add_(0, component, rows.square())
            return
        order = component.argsort()
        for number, part in enumerate(rows[order].split(counts.tolist())):
            if len(part):
                self.seconds[number].addmm_(part.T, part)

    def overflowed(self) -> list[int]:
        """Return the components whose moments are not finite, of which no mixture can be made."""
        self.flush()
        return (~self.seconds.flatten(1).isfinite()).any(1).nonzero()[:, 0].tolist()

    def mixture(self, covariance: Covariance) -> Mixture:
        """Return the mixture of the rows so far; a component without rows has weight 0, its center and no spread.

        Args:
            covariance: how covariances are estimated; "diagonal" only where diagonals were gathered.
        """
        self.flush()
        n = self.counts.clamp_min(1)[:, None]
        shift = self.sums / n
        weights, means = self.counts / self.counts.sum().clamp_min(1), self.centers + shift
        if self.diagonal:
            return Mixture(weights, means, (self.seconds / n - shift.square()).clamp_min(0), None)
        spread = self.seconds / n[..., None] - shift[:, :, None] * shift[:, None]
        values, vectors = torch.linalg.eigh(spread)
        found = Mixture(weights, means, values.clamp_min(0), vectors)
        return self.shrunk(found) if covariance == "shrunk" else found

    def shrunk(self, mixture: Mixture) -> Mixture:
        """Return the mixture that `mixture("full")` returned with its covariances shrunk, without another decomposition."""
        amount = self._shrinkage(mixture.means - self.centers, mixture.values)[:, None]
        return replace(mixture, values=(1 - amount) * mixture.values + amount * mixture.values.mean(1, keepdim=True))

    def _shrinkage(self, shift: Tensor, values: Tensor) -> Tensor:
        """Return how much of each covariance the identity takes, (k,), [0, 1]: Ledoit-Wolf (14), exactly, from the moments."""
        n, e = self.counts.clamp_min(1), shift.square().sum(1)
        bent = (self.seconds @ shift[..., None])[..., 0]
        about_center = torch.diagonal(self.seconds, dim1=1, dim2=2).sum(1)
        # sum of |d - shift|^4, by the binomial of |d|^2 - 2 d.shift + |shift|^2
        fourth = (
            self._squares
            + 4 * (bent * shift).sum(1)
            + n * e.square()
            - 4 * (self._cubes * shift).sum(1)
            + 2 * about_center * e
            - 4 * n * e.square()
        )
        size = values.square().sum(1)
        scatter = size - values.sum(1).square() / values.shape[1]
        noise = (fourth / n - size) / n
        return torch.where(scatter > 0, (noise / scatter.clamp_min(1e-30)).clamp(0, 1), torch.ones_like(scatter))


def split_largest(mixture: Mixture, *, groups: int = 1) -> Mixture:
    """Give each component without rows half of the largest one of its group, a standard deviation apart.

    The largest is cut across its widest direction, so that no rows are needed to seed a component again.

    Args:
        mixture: with weights of 0.
        groups: how many equal runs of components do not mix.

    Returns:
        The mixture; the same one where no weight is 0.

    Example:
        >>> mixture = Mixture(torch.tensor([1.0, 0.0]), torch.zeros(2, 1), torch.tensor([[4.0], [0.0]]), None)
        >>> halves = split_largest(mixture)
        >>> halves.weights.tolist(), halves.means.flatten().tolist()
        ([0.5, 0.5], [1.0, -1.0])
    """
    empty = (mixture.weights == 0).nonzero()[:, 0].tolist()
    if not empty:
        return mixture
    weights, means, values = mixture.weights.clone(), mixture.means.clone(), mixture.values.clone()
    vectors = None if mixture.vectors is None else mixture.vectors.clone()
    run = len(weights) // groups
    for number in empty:
        start = number // run * run
        largest = start + int(weights[start : start + run].argmax())
        widest = int(values[largest].argmax())
        axis = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)[widest]
        step = values[largest, widest].sqrt() / 2 * (axis if vectors is None else vectors[largest, :, widest])
        weights[largest] /= 2
        weights[number], values[number] = weights[largest], values[largest]
        means[number] = means[largest] - step
        means[largest] += step
        if vectors is not None:
            vectors[number] = vectors[largest]
    return Mixture(weights, means, values, vectors)


def information(mixture: Mixture, noise_variance: float) -> Tensor:
    """Return the bound on I(z; z_hat), the sum that Eq. 3 subtracts from H(x).

    Args:
        mixture: of the clean features.
        noise_variance: sigma^2 of the Gaussian noise that is added to each element, > 0.

    Returns:
        A scalar, nats for one picture.

    Example:
        >>> one = Mixture(torch.ones(1), torch.zeros(1, 2), torch.full((1, 2), 3.0), None)
        >>> information(one, 1.0)  # two dimensions, log(4) / 2 each
        tensor(1.3863)
    """
    pi = mixture.weights
    logdet = (mixture.values / noise_variance).log1p().sum(1)
    return (-torch.xlogy(pi, pi) + 0.5 * pi * logdet).sum()  # Eq. (3)


def entropy_loss(mixture: Mixture, z: Tensor, component: Tensor, *, noise_variance: float, total: int) -> Tensor:
    """Return L_C of one batch; the gradient flows through the batch's covariance to z, and not into the mixture.

    Args:
        mixture: of the clean features of the last epoch.
        z: clean features, (B, D), float32 or float64, with gradient.
        component: that each row belongs to, (B,), int64.
        noise_variance: sigma^2, > 0.
        total: how many pictures the data set has, N.

    Returns:
        A scalar, nats for one picture, as Eq. 7 is written: it grows with D.

    Example:
        >>> mixture = Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1, 2), torch.eye(2)[None])
        >>> z = torch.ones(4, 2, requires_grad=True)
        >>> entropy_loss(mixture, z, torch.zeros(4, dtype=torch.int64), noise_variance=1.0, total=8)  # log(2 * 2 - 0.5 * 0.5) / 2
        tensor(0.6609, grad_fn=<AddBackward0>)
    """
    counts = torch.bincount(component, minlength=len(mixture.weights)).to(z.dtype)
    pi = (mixture.weights * (total - len(z)) + counts) / total  # Eq. (5)
    alpha = counts / (pi * total).clamp_min(1e-12)
    kept = (1 - alpha)[:, None] * mixture.values
    if mixture.vectors is None:
        drawn = torch.zeros_like(kept).index_add(0, component, (z - mixture.means[component]).square())
        updated = kept + (alpha / counts.clamp_min(1))[:, None] * drawn  # Eq. (6)
        return (-torch.xlogy(pi, pi) + 0.5 * pi * (updated / noise_variance).log1p().sum(1)).sum()  # Eq. (7)
    order = component.argsort()
    place = component[order]
    rows = _rotated(z[order] - mixture.means[place], mixture.vectors, counts)
    scale = (alpha / counts.clamp_min(1))[:, None] / (kept + noise_variance)
    rows = rows * scale.sqrt()[place]
    blocks = (rows @ rows.T) * (place[:, None] == place) + torch.eye(len(z), dtype=z.dtype, device=z.device)
    factor = torch.linalg.cholesky_ex(blocks).L  # a z that is not finite gives a loss that is not, which the loop reports
    constant = -torch.xlogy(pi, pi) + 0.5 * pi * (kept / noise_variance).log1p().sum(1)
    loss: Tensor = constant.sum() + (pi[place] * factor.diagonal().log()).sum()  # Eq. (7)
    return loss


def _rotated(rows: Tensor, vectors: Tensor, counts: Tensor) -> Tensor:
    """Return rows, sorted by component, in the eigenvectors of their components."""
    sizes = [int(count) for count in counts.tolist()]
    return torch.cat([part @ vectors[number] for number, part in enumerate(rows.split(sizes)) if len(part)])
