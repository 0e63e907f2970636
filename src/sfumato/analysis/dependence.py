# SPDX-License-Identifier: Apache-2.0
"""Distance correlation: how strongly two sets of paired samples depend on each other, linearly or not.

Source: szekely2007distance, section 2; vepakomma2020nopeek for its use between pictures and features.
Equations: R^2 = V^2(a, b) / sqrt(V^2(a, a) V^2(b, b)), V^2(a, b) = sum_ij A_ij B_ij / n^2, A and B the distances between samples,
    centered by rows and by columns -> distance_correlation
Departures: the releases clamp distances at 1e-7 and add 1e-7 under and beside the roots, which moves the value; here nothing is
added, and a root is 0, with a gradient of 0, where what is under it is not positive.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.types import Features


def distance_correlation(a: Features, b: Features, squared: bool = False) -> Tensor:
    """Return the distance correlation of paired samples, with gradient.

    Args:
        a: the first set, (N, ...), any range; a type narrower than float32 is widened.
        b: the second, (N, ...), on the same device, of any other shape.
        squared: take squared distances, as titcombe2021noise does; then only linear dependence counts.

    Returns:
        A scalar in [0, 1]; 0 where all the samples of a set are the same. In many dimensions a batch of independent samples has
        nearly 1 too: it is for comparing, and for its gradient.

    Raises:
        DataError: the sets differ in length.

    Example:
        >>> a = torch.rand(10, 2)
        >>> round(distance_correlation(a, 3 * a + 1).item(), 4)
        1.0
    """
    if len(a) != len(b):
        raise DataError(f"expected as many samples in both sets, found {len(a)} and {len(b)}; pass them in pairs")
    with torch.autocast(a.device.type, enabled=False):
        left, right = _centered_distances(a, squared), _centered_distances(b, squared)
        norm = _root(left.square().mean()) * _root(right.square().mean())
        return _root((left * right).mean() / torch.where(norm > 0, norm, 1.0))


def _centered_distances(samples: Tensor, squared: bool) -> Tensor:
    """Return the Euclidean distances between samples, (N, N), less the means of their rows and columns."""
    flat = samples.flatten(1).to(torch.promote_types(samples.dtype, torch.float32))
    flat = flat - flat.mean(0)  # changes no distance, and keeps the digits that the differences below would lose
    gram = flat @ flat.T
    squares = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    distances = squares.clamp_min(0) if squared else _root(squares)
    return distances - distances.mean(0) - distances.mean(1, keepdim=True) + distances.mean()


def _root(value: Tensor) -> Tensor:
    """Return the square root; 0, with a gradient of 0, where the value is not positive."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)
