# SPDX-License-Identifier: Apache-2.0
"""How far two sets of embedded pictures are apart as distributions: the Fréchet distance and the kernel distance.

Source: heusel2017fid, Section 2 (FID); dowson1982frechet (the distance of two Gaussians); binkowski2018kid, Section 4 (KID);
ledoit2004shrinkage, Section 3.3 (the shrunk covariance).
Equations: heusel2017fid (6) -> gaussian_frechet; ledoit2004shrinkage (14) -> shrunk_covariance.
Departures: both are measured in the embedding that they are given, and not in that of an Inception network, so that they compare
with each other and not with published numbers. Covariances are shrunk, since with fewer pictures than features the sample
covariance has no full rank and the distance is mostly noise. The kernel distance is over all pictures at once, where
binkowski2018kid averages over blocks; it is unbiased either way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import DataError

_ROWS = 2048
"""Rows of a kernel matrix that are held at once."""


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return the Fréchet distance of Gaussians with the means and the shrunk covariances of two sets.

    With few pictures it is biased upwards: compare sets of about the same size.

    Args:
        first: embedded pictures, (N, E), float, N at least 2.
        second: likewise, (M, E), on the same device.

    Returns:
        Squared units of the embedding, at least 0.

    Raises:
        DataError: a set has fewer than 2 pictures, or the embeddings differ in length.

    Example:
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(x, x + torch.tensor([3.0, 0.0, 4.0])), 4)
        25.0
    """
    _require_sets(first, second)
    (mean, covariance), (other, another) = ((x.double().mean(0), shrunk_covariance(x)) for x in (first, second))
    return gaussian_frechet(mean, covariance, other, another)


def gaussian_frechet(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """Return the squared 2-Wasserstein distance of two Gaussians.

    Args:
        mean: of the first, (E,), float64.
        covariance: of the first, (E, E), symmetric, no eigenvalue below 0.
        other_mean: of the second.
        other_covariance: of the second.

    Returns:
        At least 0: what rounding takes below is 0.

    Example:
        >>> zero, one = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        >>> round(gaussian_frechet(zero, one, zero + 2, 4 * one), 9)
        10.0
    """
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    # The product of two covariances is not symmetric; this one is, and has the same eigenvalues.
    between = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp_min(0).sqrt().sum()
    traces = covariance.trace() + other_covariance.trace() - 2 * between
    distance: float = ((mean - other_mean).square().sum() + traces).item()  # Eq. (6)
    return max(0.0, distance)


def shrunk_covariance(x: Tensor) -> Tensor:
    """Return the covariance of a set, pulled towards a multiple of the identity as far as it is uncertain.

    Args:
        x: (N, E), float, N at least 1.

    Returns:
        (E, E), float64, symmetric, no eigenvalue below 0.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> shrunk_covariance(x)
        tensor([[1., 0.],
                [0., 0.]], dtype=torch.float64)
    """
    centered = x.double() - x.double().mean(0)
    count, length = centered.shape
    sample = centered.T @ centered / count
    level = sample.trace() / length
    size = sample.square().sum()
    scatter = size - length * level.square()
    noise = (centered.square().sum(1).square().mean() - size) / count
    share = (noise / scatter).clamp(0, 1) if scatter > 0 else torch.zeros_like(scatter)
    identity = torch.eye(length, dtype=sample.dtype, device=sample.device)
    return (1 - share) * sample + share * level * identity  # Eq. (14)


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Return the squared maximum mean discrepancy of two sets under the kernel (x . y / E + 1)^3.

    Args:
        first: embedded pictures, (N, E), float, N at least 2.
        second: likewise, (M, E), on the same device.

    Returns:
        An unbiased estimate, which may be below 0 where the sets are alike; it compares within one embedding only, whose scale it
        grows with.

    Raises:
        DataError: a set has fewer than 2 pictures, or the embeddings differ in length.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> kernel_distance(x, x)
        -3.5
    """
    _require_sets(first, second)
    first, second = first.double(), second.double()
    within = [(_kernel_sum(x, x) - _diagonal_sum(x)) / (len(x) * (len(x) - 1)) for x in (first, second)]
    return (sum(within) - 2 * _kernel_sum(first, second) / (len(first) * len(second))).item()


def _kernel_sum(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum of the kernel over all pairs."""
    return torch.stack([(some @ second.T / first.shape[1] + 1).pow(3).sum() for some in first.split(_ROWS)]).sum()


def _diagonal_sum(x: Tensor) -> Tensor:
    """Return the sum of the kernel over the pairs of a picture with itself."""
    return (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()


def _require_sets(first: Tensor, second: Tensor) -> None:
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise DataError(
            f"a distance of distributions needs two sets of 2 pictures or more in one embedding, found {tuple(first.shape)} and "
            f"{tuple(second.shape)}; make more pictures, or embed both with the same network"
        )
