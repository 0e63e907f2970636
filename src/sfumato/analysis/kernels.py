# SPDX-License-Identifier: Apache-2.0
"""How strongly two sets of paired samples depend on each other, told from their kernels: HSIC, its normalized form, and COCO.

Source: gretton2005hsic, Definition 2 (HSIC); fukumizu2007nocco, section 3 (the normalized form); gretton2005coco, section 3
(COCO); peng2022bido and its release for the three as they are used in training. With m samples and H = I - 1 1^T / m,
Equations: K = exp(-D / (2 sigma^2 d)), D squared distances, d the dimension -> gaussian_kernels
    HSIC = tr(K H L H) / (m - 1)^2 -> hsic
    NOCCO = tr(R_K R_L), R_K = K H (K H + epsilon m I)^-1, which the release calls HSIC -> nocco
    COCO = sqrt(||H K H H L H||_F) / m -> coco
Departures: the release centers the kernels of NOCCO from one side and inverts a matrix without symmetry; centering from both
sides gives the same number, since R_K = K S^-1 H for S = H K H + epsilon m I, and both H of the trace may stand beside their
kernel, and it loses fewer digits. The Frobenius norm in COCO is the release's: the theory has the spectral norm. A root is 0,
with a gradient of 0, where what is under it is 0. NOCCO does not grow with dependence in batches of the usual size: the kernels
of m different samples have rank m - 1 whatever the samples are, so that it measures above all how many directions of each kernel
exceed epsilon. HSIC has no such fault.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.types import Features

LEAST = 3
"""Samples from which a measure says anything: centered kernels of two are multiples of one matrix, however they are paired."""


def gaussian_kernel(samples: Features, sigma: float) -> Tensor:
    """Return the Gaussian kernel between samples, with gradient.

    Args:
        samples: (m, ...), any range; a type narrower than float32 is widened.
        sigma: width, in units of a feature: the squared distance is divided by the number of features.

    Returns:
        (m, m), float64, (0, 1], on the device of the samples.

    Example:
        >>> gaussian_kernel(torch.tensor([[0.0, 0.0], [2.0, 2.0]]), sigma=1.0)
        tensor([[1.0000, 0.1353],
                [0.1353, 1.0000]], dtype=torch.float64)
    """
    return gaussian_kernels([samples], sigma)[0]


def gaussian_kernels(sets: Sequence[Features], sigma: float) -> Tensor:
    """Return the Gaussian kernels of several sets of samples, with gradient: as many calls of `gaussian_kernel`, in fewer steps.

    Args:
        sets: one or more, each (m, ...), on one device, of any shapes.
        sigma: width, in units of a feature.

    Returns:
        (len(sets), m, m), float64, (0, 1].

    Raises:
        DataError: the sets are of different numbers of samples.

    Example:
        >>> gaussian_kernels([torch.rand(4, 3), torch.rand(4, 1, 2, 2)], sigma=5.0).shape
        torch.Size([2, 4, 4])
    """
    if len({len(samples) for samples in sets}) != 1:
        raise DataError(f"expected sets of as many samples, found {[len(samples) for samples in sets]}; pass them in pairs")
    with torch.autocast(sets[0].device.type, enabled=False):
        grams = torch.stack([_gram(samples, sigma) for samples in sets]).double()
        norms = grams.diagonal(dim1=1, dim2=2)
        return (2 * grams - norms[:, :, None] - norms[:, None]).clamp_max(0).exp()


def linear_kernel(samples: Features) -> Tensor:
    """Return the inner products of samples, with gradient.

    Args:
        samples: (m, ...), any range; a type narrower than float32 is widened.

    Returns:
        (m, m), float64, on the device of the samples. Of labels, as rows of zeros and a one: 1 where two are the same, else 0.

    Example:
        >>> linear_kernel(torch.eye(2))
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    with torch.autocast(samples.device.type, enabled=False):
        flat = _flat(samples).double()
        return flat @ flat.T


def centered(k: Tensor) -> Tensor:
    """Return H K H, the kernel of samples less their mean in feature space.

    Args:
        k: kernels, (..., m, m).

    Example:
        >>> centered(torch.eye(2))
        tensor([[ 0.5000, -0.5000],
                [-0.5000,  0.5000]])
    """
    rows = k - k.mean(-1, keepdim=True)
    return rows - rows.mean(-2, keepdim=True)


def hsic(k: Tensor, other: Tensor) -> Tensor:
    """Return the Hilbert-Schmidt independence criterion, biased, with gradient.

    Args:
        k: kernels of the first samples, (..., m, m), float64.
        other: those of the second, paired with them; leading dimensions are broadcast.

    Returns:
        (...), float64, at least 0; 0 where all samples of a set are the same. It grows with dependence, and with both kernels.

    Raises:
        DataError: the kernels are of different numbers of samples.

    Example:
        >>> same = linear_kernel(torch.tensor([[0.0], [1.0], [2.0]]))
        >>> hsic(same, same), hsic(same, torch.ones(3, 3).double())
        (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    _require_pairs(k, other)
    with torch.autocast(k.device.type, enabled=False):
        return (centered(k) * centered(other)).sum((-2, -1)) / (k.shape[-1] - 1) ** 2


def nocco(k: Tensor, other: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Return the squared norm of the normalized cross-covariance operator, with gradient: the "HSIC" of published code.

    Args:
        k: kernels of the first samples, (..., m, m), float64.
        other: those of the second, paired with them; leading dimensions are broadcast.
        epsilon: of the regularization, above 0.

    Returns:
        (...), float64, [0, m - 1]; near m - 1 where both kernels have m - 1 directions well above `epsilon`, whether the samples
        depend on each other or not.

    Raises:
        DataError: the kernels are of different numbers of samples.

    Example:
        >>> flat = linear_kernel(torch.tensor([[0.0], [1.0], [2.0]]))
        >>> round(nocco(flat, flat).item(), 3)  # a single direction, and both have the same
        1.0
    """
    _require_pairs(k, other)
    with torch.autocast(k.device.type, enabled=False):
        return (_whitened(k, epsilon) * _whitened(other, epsilon)).sum((-2, -1))  # both are symmetric


def coco(k: Tensor, other: Tensor) -> Tensor:
    """Return the constrained covariance as published code has it, with gradient.

    Args:
        k: kernels of the first samples, (..., m, m), float64.
        other: those of the second, paired with them; leading dimensions are broadcast.

    Returns:
        (...), float64, at least 0; 0 where all samples of a set are the same.

    Raises:
        DataError: the kernels are of different numbers of samples.

    Example:
        >>> same = linear_kernel(torch.tensor([[0.0], [1.0], [2.0]]))
        >>> round(coco(same, same).item(), 3)
        0.667
    """
    _require_pairs(k, other)
    with torch.autocast(k.device.type, enabled=False):
        squares = (centered(k) @ centered(other)).square().sum((-2, -1))
        positive = squares > 0
        return torch.where(positive, torch.where(positive, squares, 1.0) ** 0.25, 0.0) / k.shape[-1]


def _whitened(k: Tensor, epsilon: float) -> Tensor:
    """Return H K H (H K H + epsilon m I)^-1: every direction well above epsilon counts as 1. Nothing waits for the device."""
    inner = centered(k)
    m = k.shape[-1]
    ridge = epsilon * m * torch.eye(m, dtype=k.dtype, device=k.device)
    solved: Tensor = torch.linalg.solve_ex(inner + ridge, inner, check_errors=False).result
    return solved


def _gram(samples: Tensor, sigma: float) -> Tensor:
    """Return the inner products of samples less their mean, in units in which a squared distance is the exponent.

    Its gradient is right for what depends on distances alone, and costs one product of matrices in place of two.
    """
    flat = _flat(samples)
    flat = flat - flat.detach().mean(0)  # changes no distance, and keeps the digits that their differences would lose
    half = flat @ flat.detach().T
    gram = 2 * half - half.detach()  # both factors have the same gradient, once it is symmetric
    return (gram + gram.T) / (4 * sigma**2 * flat.shape[1])


def _flat(samples: Tensor) -> Tensor:
    """Return samples as rows, in float32 at least, in the order of the memory: a kernel does not ask which feature is which."""
    if samples.ndim == 4 and samples.is_contiguous(memory_format=torch.channels_last):
        samples = samples.permute(0, 2, 3, 1)
    return samples.flatten(1).to(torch.promote_types(samples.dtype, torch.float32))


def _require_pairs(k: Tensor, other: Tensor) -> None:
    if k.shape[-2:] != other.shape[-2:] or k.shape[-1] != k.shape[-2]:
        raise DataError(
            f"expected two kernels of as many samples, found {tuple(k.shape)} and {tuple(other.shape)}; pass them in pairs"
        )
