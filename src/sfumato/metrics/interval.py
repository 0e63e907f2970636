# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals over pictures.

Source: efron1979bootstrap (percentile method).
Equations: none.
Departures: none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.metrics.image import psnr
from sfumato.types import Interval

LEVEL = 0.95
SAMPLES = 1000


def bootstrap_means(values: Tensor, generator: torch.Generator, samples: int = SAMPLES) -> Tensor:
    """Return the mean of each of many bootstrap samples of the pictures.

    Args:
        values: one number a picture, (N,).
        generator: on the CPU.
        samples: how many.

    Returns:
        (samples,), float64, on the CPU.

    Example:
        >>> bootstrap_means(torch.ones(5), torch.Generator().manual_seed(0), samples=2)
        tensor([1., 1.], dtype=torch.float64)
    """
    known = values.detach().to("cpu", torch.float64)
    rows = [known[torch.randint(len(known), (len(known),), generator=generator)].mean() for _ in range(samples)]
    return torch.stack(rows)


def mean_interval(values: Tensor, generator: torch.Generator) -> Interval:
    """Return the mean over pictures with its 95 % interval.

    Args:
        values: one number a picture, (N,).
        generator: on the CPU.

    Example:
        >>> mean_interval(torch.ones(5), torch.Generator().manual_seed(0))
        Interval(value=1.0, low=1.0, high=1.0)
    """
    return _interval(values.double().mean().item(), bootstrap_means(values, generator))


def ratio_interval(parts: Tensor, wholes: Tensor, generator: torch.Generator) -> Interval:
    """Return the ratio of two sums with its 95 % interval, when what is summed is drawn again with both its numbers.

    Args:
        parts: (N,), the numbers whose sum is divided.
        wholes: (N,), above 0, those by whose sum it is divided.
        generator: on the CPU.

    Example:
        >>> ratio_interval(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]), torch.Generator().manual_seed(0))
        Interval(value=0.5, low=0.5, high=0.5)
    """
    again = generator.clone_state()
    samples = bootstrap_means(parts, generator) / bootstrap_means(wholes, again)
    return _interval((parts.double().sum() / wholes.double().sum()).item(), samples)


def psnr_interval(mse: Tensor, generator: torch.Generator) -> Interval:
    """Return the PSNR of the mean MSE, in dB, with its 95 % interval.

    Args:
        mse: of each picture in [0, 1], (N,).
        generator: on the CPU.

    Example:
        >>> round(psnr_interval(torch.full((5,), 0.0293), torch.Generator().manual_seed(0)).value, 2)
        15.33
    """
    means = bootstrap_means(mse, generator)
    return _interval(psnr(mse.double().mean()).item(), psnr(means))


def _interval(value: float, samples: Tensor) -> Interval:
    tail = (1 - LEVEL) / 2
    ordered = samples.sort().values
    last = len(ordered) - 1
    return Interval(value, ordered[math.floor(tail * last)].item(), ordered[math.ceil((1 - tail) * last)].item())
