# SPDX-License-Identifier: Apache-2.0
"""Regularized maximum likelihood estimation: look for the smooth picture whose features are those that were released.

Source: he2019inversion, section 4.1 (rMLE); diggle1984, for a likelihood that is known by its draws only.
Equations: x_hat = argmin_x L(x) + lambda TV(x) -> Likelihood.reconstruct;
    L(x) = ||head(x) - z||^2 for a target that adds Gaussian noise, or none;
    L(x) = -2 w^2 sum_i log(1/m sum_j exp(-(protect_j(head(x))_i - z_i)^2 / 2 w^2)) for m draws of any other -> kernel_distance;
    TV(x) = sum_ij (|x_i+1,j - x_ij|^2 + |x_i,j+1 - x_ij|^2)^(1/2) -> total_variation
Departures: the squared distance is divided by the spread of the adversary's own features, and TV is a mean over pixels, so that
`smoothness` means the same at every cut; the release has a weight for each layer instead, from 0 to 1e4. All pictures are
optimized in one batch: Adam's steps are elementwise, so each picture gets the steps that it would get alone. The source has no
defense that draws. The usual expectation over its draws of the squared distance (athalye2018eot) is the limit of the second L for
a wide kernel, and worthless here: it is the distance to the mean release plus the variance of the releases, so that for additive
noise it only adds a constant, and for dropout it has the minimum of ||head(x) - z||^2 itself.
"""

from __future__ import annotations

import math
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
        view = adversary.view
        assert isinstance(view, WeightsView)  # noqa: S101 -- the access that this attack declares
        x = torch.full((len(z), *adversary.image_shape), 0.5, device=z.device, requires_grad=True)
        optimizer = torch.optim.Adam([x], lr=self.learning_rate, eps=1e-3, amsgrad=True)
        scale = _spread(adversary)
        for step in range(self.steps):
            distance = self._distance(view, x, z, scale)
            objective = (distance + self.smoothness * total_variation(x)).sum()
            (x.grad,) = torch.autograd.grad(objective, [x])
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
            adversary.watch(step + 1, self.steps)
        return (Reconstruction(x.detach()),)

    def _distance(self, view: WeightsView, x: Images, z: Tensor, scale: Tensor) -> Tensor:
        """Return L(x) in units of the spread of features, (N,)."""
        clean = view.head(x)
        if view.gaussian:
            return (clean - z).square().flatten(1).sum(1) / scale
        draws = torch.stack([view.protect(clean) for _ in range(1 if view.deterministic else self.draws)])
        return kernel_distance(draws, z, self.kernel * (scale / z[0].numel()).sqrt()) / scale


def _spread(adversary: Adversary) -> Tensor:
    """Return the mean squared distance of the adversary's own features to their mean."""
    own = adversary.auxiliary
    x = as_images(own.read(torch.arange(min(BATCH, len(own)))), adversary.view.device)
    z = adversary.view.features(x)
    return (z - z.mean(0)).square().flatten(1).sum(1).mean().clamp_min(1e-12)


def kernel_distance(draws: Tensor, z: Tensor, width: Tensor) -> Tensor:
    """Return how unlikely features are among draws, as a squared distance.

    A feature that one draw explains is explained: one that dropout set to zero says nothing against the picture.

    Args:
        draws: what might have been released, (m, N, ...).
        z: what was released, (N, ...).
        width: of the Gaussian kernel around each draw, in units of z, a scalar.

    Returns:
        (N,), at least 0; of a single draw it is the squared distance, whatever the width.

    Example:
        >>> draws = torch.tensor([[[0.0]], [[100.0]]])
        >>> kernel_distance(draws, torch.tensor([[100.0]]), torch.tensor(1.0)).round(decimals=3)
        tensor([1.3860])
    """
    nearness = -(draws - z).square() / (2 * width.square())
    log_mean = nearness.logsumexp(0) - math.log(len(draws))
    return -2 * width.square() * log_mean.flatten(1).sum(1)


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
