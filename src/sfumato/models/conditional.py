# SPDX-License-Identifier: Apache-2.0
"""A generator that is told a class, and the discriminator that judges whether a picture is true and of its class.

Source: yuan2023plg, section 3.2 and its release (SN-ResNet with 64 channels), after miyato2018projection (projection, networks)
and miyato2018spectral (spectral norm).
Equations: D(x, y) = psi(phi(x)) + <embed(y), phi(x)> -> ProjectionDiscriminator
Departures: the release makes 64x64 and ends in tanh; here the sizes are those of `Generator` and it ends in a sigmoid, since
pictures are in [0, 1]; the discriminator takes them to [-1, 1], where the release's pictures are. A conditional norm is a shared
batch norm with a scale and a shift of each class, which start at 1 and 0.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sfumato.errors import ConfigError
from sfumato.models.generator import grid_of
from sfumato.types import Images, Labels

_MOST = 16  # times the width: no layer has more channels


class ConditionalNorm(nn.Module):
    """Batch norm with a scale and a shift of each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Labels) -> Tensor:
        """Return x, (N, channels, H, W), normalized for the classes y, (N,)."""
        return torch.addcmul(self.shift(y)[:, :, None, None], self.norm(x), self.scale(y)[:, :, None, None])


class _Doubling(nn.Module):
    """A residual block that doubles height and width."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ConditionalNorm(inputs, classes), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = ConditionalNorm(outputs, classes), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = nn.Conv2d(inputs, outputs, 1)
        _start(self, nn.Conv2d)

    def forward(self, x: Tensor, y: Labels) -> Tensor:
        """Return (N, outputs, 2 H, 2 W) of x (N, inputs, H, W)."""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, y)), scale_factor=2, mode="nearest"))
        h = self.conv2(F.relu(self.norm2(h, y)))
        # A 1x1 convolution and a doubling commute, and this order is the cheaper.
        short: Tensor = F.interpolate(self.short(x), scale_factor=2, mode="nearest")
        doubled: Tensor = h + short
        return doubled


class ConditionalGenerator(nn.Module):
    """Residual blocks whose norms know the class.

    Args:
        image_shape: (C, H, W) of the pictures to make, square.
        classes: that it can be told.
        latent: length of a latent.
        width: channels of the last block; each block before has twice as many as the next, up to sixteen times the width.

    Raises:
        ConfigError: such pictures cannot be made, or a size is below 1.

    Example:
        >>> generator = ConditionalGenerator((3, 32, 32), 10, width=8)
        >>> generator(torch.zeros(2, 128), torch.tensor([3, 4])).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, latent: int = 128, width: int = 64) -> None:
        super().__init__()
        self.side, doublings = grid_of(image_shape)
        if min(classes, latent, width) < 1:
            raise ConfigError(f"classes, latent and width must be at least 1, got {classes}, {latent} and {width}")
        channels = [width * min(1 << place, _MOST) for place in reversed(range(doublings + 1))]
        self.first = nn.Linear(latent, channels[0] * self.side**2)
        self.blocks = nn.ModuleList(_Doubling(inputs, outputs, classes) for inputs, outputs in pairwise(channels))
        self.norm, self.pixels = nn.BatchNorm2d(width), nn.Conv2d(width, image_shape[0], 3, padding=1)
        for layer in (self.first, self.pixels):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, z: Tensor, y: Labels) -> Images:
        """Make pictures of classes.

        Args:
            z: (N, latent), drawn from N(0, I).
            y: the class of each, (N,).

        Returns:
            (N, C, H, W), (0, 1).
        """
        h = self.first(z).unflatten(1, (-1, self.side, self.side))
        for block in self.blocks:
            h = block(h, y)
        return torch.sigmoid(self.pixels(F.relu(self.norm(h))))


class _Halving(nn.Module):
    """A residual block with spectral norm that halves height and width, or keeps them."""

    def __init__(self, inputs: int, outputs: int, *, first: bool = False, halves: bool = True) -> None:
        super().__init__()
        self.first, self.halves = first, halves
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = nn.Conv2d(inputs, outputs, 1)
        _start(self, nn.Conv2d)
        for name in ("conv1", "conv2", "short"):
            setattr(self, name, spectral_norm(getattr(self, name)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / 2, W / 2) of x (N, inputs, H, W)."""
        h: Tensor = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.halves:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        short: Tensor = self.short(x)
        return h + short


class ProjectionDiscriminator(nn.Module):
    """Residual blocks with spectral norm, and a score that is linear in what they see and in the class.

    Args:
        image_shape: (C, H, W) of the pictures to judge, square.
        classes: that a picture can have.
        width: channels of the first block; each halving has twice as many as the one before, up to sixteen times the width.

    Raises:
        ConfigError: the size is none that a generator makes, or a size is below 1.

    Example:
        >>> ProjectionDiscriminator((3, 32, 32), 10, width=8)(torch.zeros(2, 3, 32, 32), torch.tensor([3, 4])).shape
        torch.Size([2])
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, width: int = 64) -> None:
        super().__init__()
        doublings = grid_of(image_shape)[1]
        if min(classes, width) < 1:
            raise ConfigError(f"classes and width must be at least 1, got {classes} and {width}")
        channels = [width * min(1 << place, _MOST) for place in range(doublings + 1)]
        first = _Halving(image_shape[0], width, first=True)
        sizes = list(pairwise(channels))
        # One halving is the first block's, so that the last keeps its size.
        others = [_Halving(inputs, outputs, halves=place < len(sizes) - 1) for place, (inputs, outputs) in enumerate(sizes)]
        self.blocks = nn.Sequential(first, *others, nn.ReLU())
        self.score = spectral_norm(_start(nn.Linear(channels[-1], 1), nn.Linear))
        self.embed = spectral_norm(_start(nn.Embedding(classes, channels[-1]), nn.Embedding))

    def forward(self, x: Images, y: Labels) -> Tensor:
        """Return the score of each picture as one of its class, (N,); higher means more like a true one.

        Args:
            x: (N, C, H, W), [0, 1].
            y: the class of each, (N,).
        """
        seen = self.blocks(2 * x - 1).sum((2, 3))
        scores: Tensor = self.score(seen)[:, 0] + (self.embed(y) * seen).sum(1)
        return scores


def _start(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """Give the layers of a kind inside a module the initial weights of the release."""
    for layer in module.modules():
        if isinstance(layer, kind):
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
    return module
