# SPDX-License-Identifier: Apache-2.0
"""Generative inversion: an image decoder that must also please a critic of pictures.

Source: xia2025cem, section 5.1 and supplement S3 ("GAN-based inversion model"), after zhang2020secret; constants of the release.
Equations: L_D = E D(G(z)) - E D(x) + 10 penalty(x, G(z)), L_G = -E D(G(z)) + 1500 ||G(z) - x||^2 / d -> Gan.fit
Departures: the release starts from the decoder that did best on the scored pictures; here it is the one that did best on held-out
auxiliary pictures, and these choose among the epochs too, the start included. As in the release an epoch is a pass of the critic:
with one update in ten the decoder learns from a tenth of the batches. The release's cosine has 300 epochs and stops after 150,
half-way; here it stops half-way whatever `epochs` is, and moves with every step. The paper names one learning rate, 5e-3; the
release has that for the critic only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.arguments import require_choice
from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Choice, Fitting, Inverters, Recordings, fit_inverter, place, record, share
from sfumato.data.loader import divide, shuffled
from sfumato.errors import ConfigError
from sfumato.models.critic import Critic, gradient_penalty
from sfumato.models.inverter import ResidualDecoder, check_size
from sfumato.seeds import generator
from sfumato.types import Reconstruction


@dataclass(kw_only=True)
class Gan(FeatureAttack):
    """Invert z with a residual decoder trained against a Wasserstein critic; black box.

    The defaults are the release's: 150 passes of the critic, each at about twice the cost of a pass of the decoder attack. They
    ask for a GPU.

    Args:
        start: "decoder" goes on from a trained decoder, as the release does; "scratch" starts from random weights.
        blocks: residual blocks of constant width.
        channels: their width.
        fitting: how the decoder that it starts from is trained.
        epochs: passes of the critic over the auxiliary pictures.
        batch_size: pictures a step.
        critic_rate: first learning rate of the critic, with Adam.
        decoder_rate: first learning rate of the decoder, with Adam.
        critic_channels: of the critic's first convolution.
        critic_steps: updates of the critic for one of the decoder.
        fidelity: weight of the mean squared error.
        penalty: weight of the gradient penalty.

    Raises:
        ConfigError: a value is out of its range; or, when the attack runs, the pictures are smaller than 4x4 or too few for a
            single update of the decoder.

    Example:
        >>> Gan(start="scratch", epochs=20).access
        'features'
    """

    access = "features"

    start: Literal["decoder", "scratch"] = "decoder"
    blocks: int = 8
    channels: int = 64
    fitting: Fitting = field(default_factory=Fitting)
    epochs: int = 150
    batch_size: int = 128
    critic_rate: float = 5e-3
    decoder_rate: float = 5e-4
    critic_channels: int = 64
    critic_steps: int = 10
    fidelity: float = 1500.0
    penalty: float = 10.0

    def __post_init__(self) -> None:
        require_choice("start", self.start, ("decoder", "scratch"))
        check_size(self.blocks, self.channels)
        if min(self.epochs, self.batch_size, self.critic_channels, self.critic_steps) < 1:
            raise ConfigError(f"epochs, batch_size, critic_channels and critic_steps must be at least 1, got {self}")
        if not (0 < self.critic_rate < math.inf and 0 < self.decoder_rate < math.inf):
            raise ConfigError(f"critic_rate and decoder_rate must be > 0 and finite, got {self}")
        if not (0 <= self.fidelity < math.inf and 0 <= self.penalty < math.inf):
            raise ConfigError(f"fidelity and penalty must be >= 0 and finite, got {self}")
        self._inverters = Inverters({})

    def fit(self, adversary: Adversary) -> None:
        """Train the decoder and its critic."""
        recordings = record(adversary)
        network: nn.Module = ResidualDecoder(
            recordings.feature_shape, adversary.image_shape, blocks=self.blocks, channels=self.channels
        )
        before = self.fitting.epochs if self.start == "decoder" else 0
        if before:
            watched = replace(adversary, watch=share(adversary.watch, 0, before + self.epochs))
            network = fit_inverter(network, watched, recordings, self.fitting).networks["best"]
        contest = _Contest(self, network, adversary, recordings)
        choice = Choice(network, recordings.held_out)
        choice.look()
        for epoch in range(self.epochs):
            contest.epoch(epoch)
            choice.look()
            adversary.watch(before + epoch + 1, before + self.epochs)
        self._inverters = choice.made()

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return what the decoder makes of z, with the best weights and with the last."""
        return self._inverters.reconstruct(z)

    def fall(self, epoch: float) -> float:
        """Return what is left of the learning rates after `epoch` epochs, with fraction: from 1 to a half."""
        return (1 + math.cos(math.pi * epoch / (2 * self.epochs))) / 2


class _Contest:
    """A decoder and a critic that learn against each other."""

    def __init__(self, attack: Gan, decoder: nn.Module, adversary: Adversary, recordings: Recordings) -> None:
        self.attack, self.decoder, self.recording, self.seed = attack, decoder, recordings.fitted, adversary.seed
        self.critic = Critic(adversary.image_shape, channels=attack.critic_channels)
        for network in (self.decoder, self.critic):
            place(network, adversary)
        betas = (0.5, 0.999)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=attack.critic_rate, betas=betas)
        self.decoder_optimizer = torch.optim.Adam(self.decoder.parameters(), lr=attack.decoder_rate, betas=betas)
        self.steps = 0
        batches = attack.epochs * len(divide(torch.arange(len(self.recording)), attack.batch_size))
        if batches < attack.critic_steps:
            raise ConfigError(
                f"the decoder learns once in {attack.critic_steps} batches, and {attack.epochs} epochs of {len(self.recording)} "
                f"pictures make only {batches}; raise epochs, or lower critic_steps or batch_size"
            )

    def epoch(self, number: int) -> None:
        """Make one pass over the pictures."""
        attack = self.attack
        self.decoder.train()
        parts = divide(shuffled(len(self.recording), generator(self.seed, "gan", number)), attack.batch_size)
        for step, index in enumerate(parts):
            fall = attack.fall(number + step / len(parts))
            self.critic_optimizer.param_groups[0]["lr"] = fall * attack.critic_rate
            self.decoder_optimizer.param_groups[0]["lr"] = fall * attack.decoder_rate
            z, x = self.recording.pairs(index)
            self._update_critic(z, x)
            self.steps += 1
            if self.steps % attack.critic_steps == 0:
                self._update_decoder(z, x)

    def _update_critic(self, z: Tensor, x: Tensor) -> None:
        with torch.no_grad():
            x_hat = self.decoder(z)
        gap = self.critic(x_hat).mean() - self.critic(x).mean()
        loss = gap + self.attack.penalty * gradient_penalty(self.critic, x, x_hat)  # L_D
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()

    def _update_decoder(self, z: Tensor, x: Tensor) -> None:
        x_hat = self.decoder(z)
        loss = self.attack.fidelity * F.mse_loss(x_hat, x) - self.critic(x_hat).mean()  # L_G
        self.decoder_optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=list(self.decoder.parameters()))
        self.decoder_optimizer.step()
