# SPDX-License-Identifier: Apache-2.0
"""A generator and a critic that learn against each other: what all kinds of priors share, and the random numbers of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.data.loader import as_images
from sfumato.priors.base import Prior
from sfumato.priors.settings import PriorSettings
from sfumato.seeds import generator
from sfumato.types import Images


@dataclass(frozen=True)
class Turn:
    """One update: whose pictures and random numbers depend on its number alone, never on what was drawn before.

    Args:
        public: the pictures to learn from, on the device where they are resident.
        settings: of the training.
        device: of the networks.
        seed: of the training.
        step: number of the generator's update, from 0.
        update: number of the critic's update within the step; -1 is the generator's.
    """

    public: Pictures
    settings: PriorSettings
    device: torch.device
    seed: int
    step: int
    update: int

    def stream(self, purpose: str) -> torch.Generator:
        """Return a stream of random numbers on the CPU, the same for every device."""
        return generator(self.seed, "prior", purpose, self.step, self.update)

    def pictures(self, purpose: str = "pictures") -> Images:
        """Draw a batch of public pictures, (B, C, H, W), [0, 1]; different purposes give independent ones."""
        stream = self.stream(purpose)
        return self.at(torch.randperm(len(self.public), generator=stream)[: self.settings.batch_size], stream)

    def at(self, index: Tensor, stream: torch.Generator) -> Images:
        """Return the public pictures at `index`, (B,), int64, mirrored at random where the settings say so."""
        x = as_images(self.public.read(index), self.device)
        if not self.settings.flip:
            return x
        mirrored = (torch.rand(len(index), generator=stream) < 0.5).to(self.device)
        return torch.where(mirrored[:, None, None, None], x.flip(-1), x)

    def latents(self) -> Tensor:
        """Draw a batch of latents, (B, latent), from N(0, I)."""
        drawn = torch.randn(self.settings.batch_size, self.settings.latent, generator=self.stream("latents"))
        return drawn.to(self.device)

    @property
    def penalized(self) -> bool:
        """Whether the critic's gradient is penalized at this update."""
        number = self.step * self.settings.critic_steps + self.update
        return self.settings.penalty > 0 and number % self.settings.penalty_every == 0


class Contest(ABC):
    """What a kind of prior trains its two networks for.

    Args:
        prior: whose networks learn.
        settings: of the training.
    """

    def __init__(self, prior: Prior, settings: PriorSettings) -> None:
        assert prior.critic is not None  # noqa: S101 -- `new_prior` makes none without
        self.prior, self.settings = prior, settings
        self.generator, self.critic = prior.generator, prior.critic

    @abstractmethod
    def critic_loss(self, turn: Turn) -> Tensor:
        """Return what the critic minimizes at one of its updates, a scalar."""

    @abstractmethod
    def generator_loss(self, turn: Turn) -> Tensor:
        """Return what the generator minimizes at its update, a scalar."""

    def finish(self, seed: int) -> None:
        """Measure what attacks need of the trained generator, in eval mode and without gradients."""
