# SPDX-License-Identifier: Apache-2.0
"""Test whether two noises are one: for each channel the mean, the spread, and the mean absolute deviation.

The last is there because two noises of one spread may differ in shape: Laplace in place of Gaussian.

Source: welch1947generalization; dunn1961multiple.
Equations: t = (m_a - m_b) / sqrt(v_a / D + v_b / D), degrees of freedom by Welch and Satterthwaite -> _welch; p of each test
    times their number -> compare_noise
Departures: t sums differences and variances over pictures, which differ in what noise does to them (dropout). A block, one
picture of one draw, is averaged over the places of a channel first: noise may be correlated there. A further test pools the
channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NoiseTest(NamedTuple):
    """The outcome of comparing two noises: the least corrected p, and of which test it is."""

    p: float
    of: str


def compare_noise(mine: Tensor, theirs: Tensor) -> NoiseTest:
    """Test whether two sets of releases of the same pictures come from the same distribution.

    Args:
        mine: (D, P, C, ...), D releases of each of P pictures.
        theirs: likewise, drawn independently.

    Returns:
        The least p, corrected for the number of tests, [0, 1]. Channels without noise do not count.

    Example:
        >>> stream = torch.Generator().manual_seed(0)
        >>> a, b = (torch.randn(64, 8, 2, 20, generator=stream) for _ in range(2))
        >>> compare_noise(a, b).p > 0.001, compare_noise(a, 1.1 * b).p < 1e-6
        (True, True)
    """
    a, b = (releases.double().flatten(3) if releases.ndim > 3 else releases.double().unsqueeze(3) for releases in (mine, theirs))
    center = (a.mean(0) + b.mean(0)) / 2
    variance = (a.var(0) + b.var(0)).mean((0, 2)) / 2
    noisy = variance.sqrt() > 1e-6 * (1 + center.abs().mean((0, 2)))
    if not noisy.any():
        return NoiseTest(1.0, "no channel")
    a, b = (((releases - center) / variance.sqrt()[:, None])[:, :, noisy] for releases in (a, b))
    names = [f"channel {channel}" for channel in noisy.nonzero()[:, 0].tolist()] + ["all channels"]
    tests = [
        NoiseTest(p, f"the {what} of {name}")
        for what, measure in _MEASURES.items()
        for name, p in zip(names, _welch(_blocks(measure(a)), _blocks(measure(b))), strict=True)
    ]
    least = min(tests)
    return NoiseTest(min(1.0, least.p * len(tests)), least.of)


_MEASURES = {"mean": Tensor.clone, "spread": Tensor.square, "mean absolute deviation": Tensor.abs}


def _blocks(values: Tensor) -> Tensor:
    """Return the mean of each channel in each block, and that of all channels last, (D, P, C + 1), of (D, P, C, places)."""
    means = values.mean(3)
    return torch.cat([means, means.mean(2, keepdim=True)], 2)


def _welch(a: Tensor, b: Tensor) -> list[float]:
    """Return the p of each column, that two samples (D, P, C) have the same mean, summed over pictures."""
    from scipy import stats

    terms = torch.cat([sample.var(0) / len(sample) for sample in (a, b)])  # (2 P, C)
    # 0 / 0 where a noise does not change a mean at all: equal means are no evidence, others all there can be
    t = ((a.mean(0) - b.mean(0)).sum(0) / terms.sum(0).sqrt()).nan_to_num(nan=0.0)
    freedom = ((len(a) - 1) * terms.sum(0).square() / terms.square().sum(0)).nan_to_num(nan=1.0)
    found: list[float] = (2 * stats.t.sf(t.abs().numpy(), freedom.numpy())).tolist()
    return found
