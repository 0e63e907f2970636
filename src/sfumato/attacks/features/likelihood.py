# SPDX-License-Identifier: Apache-2.0
"""Regularized maximum likelihood estimation: look for the smooth picture whose features are those that were released.

Source: he2019inversion, section 4.1 (rMLE).
Equations: x_hat = argmin_x ||head(x) - z||^2 + lambda TV(x) -> Likelihood.reconstruct;
    TV(x) = sum_ij (|x_i+1,j - x_ij|^2 + |x_i,j+1 - x_ij|^2)^(1/2) -> total_variation
Departures: the squared distance is divided by the spread of the adversary's own features, and TV is a mean over pixels, so that
`smoothness` means the same at every cut; the release has a weight for each layer instead, from 0 to 1e4. All pictures are
optimized in one batch: Adam's steps are elementwise, so each picture gets the steps that it would get alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.data.loader import as_images
from sfumato.errors import ConfigError
from sfumato.target import BATCH, WeightsView
from sfumato.types import Images, Reconstruction


@dataclass(kw_only=True)
class Likelihood(FeatureAttack):
    """Optimize x to match z; white box: the adversary has the weights of the head.

    Args:
        steps: of Adam (amsgrad, eps 1e-3, as the release).
        learning_rate: of Adam, in pixel values.
        smoothness: weight of the total variation, lambda.
        pictures: how many pictures of each part are attacked.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> Likelihood(steps=100).access
        'weights'
    """

    access = "weights"

    steps: int = 5000
    learning_rate: float = 1e-2
    smoothness: float = 1e-2
    pictures: int = 64

    def __post_init__(self) -> None:
        if self.steps < 1 or self.pictures < 1 or not self.learning_rate > 0 or not self.smoothness >= 0:
            raise ConfigError(f"steps, pictures and learning_rate must be positive and smoothness >= 0, got {self}")

    @property
    def limit(self) -> int | None:
        """How many pictures of each part are attacked."""
        return self.pictures

    @torch.enable_grad()
    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return the pictures that the search ends with."""
        view = adversary.view
        assert isinstance(view, WeightsView)  # noqa: S101 -- the access that this attack declares
        x = torch.full((len(z), *adversary.image_shape), 0.5, device=z.device, requires_grad=True)
        optimizer = torch.optim.Adam([x], lr=self.learning_rate, eps=1e-3, amsgrad=True)
        scale = _spread(adversary)
        for step in range(self.steps):
            distance = (view.head(x) - z).square().flatten(1).sum(1) / scale
            objective = (distance + self.smoothness * total_variation(x)).sum()
            (x.grad,) = torch.autograd.grad(objective, [x])
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
            adversary.watch(step + 1, self.steps)
        return (Reconstruction(x.detach()),)


def _spread(adversary: Adversary) -> Tensor:
    """Return the mean squared distance of the adversary's own features to their mean."""
    own = adversary.auxiliary
    x = as_images(own.read(torch.arange(min(BATCH, len(own)))), adversary.view.device)
    z = adversary.view.features(x)
    return (z - z.mean(0)).square().flatten(1).sum(1).mean().clamp_min(1e-12)


def total_variation(x: Images) -> Tensor:
    """Return the mean length of the gradient of each picture.

    Args:
        x: (N, C, H, W), [0, 1].

    Returns:
        (N,), at least 0.

    Example:
        >>> total_variation(torch.ones(2, 1, 4, 4)).round(decimals=3)
        tensor([0., 0.])
    """
    down = x[..., 1:, :-1] - x[..., :-1, :-1]
    across = x[..., :-1, 1:] - x[..., :-1, :-1]
    # The root has no derivative at 0, where a flat region is.
    return (down.square() + across.square() + 1e-8).sqrt().flatten(1).mean(1)
