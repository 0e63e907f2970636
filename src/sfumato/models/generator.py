# SPDX-License-Identifier: Apache-2.0
"""The generator of a plain GAN: a latent becomes a grid of features, which doublings take to a picture.

Source: zhang2020secret, supplement (the network of its release, which KEDMI, LOMMA, BREPMI and TL-DMI use too), after
radford2016dcgan (the form, and the initial weights).
Departures: the release has pictures of 64x64, four doublings of a grid of 4x4, and a variant for 32x32 without the first of them.
Here a grid has sides of 4 to 7 pixels, so that every size is made that a few doublings of such a grid reach, and `width` scales
all channels.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.types import Images

_SMALLEST, _LARGEST = 4, 7
_SPREAD = 0.02  # of the initial weights, radford2016dcgan


def grid_of(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return the side of the grid of features that a picture starts from, and how many doublings make the picture of it.

    Args:
        image_shape: (C, H, W).

    Raises:
        ConfigError: the picture is not square, or no grid of 4x4 to 7x7 becomes it by doublings.

    Example:
        >>> grid_of((3, 64, 64)), grid_of((1, 28, 28))
        ((4, 4), (7, 2))
    """
    colors, height, width = image_shape
    side, doublings = height, 0
    while side > _LARGEST and side % 2 == 0:
        side, doublings = side // 2, doublings + 1
    if colors < 1 or height != width or not _SMALLEST <= side <= _LARGEST or not doublings:
        raise ConfigError(
            f"a generator makes square pictures whose side is 4, 5, 6 or 7 doubled a few times, such as 28, 32, 64 or 128, got "
            f"{height}x{width} with {colors} channels; resize the pictures, with --size 32 or size = 32"
        )
    return side, doublings


class Generator(nn.Module):
    """A linear layer to a grid of features, and transposed convolutions that double it.

    Args:
        image_shape: (C, H, W) of the pictures to make, square.
        latent: length of a latent.
        width: channels before the last doubling; each doubling before has twice as many as the next.

    Raises:
        ConfigError: such pictures cannot be made, or a size is below 1.

    Example:
        >>> import torch
        >>> generator = Generator((3, 64, 64))
        >>> sum(p.numel() for p in generator.parameters())
        5142083
        >>> generator(torch.zeros(2, 100)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(self, image_shape: tuple[int, int, int], *, latent: int = 100, width: int = 64) -> None:
        super().__init__()
        side, doublings = grid_of(image_shape)
        if latent < 1 or width < 1:
            raise ConfigError(f"latent and width must be at least 1, got {latent} and {width}; the release has 100 and 64")
        channels = [width << place for place in reversed(range(doublings))]
        units = channels[0] * side * side
        layers: list[nn.Module] = [
            nn.Linear(latent, units, bias=False),
            nn.BatchNorm1d(units),
            nn.ReLU(),
            nn.Unflatten(1, (channels[0], side, side)),
        ]
        for inputs, outputs in pairwise(channels):
            layers += [_doubling(inputs, outputs, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _doubling(width, image_shape[0], bias=True), nn.Sigmoid())
        self.apply(_start)

    def forward(self, z: Tensor) -> Images:
        """Make pictures of latents.

        Args:
            z: (N, latent), drawn from N(0, I).

        Returns:
            (N, C, H, W), (0, 1).
        """
        x: Tensor = self.layers(z)
        return x


def _doubling(inputs: int, outputs: int, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, 1, bias=bias)


def _start(layer: nn.Module) -> None:
    """Give a layer its initial weights."""
    if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, _SPREAD)
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, _SPREAD)
