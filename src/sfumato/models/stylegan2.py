# SPDX-License-Identifier: Apache-2.0
"""The generator of StyleGAN2, with the names that NVIDIA's PyTorch code gives its weights: converted ones load as they are.

Source: karras2020stylegan2, sections 2 and 4 and appendix B (networks, gains); karras2020ada (the code whose names these are).
Equations: those of `sfumato.models.modulated`.
Departures: the noise is the constant one of each layer, so that a style is a picture. Everything is float32; activations are not
clamped at 256, which keeps half precision from overflowing and nothing else. Pictures are mapped from [-1, 1] to [0, 1] and
clipped. Layers are counted as styles are: the layer to pixels of a size takes the style of the next size's first convolution, so
it is run at the start of that layer, and what a run of the first layers gives is the features and the picture so far, side by
side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.models.framing import framed
from sfumato.models.modulated import doubled, modulated
from sfumato.types import Images

_TINY = 1e-8
_SLOPE = 0.2


class _Dense(nn.Module):
    """A linear layer whose weights are stored with unit variance."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.rate, self.gain = rate, rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class _Mapping(nn.Module):
    """From latents to styles."""

    w_avg: Tensor

    def __init__(self, latent: int, styles: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for place in range(depth):
            setattr(self, f"fc{place}", _Dense(styles if place else latent, styles, rate=0.01))
        self.register_buffer("w_avg", torch.zeros(styles))

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + _TINY)
        for place in range(self.depth):
            x = F.leaky_relu(getattr(self, f"fc{place}")(x), _SLOPE) * math.sqrt(2)
        return x


class _Convolution(nn.Module):
    """A modulated 3x3 convolution, constant noise, and a LeakyReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, styles: int, side: int, *, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.affine = _Dense(styles, inputs)
        nn.init.ones_(self.affine.bias)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength, self.bias = nn.Parameter(torch.zeros([])), nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise_const", torch.randn(side, side))
        self.register_buffer("resample_filter", _kernel())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        kernel = self.resample_filter if self.doubles else None
        x = modulated(x, self.weight, self.affine(w), kernel=kernel) + self.noise_const * self.noise_strength
        return F.leaky_relu(x + self.bias[:, None, None], _SLOPE) * math.sqrt(2)


class _Pixels(nn.Module):
    """A modulated 1x1 convolution to pixels."""

    def __init__(self, inputs: int, colors: int, styles: int) -> None:
        super().__init__()
        self.affine = _Dense(styles, inputs)
        nn.init.ones_(self.affine.bias)
        self.weight, self.bias = nn.Parameter(torch.randn(colors, inputs, 1, 1)), nn.Parameter(torch.zeros(colors))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) / math.sqrt(x.shape[1])
        return modulated(x, self.weight, styles, norm=False) + self.bias[:, None, None]


class _Block(nn.Module):
    """What makes one size."""

    resample_filter: Tensor

    def __init__(self, inputs: int | None, outputs: int, styles: int, side: int, colors: int) -> None:
        super().__init__()
        if inputs is None:
            self.const = nn.Parameter(torch.randn(outputs, side, side))
        else:
            self.conv0 = _Convolution(inputs, outputs, styles, side, doubles=True)
        self.conv1 = _Convolution(outputs, outputs, styles, side, doubles=False)
        self.torgb = _Pixels(outputs, colors, styles)
        self.register_buffer("resample_filter", _kernel())


class StyleGan2(nn.Module):
    """The generator of StyleGAN2 without classes, a `Style` of `sfumato.priors.base`.

    Args:
        channels: of each size, by its side in pixels: 4, 8, 16 and so on.
        latent: length of a latent.
        styles: length of a style.
        depth: layers of the mapping.
        colors: channels of a picture.
        crop: side of the middle of a picture that is kept; None keeps all.
        size: side that pictures are resized to, bilinear with antialiasing; None leaves them.

    Attributes:
        network: has the names of NVIDIA's code: ``mapping.fc0``, ``synthesis.b4.conv1`` and so on.

    Example:
        >>> generator = StyleGan2({4: 8, 8: 8, 16: 4}, latent=16, styles=16, depth=2)
        >>> generator.layers, generator.synthesis(generator.mapping(torch.zeros(2, 16))).shape
        (6, torch.Size([2, 3, 16, 16]))
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        *,
        latent: int = 512,
        styles: int = 512,
        depth: int = 8,
        colors: int = 3,
        crop: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.sides, self.colors, self.crop, self.size = sorted(channels), colors, crop, size
        self._counts = [channels[side] for side in self.sides]
        synthesis = nn.Module()
        for place, side in enumerate(self.sides):
            inputs = self._counts[place - 1] if place else None
            synthesis.add_module(f"b{side}", _Block(inputs, self._counts[place], styles, side, colors))
        self.network = nn.ModuleDict({"mapping": _Mapping(latent, styles, depth), "synthesis": synthesis})

    @property
    def w_mean(self) -> Tensor:
        """The mean style, (D,)."""
        mapping = self.network["mapping"]
        assert isinstance(mapping, _Mapping)  # noqa: S101 -- the constructor makes no other
        return mapping.w_avg

    @property
    def layers(self) -> int:
        """How many styles a picture has: one for each convolution, and one for the last layer to pixels."""
        return 2 * len(self.sides)

    def mapping(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """Return the styles of latents, (N, D): ``w_mean + psi * (w - w_mean)``."""
        w: Tensor = self.network["mapping"](z)
        return w if psi == 1 else self.w_mean + psi * (w - self.w_mean)

    def activations(self, w: Tensor, stop: int, start: int = 0, activations: Tensor | None = None) -> Tensor:
        """Return what the layers before `stop` make of styles.

        Args:
            w: (N, D), the same in every layer, or (N, layers, D).
            stop: how many layers there are before; 0 gives the constant input.
            start: the layer to begin with; above 0 it begins with `activations`.
            activations: what the layers before gave.

        Returns:
            The features and, from two layers on, the picture so far, each row flat, (N, M).
        """
        x, picture = self._run(*self._begun(w, start, activations), w, range(start, stop))
        return x.flatten(1) if picture is None else torch.cat([x.flatten(1), picture.flatten(1)], 1)

    def synthesis(self, w: Tensor, start: int = 0, activations: Tensor | None = None) -> Images:
        """Make pictures of styles.

        Args:
            w: (N, D), the same in every layer, or (N, layers, D).
            start: the layer to begin with; above 0 it begins with `activations`.
            activations: what the layers before gave.

        Returns:
            (N, C, H, W), [0, 1].
        """
        picture = self._run(*self._begun(w, start, activations), w, range(start, self.layers))[1]
        assert picture is not None  # noqa: S101 -- the last layer makes one
        return framed(picture, self.crop, self.size)

    def forward(self, z: Tensor) -> Images:
        """Make pictures of latents, (N, latent)."""
        return self.synthesis(self.mapping(z))

    def _block(self, place: int) -> _Block:
        block = self.network["synthesis"].get_submodule(f"b{self.sides[place]}")
        assert isinstance(block, _Block)  # noqa: S101 -- likewise
        return block

    def _begun(self, w: Tensor, start: int, packed: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the features and the picture to begin a layer with, where `packed` is what the layers before gave."""
        if packed is None:
            return self._block(0).const.expand(len(w), -1, -1, -1), None
        place = min(start // 2, len(self.sides) - 1)
        side, count = self.sides[place], self._counts[place]
        x = packed[:, : count * side**2].unflatten(1, (count, side, side))
        if start < 2:
            return x, None
        drawn = self.sides[start // 2 - 1]
        return x, packed[:, count * side**2 :].unflatten(1, (self.colors, drawn, drawn))

    def _run(self, x: Tensor, picture: Tensor | None, w: Tensor, layers: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Run some layers on features and the picture so far."""
        for layer in layers:
            style = w if w.ndim == 2 else w[:, layer]
            place, block = layer // 2, self._block(layer // 2)
            if layer % 2 == 0:
                x = block.conv1(x, style)
                continue
            seen = block.torgb(x, style)
            picture = seen if picture is None else doubled(picture, block.resample_filter) + seen
            if place + 1 < len(self.sides):
                x = self._block(place + 1).conv0(x, style)
        return x, picture


def _kernel() -> Tensor:
    """Return the blur of StyleGAN2, (4, 4), with a sum of 1."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return line[:, None] * line / 64
