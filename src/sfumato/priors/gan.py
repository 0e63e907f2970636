# SPDX-License-Identifier: Apache-2.0
"""A plain GAN, which knows nothing but public pictures: the prior of GMI, BREPMI and everything that searches latents.

Source: zhang2020secret, section 3.2 and supplement; gulrajani2017wgan, Algorithm 1.
Equations: `sfumato.priors.losses`, (wgan-gp) or (hinge) or (logistic); the gradient penalty of `sfumato.models.critic`.
Departures: none with "wgan-gp"; the other two losses are for a CPU, where five updates of the critic for one of the generator and
a penalty that needs second derivatives are dear. They have the penalty (r1) in its place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.models.critic import Critic, gradient_penalty
from sfumato.models.generator import Generator, grid_of
from sfumato.priors.base import Prior
from sfumato.priors.contest import Contest, Turn
from sfumato.priors.losses import critic_gap, generator_gap, slope_penalty
from sfumato.priors.settings import PriorSettings


def gan_prior(image_shape: tuple[int, int, int], settings: PriorSettings) -> Prior:
    """Make an untrained GAN; the weights come from PyTorch's ambient stream.

    Raises:
        ConfigError: such pictures cannot be made.

    Example:
        >>> gan_prior((3, 32, 32), PriorSettings(width=8)).kind
        'gan'
    """
    made = Generator(image_shape, latent=settings.latent, width=settings.width)
    # As many halvings as take the picture to 4x4, the last convolution's kernel.
    side, doublings = grid_of(image_shape)
    critic = Critic(image_shape, channels=settings.width, levels=doublings + (side > 4))
    return Prior("gan", made, critic, latent=settings.latent, image_shape=image_shape)


class GanContest(Contest):
    """Made pictures against true ones, and nothing else."""

    def critic_loss(self, turn: Turn) -> Tensor:
        """Return the critic's part of the loss, with the penalty on its gradient."""
        settings, x = self.settings, turn.pictures()
        with torch.no_grad():
            x_hat = self.generator(turn.latents())
        weight = settings.penalty * settings.penalty_every
        if settings.loss == "wgan-gp" or not turn.penalized:
            true, made = self.critic(torch.cat([x, x_hat])).chunk(2)
            gap = critic_gap(settings.loss, true, made)
            return gap + weight * gradient_penalty(self.critic, x, x_hat) if turn.penalized else gap
        x.requires_grad_()
        true, made = self.critic(x), self.critic(x_hat)
        return critic_gap(settings.loss, true, made) + weight * slope_penalty(true, x)

    def generator_loss(self, turn: Turn) -> Tensor:
        """Return the generator's part of the loss."""
        return generator_gap(self.settings.loss, self.critic(self.generator(turn.latents())))
