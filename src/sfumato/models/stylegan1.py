# SPDX-License-Identifier: Apache-2.0
"""The generator of the first StyleGAN, with the names that GenForce's PyTorch code gives its weights, as MIRROR's release does.

Source: karras2019stylegan, section 2 (mapping, synthesis, noise) and appendices B (truncation) and C (layers, learning rates).
Equations: AdaIN(x, y) = y_s (x - mean(x)) / std(x) + y_b, Eq. (1) -> _Layer; mean + psi (w - mean) -> StyleGan1.mapping
Departures: the noise is the constant one of each layer, so that a style is a picture. The scale y_s is stored less 1 and the
variance has 1e-8 added, as in the authors' code. From 128 pixels on, doubling and convolution are one transposed convolution, as
there: its kernel is turned by 180 degrees, so that the two ways are not the same for one set of weights. A generator is taken as
it is after growing: only its last layer to pixels is kept. Pictures are mapped from [-1, 1] to [0, 1] and clipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.models.framing import framed
from sfumato.types import Images

_TINY = 1e-8
_SLOPE = 0.2
_GAIN = math.sqrt(2)
_RATE = 0.01  # of the mapping's learning, against that of the synthesis
_FUSED = 128  # pixels


class _Dense(nn.Module):
    """A linear layer whose weights are stored with unit variance over the rate."""

    def __init__(self, inputs: int, outputs: int, *, gain: float = _GAIN, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.rate, self.scale = rate, gain * rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class _Noise(nn.Module):
    """Constant noise, of another strength in each channel."""

    noise: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.noise * self.weight[:, None, None]


class _Blur(nn.Module):
    """The same 3x3 kernel for each channel."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (line[:, None] * line).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1, groups=len(self.kernel))


class _Layer(nn.Module):
    """What takes one style: a 3x3 convolution, or in the first layer the constant, then noise, a LeakyReLU and Eq. (1)."""

    def __init__(self, inputs: int | None, outputs: int, styles: int, side: int, *, doubles: bool, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.const = nn.Parameter(torch.ones(1, outputs, side, side)) if inputs is None else None
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3)) if inputs else None
        self.blur = _Blur(outputs) if doubles else None
        self.apply_noise, self.bias = _Noise(outputs, side), nn.Parameter(torch.zeros(outputs))
        self.style = _Dense(styles, 2 * outputs, gain=1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return (N, outputs, side, side) of x (N, inputs, H, H), or the constant, and styles (N, D)."""
        x = F.leaky_relu(self.apply_noise(self._convolved(x)) + self.bias[:, None, None], _SLOPE)
        x = x - x.mean((2, 3), keepdim=True)
        x = x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + _TINY)
        scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
        styled: Tensor = x * (scale + 1) + shift  # Eq. (1)
        return styled

    def _convolved(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return x
        weight = self.weight * (_GAIN / math.sqrt(9 * x.shape[1]))
        if self.blur is None:
            return F.conv2d(x, weight, padding=1)
        if not self.fused:
            x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
        else:  # the sums of 2x2 neighbors make the kernel 4x4: each pixel is spread over as many as doubling gives it
            wide = F.avg_pool2d(weight, 2, stride=1, padding=1, divisor_override=1)
            x = F.conv_transpose2d(x, wide.transpose(0, 1), stride=2, padding=1)
        blurred: Tensor = self.blur(x)
        return blurred


class _Pixels(nn.Module):
    """A 1x1 convolution to pixels."""

    def __init__(self, inputs: int, colors: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(colors, inputs, 1, 1)), nn.Parameter(torch.zeros(colors))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / math.sqrt(x.shape[1]), self.bias)


class StyleGan1(nn.Module):
    """The generator of the first StyleGAN without classes, a `Style` of `sfumato.priors.base`.

    Args:
        channels: of each size, by its side in pixels: 4, 8, 16 and so on.
        latent: length of a latent.
        styles: length of a style.
        depth: layers of the mapping.
        colors: channels of a picture.
        fused: side in pixels from which doubling and convolution are one transposed convolution.
        crop: side of the middle of a picture that is kept; None keeps all.
        size: side that pictures are resized to, bilinear with antialiasing; None leaves them.

    Attributes:
        network: has the names of GenForce's code: ``mapping.dense0``, ``synthesis.layer0`` and so on.

    Example:
        >>> generator = StyleGan1({4: 8, 8: 8, 16: 4}, latent=16, styles=16, depth=2)
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
        fused: int = _FUSED,
        crop: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.depth, self.layers, self.crop, self.size = depth, 2 * len(channels), crop, size
        mapping, truncation, synthesis = nn.Module(), nn.Module(), nn.Module()
        for place in range(depth):
            mapping.add_module(f"dense{place}", _Dense(styles if place else latent, styles, rate=_RATE))
        truncation.register_buffer("w_avg", torch.zeros(styles))
        synthesis.register_buffer("lod", torch.zeros(()))  # the doublings that growing has left
        before = None
        for place, side in enumerate(sorted(channels)):
            count = channels[side]
            first = _Layer(before, count, styles, side, doubles=place > 0, fused=side >= fused)
            second = _Layer(count, count, styles, side, doubles=False, fused=False)
            synthesis.add_module(f"layer{2 * place}", first)
            synthesis.add_module(f"layer{2 * place + 1}", second)
            before = count
        synthesis.add_module(f"output{len(channels) - 1}", _Pixels(channels[max(channels)], colors))
        self.network = nn.ModuleDict({"mapping": mapping, "truncation": truncation, "synthesis": synthesis})

    @property
    def w_mean(self) -> Tensor:
        """The mean style, (D,)."""
        return self.network.get_buffer("truncation.w_avg")

    def mapping(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """Return the styles of latents, (N, D): ``w_mean + psi * (w - w_mean)``."""
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + _TINY)
        for place in range(self.depth):
            w = F.leaky_relu(self.network.get_submodule(f"mapping.dense{place}")(w), _SLOPE)
        return w if psi == 1 else self.w_mean + psi * (w - self.w_mean)

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
        x = self._constant.expand(len(w), -1, -1, -1) if activations is None else activations
        for place in range(start, stop):
            x = self.network.get_submodule(f"synthesis.layer{place}")(x, w if w.ndim == 2 else w[:, place])
        return x

    def synthesis(self, w: Tensor, start: int = 0, activations: Tensor | None = None) -> Images:
        """Make pictures of styles.

        Args:
            w: (N, D), the same in every layer, or (N, layers, D).
            start: the layer to begin with; above 0 it begins with `activations`.
            activations: what the layers before gave.

        Returns:
            (N, C, H, W), [0, 1].
        """
        pixels = self.network.get_submodule(f"synthesis.output{self.layers // 2 - 1}")
        return framed(pixels(self.activations(w, self.layers, start, activations)), self.crop, self.size)

    def forward(self, z: Tensor) -> Images:
        """Make pictures of latents, (N, latent)."""
        return self.synthesis(self.mapping(z))

    @property
    def _constant(self) -> Tensor:
        return self.network.get_parameter("synthesis.layer0.const")
