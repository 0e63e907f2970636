# SPDX-License-Identifier: Apache-2.0
"""PLG-MI's conditional GAN: public pictures get the class that the target sees in them, and a generator learns each class.

Source: yuan2023plg, sections 3.1 (pseudo labels) and 3.2 (training), with the constants of its release.
Equations: L_D = (hinge), L_G = (hinge) + 0.2 (margin) on the target's logits of augmented pictures -> ConditionalContest
    pseudo labels: of each class the n public pictures to which the target gives it the highest probability -> pseudo_labels
Departures: the jitter is of brightness and contrast, in that order; the release has the order of its library, which is random.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.data.loader import batches
from sfumato.data.variation import DRAWS, Variation
from sfumato.errors import DataError
from sfumato.models.conditional import ConditionalGenerator, ProjectionDiscriminator
from sfumato.priors.base import Prior
from sfumato.priors.contest import Contest, Turn
from sfumato.priors.losses import critic_gap, generator_gap, max_margin
from sfumato.priors.settings import PriorSettings
from sfumato.target import BATCH, WeightsView
from sfumato.types import Images, Labels

SEEN = Variation(scale=(0.8, 1.0), rotation=5.0, jitter=0.2, flip=0.5)
"""What the target is shown of made pictures, while the prior learns and while it is searched."""


def conditional_prior(image_shape: tuple[int, int, int], settings: PriorSettings, classes: int) -> Prior:
    """Make an untrained conditional GAN; the weights come from PyTorch's ambient stream.

    Raises:
        ConfigError: such pictures cannot be made.

    Example:
        >>> conditional_prior((3, 32, 32), PriorSettings(width=4), 10).kind
        'conditional'
    """
    made = ConditionalGenerator(image_shape, classes, latent=settings.latent, width=settings.width)
    critic = ProjectionDiscriminator(image_shape, classes, width=settings.width)
    return Prior("conditional", made, critic, latent=settings.latent, image_shape=image_shape)


@torch.no_grad()
def pseudo_labels(view: WeightsView, public: Pictures, top: int) -> tuple[Tensor, Labels]:
    """Choose the public pictures that stand for each class of a target.

    Args:
        view: of the target.
        public: pictures of people whom it does not know.
        top: how many for each class.

    Returns:
        Places in `public` and the class of each, (K * top,), int64, on the CPU: class by class, of each the surest first. A
        picture may stand for several classes.

    Raises:
        DataError: there are fewer pictures than `top`.
    """
    require_enough(public, top)
    sure = torch.cat([view.classify(x).logits.softmax(1) for x, _ in batches(public, size=BATCH, device=view.device)])
    chosen = sure.topk(top, dim=0).indices.T.cpu()  # (K, top)
    return chosen.flatten(), torch.arange(len(chosen)).repeat_interleave(top)


def require_enough(public: Pictures, top: int) -> None:
    """Raise a DataError unless there are as many public pictures as are to stand for a class."""
    if len(public) < top:
        raise DataError(f"{top} public pictures are to stand for each class, got only {len(public)}; lower top, or give more")


class ConditionalContest(Contest):
    """Made pictures of a class against public ones that look like it to the target.

    Args:
        prior: whose networks learn.
        settings: of the training.
        view: of the target.
        public: pictures of people whom it does not know.

    Raises:
        DataError: there are fewer pictures than stand for a class.
    """

    def __init__(self, prior: Prior, settings: PriorSettings, view: WeightsView, public: Pictures) -> None:
        super().__init__(prior, settings)
        self.view = view
        self.places, self.labels = pseudo_labels(view, public, settings.top)
        self.classes = int(self.labels[-1]) + 1

    def critic_loss(self, turn: Turn) -> Tensor:
        """Return what the discriminator minimizes."""
        stream = turn.stream("pictures")
        index = torch.randint(len(self.places), (self.settings.batch_size,), generator=stream)
        x, y = turn.at(self.places[index], stream), self.labels[index].to(turn.device)
        with torch.no_grad():
            x_hat, wanted = self._made(turn)
        true, made = self.critic(torch.cat([x, x_hat]), torch.cat([y, wanted])).chunk(2)
        return critic_gap(self.settings.loss, true, made)

    def generator_loss(self, turn: Turn) -> Tensor:
        """Return what the generator minimizes."""
        x_hat, y = self._made(turn)
        loss = generator_gap(self.settings.loss, self.critic(x_hat, y))
        if self.settings.margin:
            seen = SEEN.vary(x_hat, torch.rand(len(x_hat), DRAWS, generator=turn.stream("augment")).to(x_hat.device))
            loss = loss + self.settings.margin * max_margin(self.view.classify(seen).logits, y).mean()
        return loss

    def _made(self, turn: Turn) -> tuple[Images, Labels]:
        """Make pictures of random classes."""
        drawn = torch.randint(self.classes, (self.settings.batch_size,), generator=turn.stream("classes"))
        y = drawn.to(turn.device)
        return self.generator(turn.latents(), y), y
