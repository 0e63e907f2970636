# SPDX-License-Identifier: Apache-2.0
"""Image decoders: networks that make a picture of released features.

Source: xia2025cem, supplement Section S2, Figure S1 and released code (`res_normN8C64`) for `ResidualDecoder`; ding2024patrol,
"Inversion Model and Surrogate Inversion Model", which follows he2019inversion, for `MirrorDecoder`.
Departures: features of any shape are taken and pictures of any size made; with (8, 8, 8) and 3x32x32 `ResidualDecoder` is the
published network to the parameter. `MirrorDecoder` undoes poolings by repeating pixels, and layers that keep the shape (batch
norm, activations, dropout) by one ReLU; it follows the main path of a residual block only, and starts from weights that the paper
does not mention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.models.mirror import LayerShape
from sfumato.models.reshape import Grid, grid_shape


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, with a shortcut around them.

    Args:
        inputs: channels of the map.
        outputs: channels of the result; where they differ from `inputs` the shortcut is a 1x1 convolution without bias, and batch
            norm.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity() if inputs == outputs else projection

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H, W) of x (N, inputs, H, W)."""
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class ResidualDecoder(nn.Module):
    """The reference inversion network of CEM: residual blocks, then upsampling by transposed convolutions.

    A map (C, h, w) is doubled in size until it covers the picture, then averaged down to it where it does not fit exactly; a map
    larger than the picture is only averaged. Tokens (T, D) are laid out as a square map, without the class token where T - 1 is
    the square; all other features go through a linear layer to a map of an eighth of the picture.

    Args:
        feature_shape: of z for one picture, any rank.
        image_shape: (C, H, W) of the pictures to make.
        blocks: residual blocks between the first and the last.
        channels: of those blocks.

    Raises:
        ConfigError: `feature_shape` is empty, `image_shape` is not three numbers, a size is below 1, or `blocks` is negative.

    Example:
        >>> decoder = ResidualDecoder((8, 8, 8), (3, 32, 32))
        >>> sum(p.numel() for p in decoder.parameters())
        711539
    """

    def __init__(
        self, feature_shape: Sequence[int], image_shape: tuple[int, int, int], *, blocks: int = 8, channels: int = 64
    ) -> None:
        super().__init__()
        _check_shapes(feature_shape, image_shape)
        check_size(blocks, channels)
        colors, height, width = image_shape
        grid = grid_shape(feature_shape) or (channels, math.ceil(height / 8), math.ceil(width / 8))
        doublings = max(0, math.ceil(math.log2(max(height / grid[1], width / grid[2]))))
        layers: list[nn.Module] = [Grid(feature_shape, grid), ResBlock(grid[0], channels)]
        for _ in range(blocks):
            layers += [ResBlock(channels, channels), nn.ReLU()]
        for _ in range(doublings):
            layers += [nn.ConvTranspose2d(channels, channels, 3, 2, 1, 1), nn.BatchNorm2d(channels), nn.ReLU()]
        if (grid[1] << doublings, grid[2] << doublings) != (height, width):
            layers += [nn.AdaptiveAvgPool2d((height, width))]
        self.layers = nn.Sequential(*layers, ResBlock(channels, colors), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        """Make pictures of features.

        Args:
            z: (N, *feature_shape), float, any range.

        Returns:
            (N, C, H, W), (0, 1).
        """
        out: Tensor = self.layers(z)
        return out


class MirrorDecoder(nn.Module):
    """PATROL's inversion network: it undoes a head layer by layer, from the last to the first.

    A convolution is undone by a transposed convolution of the same kernel, stride, padding and groups, a transposed convolution
    by a convolution, a linear layer by a linear layer, and what lies between them by repeating pixels or by reshaping; a ReLU
    follows each learned layer but the last, and a sigmoid ends it. A head without any layer that can be undone (normalization
    alone, say) gets one 3x3 convolution. Weights start as he2015delving has them: without normalization, PyTorch's own would
    leave a deep one answering with the same picture for every z.

    Args:
        layers: of the head, as `mirror_layers` returns them: each takes the shape that the one before gives.
        image_shape: (C, H, W) of the pictures to make: the shape that the first layer takes.

    Raises:
        ConfigError: the layers are not such a chain, or do not start from `image_shape`.

    Example:
        >>> import torch
        >>> from sfumato.models.mirror import mirror_layers
        >>> head = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        >>> decoder = MirrorDecoder(mirror_layers(head, torch.zeros(1, 3, 32, 32)), (3, 32, 32))
        >>> decoder(torch.zeros(2, 8, 16, 16)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, layers: Sequence[LayerShape], image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        _check_chain(layers, image_shape)
        undone: list[nn.Module] = []
        for layer in reversed(layers):
            undone += [layer.inverse(), nn.ReLU()] if layer.learned else [layer.inverse()]
        learned = [place for place, module in enumerate(undone) if isinstance(module, nn.ReLU)]
        if learned:
            undone.pop(learned[-1])
        else:
            undone.append(nn.Conv2d(image_shape[0], image_shape[0], 3, padding=1))
        self.layers = nn.Sequential(*undone, nn.Sigmoid())
        for module in self.modules():
            _keep_variance(module)

    def forward(self, z: Tensor) -> Tensor:
        """Make pictures of features.

        Args:
            z: (N, *out_shape of the last layer), float, any range.

        Returns:
            (N, C, H, W), (0, 1).
        """
        out: Tensor = self.layers(z)
        return out


def _keep_variance(module: nn.Module) -> None:
    """Draw the weights of a layer so that a ReLU before it costs no variance, from N(0, 2 / inputs of one output)."""
    if isinstance(module, nn.ConvTranspose2d):
        inputs = module.in_channels // module.groups * math.prod(module.kernel_size) / math.prod(module.stride)
    elif isinstance(module, nn.Conv2d | nn.Linear):
        inputs = module.weight[0].numel()
    else:
        return
    nn.init.normal_(module.weight, std=math.sqrt(2 / inputs))
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def check_size(blocks: int, channels: int) -> None:
    """Refuse a size that no `ResidualDecoder` can have.

    Args:
        blocks: residual blocks between the first and the last.
        channels: of those blocks.

    Raises:
        ConfigError: blocks is negative or channels is not positive.

    Example:
        >>> check_size(8, 64)
    """
    if blocks < 0 or channels < 1:
        raise ConfigError(f"blocks must be >= 0 and channels >= 1, got {blocks} and {channels}; the paper has 8 and 64")


def _check_shapes(feature_shape: Sequence[int], image_shape: Sequence[int]) -> None:
    """Refuse shapes that no decoder can have."""
    if len(feature_shape) == 0 or len(image_shape) != 3 or min(*feature_shape, *image_shape) < 1:
        raise ConfigError(
            f"feature_shape must be sizes of at least 1 and image_shape (channels, height, width), "
            f"got {tuple(feature_shape)} and {tuple(image_shape)}; leave the batch out of both"
        )


def _check_chain(layers: Sequence[LayerShape], image_shape: tuple[int, int, int]) -> None:
    """Refuse layers that do not lead from pictures to features."""
    shape = tuple(image_shape)
    for layer in layers:
        if layer.in_shape != shape:
            raise ConfigError(
                f"each layer must take what the one before gives, {shape}, got a {layer.kind} layer that takes {layer.in_shape}; "
                "use mirror_layers on the head and a picture of image_shape"
            )
        shape = layer.out_shape
