# SPDX-License-Identifier: Apache-2.0
"""A small generator in two steps: a latent is mapped to a style, and a synthesis makes a picture that has it.

It stands in for StyleGAN where an attack works on styles (PPA, MIRROR, VMI, IF-GMI) and a picture has 32 or 64 pixels.

Source: karras2019stylegan, sections 2 (mapping, synthesis) and appendix B (truncation); karras2020stylegan2, section 2.2 (the
convolutions), appendix B (initial weights and gains).
Equations: mean + psi (w - mean) -> StyleGenerator.mapping; those of `sfumato.models.modulated`.
Departures: one convolution a size and two styles' worth of layers less than StyleGAN2; no noise, so that a style is a picture;
one layer to pixels, at the end, ending in a sigmoid; the mapping has a learning rate of the others' and ends in a LeakyReLU of
slope 0.2, as MIRROR's P space needs it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import ConfigError
from sfumato.models.generator import grid_of
from sfumato.models.modulated import modulated
from sfumato.types import Images

SLOPE = 0.2
"""Of the LeakyReLU that ends a mapping: styles below 0 are so much smaller."""
_TINY = 1e-8
_MOST = 8  # times the width: no layer has more channels


class _Modulated(nn.Module):
    """A 3x3 convolution whose input channels a style scales, with outputs of unit variance, and a LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, styles: int, *, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.scale = nn.Linear(styles, inputs)
        nn.init.normal_(self.scale.weight, 0, 1 / math.sqrt(styles))
        nn.init.ones_(self.scale.bias)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / math.sqrt(9 * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return (N, outputs, H, W), or twice as high and wide where it doubles, of x (N, inputs, H, W) and styles (N, D)."""
        scales = self.scale(w)
        if self.doubles:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.leaky_relu(modulated(x, self.weight, scales) + self.bias[:, None, None], SLOPE) * math.sqrt(2)


class StyleGenerator(nn.Module):
    """A mapping and a synthesis, a `Style` of `sfumato.priors.base`.

    Args:
        image_shape: (C, H, W) of the pictures to make, square.
        latent: length of a latent and of a style.
        width: channels of the last layer; each layer before has twice as many as the next, up to eight times the width.
        depth: layers of the mapping.

    Raises:
        ConfigError: such pictures cannot be made, or a size is below 1.

    Example:
        >>> generator = StyleGenerator((3, 32, 32), width=16)
        >>> w = generator.mapping(torch.randn(2, 64), psi=0.7)
        >>> generator.layers, generator.synthesis(w).shape, generator.activations(w, 2).shape
        (4, torch.Size([2, 3, 32, 32]), torch.Size([2, 64, 8, 8]))
    """

    _mean: Tensor

    def __init__(self, image_shape: tuple[int, int, int], *, latent: int = 64, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        side, doublings = grid_of(image_shape)
        if min(latent, width, depth) < 1:
            raise ConfigError(f"latent, width and depth must be at least 1, got {latent}, {width} and {depth}")
        steps: list[nn.Module] = []
        for _ in range(depth):
            steps += [nn.Linear(latent, latent), nn.LeakyReLU(SLOPE)]
            nn.init.kaiming_normal_(steps[-2].weight, a=SLOPE)  # type: ignore[arg-type]
            nn.init.zeros_(steps[-2].bias)  # type: ignore[arg-type]
        self.steps = nn.Sequential(*steps)
        channels = [width * min(1 << place, _MOST) for place in reversed(range(doublings + 1))]
        self.start = nn.Parameter(torch.randn(1, channels[0], side, side))
        inputs = [channels[0], *channels[:-1]]
        self.convolutions = nn.ModuleList(
            _Modulated(before, after, latent, doubles=place > 0)
            for place, (before, after) in enumerate(zip(inputs, channels, strict=True))
        )
        self.pixels = nn.Conv2d(width, image_shape[0], 1)
        self.register_buffer("_mean", torch.zeros(latent))

    @property
    def w_mean(self) -> Tensor:
        """The mean style, (D,); 0 until `measure`."""
        return self._mean

    @property
    def layers(self) -> int:
        """How many layers of the synthesis take a style of their own."""
        return len(self.convolutions)

    @torch.no_grad()
    def measure(self, z: Tensor) -> None:
        """Take the mean style of latents, (N, latent), for that of all."""
        self._mean.copy_(self.mapping(z).mean(0))

    def mapping(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """Return the styles of latents, (N, D): ``w_mean + psi * (w - w_mean)``."""
        w: Tensor = self.steps(z * torch.rsqrt(z.square().mean(1, keepdim=True) + _TINY))
        return w if psi == 1 else self._mean + psi * (w - self._mean)

    def activations(self, w: Tensor, stop: int, start: int = 0, activations: Tensor | None = None) -> Tensor:
        """Return what the layers before `stop` make of styles.

        Args:
            w: (N, D), the same in every layer, or (N, layers, D).
            stop: how many layers there are before; 0 gives the constant input.
            start: the layer to begin with; above 0 it begins with `activations`.
            activations: what the layers before gave.

        Returns:
            (N, channels, side, side).
        """
        x = self.start.expand(len(w), -1, -1, -1) if activations is None else activations
        for place in range(start, stop):
            x = self.convolutions[place](x, w if w.ndim == 2 else w[:, place])
        return x

    def synthesis(self, w: Tensor, start: int = 0, activations: Tensor | None = None) -> Images:
        """Make pictures of styles.

        Args:
            w: (N, D), the same in every layer, or (N, layers, D).
            start: the layer to begin with; above 0 it begins with `activations`.
            activations: what the layers before gave.

        Returns:
            (N, C, H, W), (0, 1).
        """
        return torch.sigmoid(self.pixels(self.activations(w, self.layers, start, activations)))

    def forward(self, z: Tensor) -> Images:
        """Make pictures of latents, (N, latent)."""
        return self.synthesis(self.mapping(z))


class StyleCritic(nn.Module):
    """A critic without normalization, for a penalty on the gradient at true pictures: strided convolutions and a linear layer.

    Args:
        image_shape: (C, H, W) of the pictures to judge, square.
        width: channels of the first convolution; each halving has twice as many as the one before, up to eight times the width.

    Raises:
        ConfigError: the size is none that a generator makes, or width is below 1.

    Example:
        >>> StyleCritic((3, 32, 32), width=8)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, image_shape: tuple[int, int, int], *, width: int = 32) -> None:
        super().__init__()
        side, doublings = grid_of(image_shape)
        if width < 1:
            raise ConfigError(f"width must be at least 1, got {width}")
        channels = [width * min(1 << place, _MOST) for place in range(doublings + 1)]
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], width, 3, 1, 1), nn.LeakyReLU(SLOPE)]
        for inputs, outputs in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side * side, 1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE)

    def forward(self, x: Images) -> Tensor:
        """Return the score of each picture, (N,); higher means more like a true one."""
        scores: Tensor = self.layers(2 * x - 1)
        return scores[:, 0]
