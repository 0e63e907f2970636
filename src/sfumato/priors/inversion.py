# SPDX-License-Identifier: Apache-2.0
"""KEDMI's inversion-specific GAN: its discriminator learns from the target which class a public picture looks like.

What the target knows of its classes so reaches the generator: the discriminator's features, which the generator matches, are
those that tell the target's classes apart.

Source: chen2021kedmi, section 3.2, with the constants of its release.
Equations: L_D = (soft) + (true), L_G = (match) + 1e-4 (entropy), of `sfumato.priors.losses` -> InversionContest
Departures: the target answers in evaluation mode; the release leaves it in training mode, where its batch norm takes the
statistics of public pictures and keeps them. The three draws of public pictures are independent at every step, as three loaders
would make them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.models.discriminator import InversionDiscriminator
from sfumato.models.generator import Generator
from sfumato.priors.base import Prior
from sfumato.priors.contest import Contest, Turn
from sfumato.priors.losses import entropy, matching_loss, soft_label_loss, truth_loss
from sfumato.priors.settings import PriorSettings
from sfumato.target import WeightsView


def inversion_prior(image_shape: tuple[int, int, int], settings: PriorSettings, classes: int) -> Prior:
    """Make an untrained inversion-specific GAN; the weights come from PyTorch's ambient stream.

    Raises:
        ConfigError: such pictures cannot be made.

    Example:
        >>> inversion_prior((3, 32, 32), PriorSettings(width=8, kernels=16, dims=8), 10).kind
        'inversion'
    """
    made = Generator(image_shape, latent=settings.latent, width=settings.width)
    critic = InversionDiscriminator(
        image_shape, classes, channels=settings.width, kernels=settings.kernels, dims=settings.dims, std=settings.std
    )
    return Prior("inversion", made, critic, latent=settings.latent, image_shape=image_shape)


class InversionContest(Contest):
    """Made pictures against true ones, judged by who names the target's classes.

    Args:
        prior: whose networks learn.
        settings: of the training.
        view: of the target.
    """

    def __init__(self, prior: Prior, settings: PriorSettings, view: WeightsView) -> None:
        super().__init__(prior, settings)
        self.view = view

    def critic_loss(self, turn: Turn) -> Tensor:
        """Return what the discriminator minimizes."""
        x = turn.pictures("labeled")
        with torch.no_grad():
            labels, x_hat = self.view.classify(x).logits.softmax(1), self.generator(turn.latents())
        soft = soft_label_loss(self.critic(x)[1], labels)
        return soft + truth_loss(self.critic(turn.pictures("unlabeled"))[1], self.critic(x_hat)[1])

    def generator_loss(self, turn: Turn) -> Tensor:
        """Return what the generator minimizes."""
        features, logits = self.critic(self.generator(turn.latents()))
        with torch.no_grad():
            true = self.critic(turn.pictures())[0]
        return matching_loss(features, true) + self.settings.entropy * entropy(logits)
