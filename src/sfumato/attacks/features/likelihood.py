# SPDX-License-Identifier: Apache-2.0
"""Regularized maximum likelihood estimation: look for the smooth picture whose features are those that were released.

Source: he2019inversion, section 4.1 (rMLE).
Equations: x_hat = argmin_x L(x) + lambda TV(x) -> Likelihood.reconstruct; L as `matching`;
    TV(x) = sum_ij (|x_i+1,j - x_ij|^2 + |x_i,j+1 - x_ij|^2)^(1/2) -> total_variation
Departures: those of `matching`; and TV is a mean over pixels, so that `smoothness` means the same at every cut; the release has a
weight for each layer instead, from 0 to 1e4. All pictures are optimized in one batch: Adam's steps are elementwise, so each
picture gets the steps that it would get alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.matching import Matching
from sfumato.errors import ConfigError
from sfumato.types import Images, Reconstruction


@dataclass(kw_only=True)
class Likelihood(FeatureAttack):
    """Optimize x to match z; white box: the adversary has the weights of the head.

    Args:
        steps: of Adam (amsgrad, eps 1e-3, as the release).
        learning_rate: of Adam, in pixel values.
        smoothness: weight of the total variation, lambda.
        pictures: how many pictures of each part are attacked.
        draws: of the defense at each step, m, where it draws anything but Gaussian noise.
        kernel: width of the kernel around each draw, w, in standard deviations of a feature.

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
    draws: int = 32
    kernel: float = 0.3

    def __post_init__(self) -> None:
        if min(self.steps, self.pictures, self.draws) < 1 or not (self.learning_rate > 0 and self.kernel > 0):
            raise ConfigError(f"steps, pictures, draws, learning_rate and kernel must be positive, got {self}")
        if not self.smoothness >= 0:
            raise ConfigError(f"smoothness must be >= 0, got {self.smoothness}; 0 looks at z alone")

    @property
    def limit(self) -> int | None:
        """How many pictures of each part are attacked."""
        return self.pictures

    @torch.enable_grad()
    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return the pictures that the search ends with."""
        x = torch.full((len(z), *adversary.image_shape), 0.5, device=z.device, requires_grad=True)
        optimizer = torch.optim.Adam([x], lr=self.learning_rate, eps=1e-3, amsgrad=True)
        matching = Matching(adversary, draws=self.draws, kernel=self.kernel)
        for step in range(self.steps):
            objective = (matching(x, z) + self.smoothness * total_variation(x)).sum()
            (x.grad,) = torch.autograd.grad(objective, [x])
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
            adversary.watch(step + 1, self.steps)
        return (Reconstruction(x.detach()),)


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
