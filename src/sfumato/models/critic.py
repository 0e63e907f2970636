# SPDX-License-Identifier: Apache-2.0
"""A critic of pictures: the network that a Wasserstein GAN trains to tell made pictures from true ones, and its penalty.

Source: gulrajani2017wgan, section 4 and Algorithm 1 (penalty); zhang2020secret, supplement (network), as in the CEM release.
Equations: penalty = E (||grad_u D(u)||_2 - 1)^2, u = e x + (1 - e) x_hat, e uniform in [0, 1] -> gradient_penalty
Departures: the CEM release has pictures of 32x32, which three halvings take to the 4x4 of the last convolution; with four levels
it is the network for 64x64 of zhang2020secret. Here a convolution halves a side only where at least 4 pixels are left of it, and
the scores of all places of the last convolution are averaged: a larger picture is judged by overlapping parts.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.types import Images

_LAST = 4


class Critic(nn.Module):
    """A few 5x5 convolutions of stride 2 and one 4x4 convolution to a score.

    Instance norm takes the place of batch norm, since the penalty is on the gradient of each picture's own score; the first
    convolution has none.

    Args:
        image_shape: (C, H, W) of the pictures to judge, H and W at least 4.
        channels: of the first convolution; each of the others has twice as many as the one before.
        levels: how many convolutions of stride 2.

    Raises:
        ConfigError: the pictures are smaller, or channels or levels is below 1.

    Example:
        >>> Critic((3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, image_shape: tuple[int, int, int], *, channels: int = 64, levels: int = 3) -> None:
        super().__init__()
        colors, *sides = image_shape
        if min(sides) < _LAST or min(channels, levels) < 1:
            raise ConfigError(
                f"a critic takes pictures of at least {_LAST}x{_LAST} and has at least 1 channel, "
                f"got {sides[0]}x{sides[1]} and {channels}, with {levels} levels; the release has 32x32, 64 and 3"
            )
        widths = (colors, *(channels << level for level in range(levels)))
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            halved = [(side + 1) // 2 for side in sides]
            down, across = (2 if half >= _LAST else 1 for half in halved)
            sides = [half if half >= _LAST else side for half, side in zip(halved, sides, strict=True)]
            norm = [nn.InstanceNorm2d(outputs, affine=True)] if layers else []
            layers += [nn.Conv2d(inputs, outputs, 5, (down, across), 2), *norm, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, _LAST))

    def forward(self, x: Images) -> Tensor:
        """Return the score of each picture, (N,); higher means more like a true one."""
        scores: Tensor = self.layers(x)
        return scores.mean((1, 2, 3))


def gradient_penalty(critic: nn.Module, x: Images, x_hat: Images) -> Tensor:
    """Return how far the critic's gradient is from length 1 between true and made pictures.

    Args:
        critic: from pictures to scores, (N,), no picture's score depending on another picture.
        x: true pictures, (N, C, H, W).
        x_hat: made pictures, likewise.

    Returns:
        A scalar, at least 0, with gradient to the critic. The places between the pictures come from PyTorch's ambient stream.

    Example:
        >>> gradient_penalty(lambda u: 3 * u.sum((1, 2, 3)), torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)).item()
        4.0
    """
    share = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
    between = (share * x + (1 - share) * x_hat).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), [between], create_graph=True)
    length: Tensor = slope.flatten(1).norm(dim=1)
    return (length - 1).square().mean()
