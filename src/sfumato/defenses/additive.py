# SPDX-License-Identifier: Apache-2.0
"""What the defenses share that add noise to the released features, drawn afresh at every forward pass.

Source: titcombe2021noise, section 4 (Laplace); xia2025cem, section 5.1 (Gaussian, sigma = 0.025).
Equations: z = head(x) + e, with e ~ N(0, sigma^2) or e ~ Laplace(0, b) -> AdditiveNoise.protect
Departures: `sigma` is the standard deviation for both distributions (the Laplace scale is b = sigma / sqrt(2)), so that rows of a
table are comparable; the releases call it variance in places.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from sfumato.arguments import require_choice
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError

Distribution = Literal["gaussian", "laplace"]


class AdditiveNoise(Defense, ABC):
    """A defense that adds noise to z, in training and in deployment.

    Args:
        sigma: standard deviation in units of z; 0 disables it.
        distribution: "gaussian" or "laplace".

    Raises:
        ConfigError: sigma is negative or not finite, or there is no such distribution.
    """

    def __init__(self, sigma: float, distribution: Distribution = "gaussian") -> None:
        super().__init__()
        if not (math.isfinite(sigma) and sigma >= 0):
            raise ConfigError(f"sigma must be >= 0, got {sigma}; for no defense use Compose()")
        require_choice("distribution", distribution, ("gaussian", "laplace"))
        self.sigma = sigma
        self.distribution = distribution

    @property
    def stochastic(self) -> bool:
        """Whether there is any noise."""
        return self.sigma > 0

    @property
    def noise_std(self) -> float:
        """Sigma, for both distributions."""
        return self.sigma

    @property
    def gaussian(self) -> bool:
        """Whether the noise is Gaussian, or none."""
        return self.distribution == "gaussian" or not self.stochastic

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: D102
        if not self.stochastic:
            return z
        if self.distribution == "gaussian":
            noise = torch.empty_like(z).normal_(0.0, self.sigma, generator=generator)
        else:
            # A difference of two exponentials of mean b is Laplace with scale b, and cannot meet log(0).
            b = self.sigma / math.sqrt(2)
            first, second = (torch.empty_like(z).exponential_(1 / b, generator=generator) for _ in range(2))
            noise = first - second
        return z + noise

    @abstractmethod
    def extra_repr(self) -> str:
        """Return every argument, as the constructor takes them."""
