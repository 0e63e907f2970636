# SPDX-License-Identifier: Apache-2.0
"""How far the features of a picture are from those that were released: the likelihood of the attacks that have the weights.

Source: he2019inversion, section 4.1; diggle1984, for a likelihood that is known by its draws only.
Equations: L(x) = ||head(x) - z||^2 for a target that adds Gaussian noise, or none;
    L(x) = -2 w^2 sum_i log(1/m sum_j exp(-(protect_j(head(x))_i - z_i)^2 / 2 w^2)) for m draws of any other -> kernel_distance
Departures: L is divided by the spread of the adversary's own features, so that a weight beside it means the same at every cut.
The source has no defense that draws. The usual expectation over its draws of the squared distance (athalye2018eot) is the limit
of the second L for a wide kernel, and worthless here: it is the distance to the mean release plus the variance of the releases,
so that for additive noise it only adds a constant, and for dropout it has the minimum of ||head(x) - z||^2 itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.attacks.base import Adversary
from sfumato.data.loader import as_images
from sfumato.target import BATCH, WeightsView
from sfumato.types import Features, Images


class Matching:
    """The distance of pictures to released features, in units of the spread of features.

    Args:
        adversary: what the adversary has; its access is "weights".
        draws: of the defense at each look, m, where it draws anything but Gaussian noise.
        kernel: width of the kernel around each draw, w, in standard deviations of a feature.
    """

    def __init__(self, adversary: Adversary, *, draws: int, kernel: float) -> None:
        assert isinstance(adversary.view, WeightsView)  # noqa: S101 -- the access that these attacks declare
        self._view = adversary.view
        self._draws = 1 if adversary.view.deterministic else draws
        self._kernel = kernel
        self._spread = _spread(adversary)

    def __call__(self, x: Images, z: Features) -> Tensor:
        """Return L(x), (N,), with gradient to x.

        Args:
            x: pictures, (N, C, H, W).
            z: what was released for each, (N, ...).
        """
        clean = self._view.head(x)
        if self._view.gaussian:
            return (clean - z).square().flatten(1).sum(1) / self._spread
        draws = torch.stack([self._view.protect(clean) for _ in range(self._draws)])
        return kernel_distance(draws, z, self._kernel * (self._spread / z[0].numel()).sqrt()) / self._spread


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
