# SPDX-License-Identifier: Apache-2.0
"""Diagonal Fisher information leakage: the error that Gaussian noise on z leaves to every unbiased adversary.

Source: maeng2023dfil, sections 3 and 4.
Equations: dFIL(x) = Tr(J^T J) / (d sigma^2), and E||x_hat - x||^2 / d >= 1 / dFIL for an unbiased x_hat -> dfil.
Departures: the trace is estimated by Hutchinson's probes, Tr(J J^T) = E||J^T u||^2 with u of -1 and 1. The floor of a data set is
1 over the mean of dFIL, which is at most the mean of 1 / dFIL, so that pictures of which z says nothing do not lift it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.types import Certificate


def dfil(head: Callable[[Tensor], Tensor], x: Tensor, *, noise_std: float, probes: int = 8) -> Tensor:
    """Return the leakage of each picture. Draws from the ambient stream.

    Args:
        head: from pictures to clean features; each row of z depends on its own picture only.
        x: pictures, (N, ...), [0, 1].
        noise_std: of the Gaussian noise that is added to each element of z, > 0.
        probes: of each picture.

    Returns:
        (N,), at least 0; 1 / MSE in units of x.

    Raises:
        ConfigError: there is no noise.

    Example:
        >>> dfil(lambda x: 2 * x, torch.rand(3, 4), noise_std=0.5)  # J = 2 I
        tensor([16., 16., 16.])
    """
    if not noise_std > 0:
        raise ConfigError("dFIL needs noise on z: without it the leakage is infinite; add Noise(sigma=0.025)")
    trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    with torch.enable_grad():
        known = x.detach().requires_grad_()
        z = head(known)
        for left in reversed(range(probes)):
            signs = torch.randint(0, 2, z.shape, device=z.device).to(z.dtype) * 2 - 1
            (pulled,) = torch.autograd.grad(z, known, signs, retain_graph=left > 0)
            trace += pulled.flatten(1).square().sum(1) / probes
    return trace / (x[0].numel() * noise_std**2)


def fisher_certificate(leakage: Tensor, *, noise_std: float, blind: float) -> Certificate:
    """State the leakage of a data set as a floor.

    Args:
        leakage: of each picture, (N,).
        noise_std: of the release.
        blind: error of the mean picture. A floor above it is no claim about anybody: whoever answers with the mean picture is
            biased, and gets lower without a look at z.
    """
    mean = leakage.double().mean().item()
    floor = 1 / mean if mean > 0 else math.inf
    return Certificate(
        "fisher",
        f"No unbiased adversary reaches a mean squared error under {floor:.3g}."
        if floor < blind
        else f"The least error of an unbiased adversary, {floor:.3g}, is more than that of the mean picture, {blind:.3g}: the "
        "noise hides all that can be had without knowing pictures, and adversaries that know pictures are not bounded.",
        floor if floor < blind else None,
        {"dfil": mean, "blind_mse": blind, "noise_std": noise_std},
        (
            f"the release adds Gaussian noise with a standard deviation of {noise_std:g}, fresh and unknown to the adversary",
            "the adversary is unbiased: it uses nothing that it knows of pictures in general, as a trained decoder does",
            "the adversary sees one release of the picture",
        ),
    )
