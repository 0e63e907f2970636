# SPDX-License-Identifier: Apache-2.0
"""Noise on the features together with NoPeek's penalty on their distance correlation.

Source: titcombe2021noise, section 4; xia2025cem, Tables 1 to 3 ("Noise_Nopeek").
Equations: z = head(x) + e as `additive`; L + weight * dCor(x, head(x)), dCor as `distance_correlation` -> NoiseNopeek.penalty
Departures: `sigma` is the standard deviation of the Laplace noise too, sqrt(2) times the release's scale. The defaults are those
of Titcombe's release, with squared distances; the rows of CEM's tables have Gaussian noise: `distribution="gaussian"`. As in both
releases dCor is that of the features before the noise. Titcombe's release scores attacks on features without noise; here it is on
whatever the adversary sees.
"""

from __future__ import annotations

import math

from torch import Tensor

from sfumato.analysis.dependence import distance_correlation
from sfumato.defenses.additive import AdditiveNoise, Distribution
from sfumato.errors import ConfigError
from sfumato.types import Step


class NoiseNopeek(AdditiveNoise):
    """Add noise to z and penalize the distance correlation between x and z.

    Args:
        sigma: standard deviation of the noise in units of z; 0 disables it.
        weight: of the penalty; dCor is in [0, 1].
        distribution: "laplace" or "gaussian".
        squared: take squared distances.

    Raises:
        ConfigError: sigma or weight is negative or not finite, or there is no such distribution.

    Example:
        >>> NoiseNopeek(sigma=0.1, weight=0.5)
        NoiseNopeek(sigma=0.1, weight=0.5, distribution='laplace', squared=True)
    """

    name = "noise_nopeek"

    def __init__(self, sigma: float, weight: float, distribution: Distribution = "laplace", squared: bool = True) -> None:
        super().__init__(sigma, distribution)
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"weight must be >= 0, got {weight}; for noise alone use Noise(sigma={sigma})")
        self.weight = weight
        self.squared = squared

    def penalty(self, step: Step) -> Tensor:  # noqa: D102
        return self.weight * distance_correlation(step.x, step.z, squared=self.squared)

    def extra_repr(self) -> str:  # noqa: D102
        return f"sigma={self.sigma}, weight={self.weight}, distribution={self.distribution!r}, squared={self.squared}"
