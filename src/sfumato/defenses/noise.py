# SPDX-License-Identifier: Apache-2.0
"""Additive noise on the released features, in training and in deployment, and nothing else.

Source: titcombe2021noise, section 4 (Laplace); xia2025cem, section 5.1 (Gaussian, sigma = 0.025).
Equations: as `additive`.
Departures: as `additive`.
"""

from __future__ import annotations

from sfumato.defenses.additive import AdditiveNoise


class Noise(AdditiveNoise):
    """Add noise to z.

    Args:
        sigma: standard deviation in units of z; 0 disables it.
        distribution: "gaussian" or "laplace".

    Raises:
        ConfigError: sigma is negative or not finite, or there is no such distribution.

    Example:
        >>> import torch
        >>> Noise(sigma=0.0).protect(torch.ones(2, 3), None).equal(torch.ones(2, 3))
        True
    """

    name = "noise"

    def extra_repr(self) -> str:  # noqa: D102
        return f"sigma={self.sigma}, distribution={self.distribution!r}"
