# SPDX-License-Identifier: Apache-2.0
"""Noisy adversarial representation learning: a decoder that sees the noisy features trains in the model's own backward pass.

Source: jeong2023noisy, and its release; xia2025cem, Tables 1 to 3 ("Noise_ARL").
Equations: z = head(x) + e, e ~ N(0, sigma^2), as `additive`; min L - weight * L_adv over the model -> NoiseARL.penalty; min L_adv
    over the decoder D, by the gradients of that same pass divided by -weight -> NoiseARL.after_step
Departures: the release's adversary predicts private labels; here, as CEM uses the method, it reconstructs the picture, and L_adv
is 1 - SSIM(D(z), x), a number of the size of a cross-entropy. D sees the features after every `protect` of the composition, which
is what an adversary sees; CEM's stand-in, which is ResSFL with more noise, shows it those without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sfumato.defenses.additive import AdditiveNoise
from sfumato.defenses.adversary import Adversarial, DecoderAdversary, InnerAdversary
from sfumato.errors import ConfigError
from sfumato.metrics.image import ssim
from sfumato.types import Step


class NoiseARL(AdditiveNoise, Adversarial):
    """Add Gaussian noise to z and train against an image decoder that sees the noisy features.

    Args:
        sigma: standard deviation of the noise in units of z; 0 disables it.
        weight: of the decoder's loss in the model's.
        blocks: residual blocks of the decoder.
        channels: their width.
        learning_rate: of the decoder's Adam.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> NoiseARL(sigma=0.1)
        NoiseARL(sigma=0.1, weight=0.01, blocks=4, channels=64, learning_rate=0.001)
    """

    name = "noise_arl"

    def __init__(
        self, sigma: float, weight: float = 1e-2, *, blocks: int = 4, channels: int = 64, learning_rate: float = 1e-3
    ) -> None:
        super().__init__(sigma)
        if not 0 < weight < math.inf:
            raise ConfigError(f"weight must be > 0 and finite, got {weight}; for noise alone use Noise(sigma={sigma})")
        self.weight = weight
        self.adversary = DecoderAdversary(blocks=blocks, channels=channels, learning_rate=learning_rate)

    @property
    def adversaries(self) -> Mapping[str, InnerAdversary]:
        """The decoder."""
        return {"": self.adversary}

    def penalty(self, step: Step) -> Tensor:  # noqa: D102
        with torch.autocast(step.z.device.type, enabled=False):
            self.adversary.meet(step.protected, step.x)
            return -self.weight * (1 - ssim(self.adversary(step.protected), step.x).mean())

    def after_step(self, step: Step) -> None:
        """Update the decoder by the gradients of the model's own backward pass."""
        self.adversary.update(divisor=-self.weight)

    def extra_repr(self) -> str:  # noqa: D102
        return f"sigma={self.sigma}, weight={self.weight}, {self.adversary.extra_repr()}"
