# SPDX-License-Identifier: Apache-2.0
"""Adversarial privacy preservation: a decoder helped by a discriminator learns to invert z, and the head learns to defeat it.

Source: xiao2020adversarial, abstract and Figure 2; ding2024patrol, section IV-A ("APP").
Equations: L - weight * E ||D(z) - x||^2 / d over the model -> APP.penalty; E ||D(z) - x||^2 / d + realism * E log(1 + e^-C(D(z)))
    over the decoder D, E log(1 + e^-C(x)) + E log(1 + e^C(D(z))) over the discriminator C -> APP.before_step
Departures: of the paper's two reconstruction losses, that of pixels and that of perceptual features, only the first is here: the
second needs a pretrained network, and nothing is downloaded. The paper trains D on public pictures; here D learns from the batch
itself, the worst case. The defaults, the form of the discriminator's loss and the networks (CEM's decoder, the critic of the GAN
attack) are ours. D sees the features after every `protect` of the composition, which is what an adversary sees, and answers the
penalty in eval mode with its weights frozen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.base import Data
from sfumato.defenses.adversary import Adversarial, DecoderAdversary, InnerAdversary
from sfumato.errors import ConfigError
from sfumato.models.critic import Critic
from sfumato.split import Split
from sfumato.types import Step


class APP(Adversarial):
    """Train against an image decoder that must also please a discriminator.

    Args:
        weight: of the decoder's mean squared error, pixels in [0, 1], in the model's loss.
        realism: of the discriminator's verdict in the decoder's loss; 0 does without discriminator.
        steps: updates of discriminator and decoder for each batch.
        blocks: residual blocks of the decoder.
        channels: their width, and that of the discriminator's first convolution.
        learning_rate: of both networks' Adam.

    Raises:
        ConfigError: a value is out of its range; or, when the defense is prepared, the pictures are smaller than 4x4.

    Example:
        >>> APP(weight=2.0)
        APP(weight=2.0, realism=0.001, steps=1, blocks=4, channels=64, learning_rate=0.001)
    """

    name = "app"

    def __init__(
        self,
        weight: float = 1.0,
        *,
        realism: float = 1e-3,
        steps: int = 1,
        blocks: int = 4,
        channels: int = 64,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if not (0 <= weight < math.inf and 0 <= realism < math.inf):
            raise ConfigError(f"weight and realism must be >= 0 and finite, got {weight} and {realism}")
        if steps < 1:
            raise ConfigError(f"steps must be at least 1, got {steps}")
        self.weight, self.realism, self.steps = weight, realism, steps
        self.decoder = DecoderAdversary(blocks=blocks, channels=channels, learning_rate=learning_rate)
        self.discriminator = InnerAdversary(partial(_critic, channels=channels), learning_rate)

    @property
    def adversaries(self) -> Mapping[str, InnerAdversary]:
        """The decoder and the discriminator."""
        return {"decoder.": self.decoder, "discriminator.": self.discriminator}

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse pictures that the discriminator does not take."""
        if self.realism:
            with torch.device("meta"):
                _critic(torch.empty(1, *data.shape), channels=1)

    def before_step(self, step: Step) -> None:
        """Train the discriminator and the decoder on this batch."""
        with torch.autocast(step.z.device.type, enabled=False):
            for _ in range(self.steps):
                self._learn(step.protected.detach(), step.x)

    def penalty(self, step: Step) -> Tensor:  # noqa: D102
        with torch.autocast(step.z.device.type, enabled=False):
            return -self.weight * F.mse_loss(self.decoder.frozen(step.protected), step.x)

    def extra_repr(self) -> str:  # noqa: D102
        return f"weight={self.weight}, realism={self.realism}, steps={self.steps}, {self.decoder.extra_repr()}"

    def _learn(self, z: Tensor, x: Tensor) -> None:
        """Make one step of the discriminator, then one of the decoder."""
        self.decoder.meet(z, x)
        x_hat = self.decoder(z)
        loss = F.mse_loss(x_hat, x)
        if self.realism:
            self.discriminator.meet(x)
            true, made = self.discriminator(x), self.discriminator(x_hat.detach())
            self.discriminator.learn((F.softplus(-true) + F.softplus(made)).mean())
            loss = loss + self.realism * F.softplus(-self.discriminator.frozen(x_hat)).mean()
        self.decoder.learn(loss)


def _critic(x: Tensor, *, channels: int) -> Critic:
    """Return a critic of pictures like x, (N, C, H, W)."""
    _, colors, height, width = x.shape
    return Critic((colors, height, width), channels=channels)
