# SPDX-License-Identifier: Apache-2.0
"""The discriminator of an inversion-specific GAN: it names the target's class of a picture, and so tells true from made.

Source: chen2021kedmi, section 3.2, and its release (constants); salimans2016improved, sections 3.2 (minibatch discrimination)
and 5 (the logits of classes as scores of being true).
Equations: o_b(x_i) = sum_j exp(-||M_i,b - M_j,b||_1) - 1, M_i = f(x_i) T -> MinibatchDiscrimination
Departures: in evaluation mode a picture is judged as if it were alone in its batch, o = 0, so that what an attack finds does not
depend on which rows share a batch; the release compares the pictures of an attack with each other. As in `Critic` a convolution
halves a side only where at least 4 pixels are left of it; with 64x64 it is the release's network. Its tensor T starts from
N(0, 1), where with 4,096 features exp(-L1) is as good as 0 from the first step to the last: a smaller `std` makes the layer see
something.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.types import Images

_LEAST = 4


class MinibatchDiscrimination(nn.Module):
    """Tell each picture how close the others of its batch are to it.

    Args:
        features: of a picture.
        kernels: how many closenesses.
        dims: of the space in which each is measured.
        std: of the initial weights.

    Example:
        >>> layer = MinibatchDiscrimination(4, kernels=2, dims=3)
        >>> layer(torch.ones(5, 4))[0]
        tensor([4., 4.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, features: int, *, kernels: int = 64, dims: int = 50, std: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, kernels, dims) * std)

    def forward(self, features: Tensor) -> Tensor:
        """Return the closenesses of each picture, (N, kernels), of features (N, F); all 0 in evaluation mode."""
        if not self.training:
            return features.new_zeros(len(features), self.weight.shape[1])
        placed = torch.einsum("nf,fbc->nbc", features, self.weight)
        apart = (placed[:, None] - placed[None]).abs().sum(3)  # (N, N, kernels)
        return torch.exp(-apart).sum(1) - 1  # o_b


class InversionDiscriminator(nn.Module):
    """Four strided convolutions, minibatch discrimination, and a linear layer to the target's classes.

    Args:
        image_shape: (C, H, W) of the pictures to judge, H and W at least 4.
        classes: of the target.
        channels: of the first convolution; the others have twice, four times and four times as many.
        kernels: of the minibatch discrimination.
        dims: likewise.
        std: likewise.

    Raises:
        ConfigError: the pictures are smaller, or a number is not positive.

    Example:
        >>> features, logits = InversionDiscriminator((3, 64, 64), 10, kernels=16, dims=8, std=0.05)(torch.zeros(2, 3, 64, 64))
        >>> features.shape, logits.shape
        (torch.Size([2, 4096]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        channels: int = 64,
        kernels: int = 64,
        dims: int = 50,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        inputs, *sides = image_shape
        if min(sides) < _LEAST or min(classes, channels, kernels, dims) < 1 or not std > 0:
            raise ConfigError(
                f"a discriminator takes pictures of at least {_LEAST}x{_LEAST}, and classes, channels, kernels, dims and std "
                f"must be positive, got {sides[0]}x{sides[1]}, {classes}, {channels}, {kernels}, {dims} and {std}"
            )
        layers: list[nn.Module] = []
        for outputs, kernel in ((channels, 5), (2 * channels, 5), (4 * channels, 5), (4 * channels, 3)):
            halved = [(side + 1) // 2 for side in sides]
            down, across = (2 if half >= _LEAST else 1 for half in halved)
            sides = [half if half >= _LEAST else side for half, side in zip(halved, sides, strict=True)]
            convolution = nn.Conv2d(inputs, outputs, kernel, (down, across), kernel // 2)
            layers += [convolution, nn.InstanceNorm2d(outputs, affine=True), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Flatten())
        features = inputs * sides[0] * sides[1]
        self.closeness = MinibatchDiscrimination(features, kernels=kernels, dims=dims, std=std)
        self.classifier = nn.Linear(features + kernels, classes)

    def forward(self, x: Images) -> tuple[Tensor, Tensor]:
        """Return what the convolutions see in each picture, (N, F), and the logits of the classes, (N, K)."""
        features: Tensor = self.layers(x)
        return features, self.classifier(torch.cat([features, self.closeness(features)], 1))
