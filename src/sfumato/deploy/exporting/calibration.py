# SPDX-License-Identifier: Apache-2.0
"""How z is packed into the numbers of the wire, and the ranges of its channels for that.

For uint8 each channel has an affine code, z = low + scale q with q from 0 to 255, chosen on protected features of training
pictures: of a few shares of numbers to clip at both ends, that of the least squared error. float16 saturates where it would
overflow.

Source: jacob2018quantization, section 2.1, for the affine code.
Equations: r = S (q - Z) -> Wire.unpack, with low = -S Z
Departures: the range is not that of all numbers seen but the best of several that clip, and zero need not be a code: z has no
padding that must stay exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.deploy.manifest import WireFormat
from sfumato.errors import ExportError

CLIPPED = (0.0, 1e-4, 1e-3, 1e-2)
"""Shares of a channel's numbers beyond each end of its range that are tried."""
_CODES = 255
_LARGEST = 65504.0  # of float16
_TYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}


class Wire(nn.Module):
    """Numbers of one format on the wire.

    Args:
        wire: the format.
        low: for uint8, what code 0 of each channel stands for, (C,), float32.
        scale: for uint8, the width of a step of each channel, (C,), float32, > 0.

    Raises:
        ExportError: uint8 comes without ranges, or another format with them.

    Example:
        >>> wire = Wire("uint8", torch.tensor([-1.0]), torch.tensor([0.5]))
        >>> wire.pack(torch.tensor([[-1.0], [0.7], [1e9]])).flatten(), wire(torch.tensor([[0.7]]))
        (tensor([  0,   3, 255], dtype=torch.uint8), tensor([[0.5000]]))
    """

    low: Tensor
    scale: Tensor

    def __init__(self, wire: WireFormat, low: Tensor | None = None, scale: Tensor | None = None) -> None:
        super().__init__()
        if (wire == "uint8") != (low is not None and scale is not None):
            raise ExportError(f"ranges of channels are for uint8, which needs them, got {wire}; use `calibrate`")
        self.wire: WireFormat = wire
        self.register_buffer("low", torch.zeros(1) if low is None else low)
        self.register_buffer("scale", torch.ones(1) if scale is None else scale)

    @property
    def dtype(self) -> torch.dtype:
        """The type of packed numbers."""
        return _TYPES[self.wire]

    def pack(self, z: Tensor) -> Tensor:
        """Return z as it crosses the wire, what is outside of the range clipped to it.

        Args:
            z: (N, C, ...), float32.
        """
        if self.wire == "uint8":
            low, scale = self._channels(z)
            return ((z - low) / scale).round().clamp(0, _CODES).to(torch.uint8)
        return z.clamp(-_LARGEST, _LARGEST).half() if self.wire == "float16" else z.clone()

    def unpack(self, sent: Tensor) -> Tensor:
        """Return what crossed the wire as float32, (N, C, ...)."""
        if self.wire == "uint8":
            low, scale = self._channels(sent)
            return sent.float() * scale + low
        return sent.float() if self.wire == "float16" else sent.clone()  # a tail may work in place

    def forward(self, z: Tensor) -> Tensor:
        """Return z as the other side sees it: packed and unpacked."""
        return self.unpack(self.pack(z))

    def clipped(self, z: Tensor) -> Tensor:
        """Return z inside of the range that the format holds."""
        if self.wire == "uint8":
            low, scale = self._channels(z)
            return torch.minimum(torch.maximum(z, low), low + _CODES * scale)
        return z.clamp(-_LARGEST, _LARGEST) if self.wire == "float16" else z

    def half_step(self, z: Tensor) -> Tensor:
        """Return how far rounding may move each number of z that is inside of the range, of the shape of z."""
        if self.wire == "uint8":
            return (self._channels(z)[1] / 2).expand_as(z)
        if self.wire == "float16":
            return z.abs() * 2.0**-11 + 2.0**-25  # half a unit in the last of 11 places, or of the least number
        return torch.zeros_like(z)

    def extra_repr(self) -> str:  # noqa: D102
        return self.wire

    def _channels(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return low and scale so that they meet dimension 1 of z, (C, 1, ...)."""
        shape = (-1, *(1 for _ in z.shape[2:]))
        return self.low.view(shape), self.scale.view(shape)


def calibrate(z: Tensor) -> Wire:
    """Return the code of uint8 that is best for some features.

    Args:
        z: protected features of training pictures, (N, C, ...), float32, N >= 1.

    Returns:
        A wire with the range of each channel of least squared error; a channel of one value keeps it exactly.

    Raises:
        ExportError: z has a number that is not finite, or no channels.

    Example:
        >>> wire = calibrate(torch.linspace(0, 1, 512).view(512, 1))
        >>> wire.low, (255 * wire.scale).round(decimals=4)
        (tensor([0.]), tensor([1.]))
    """
    if z.ndim < 2 or not z.isfinite().all():
        raise ExportError(
            f"expected finite features of shape (N, C, ...), found {tuple(z.shape)}; retrain a target with finite features"
        )
    channels = z.transpose(0, 1).flatten(1)
    ordered = channels.sort(1).values
    last = ordered.shape[1] - 1
    tried = []
    for share in CLIPPED:
        beyond = int(share * last)
        low, high = ordered[:, beyond], ordered[:, last - beyond]
        width = (high - low) / _CODES
        # where there is nothing to tell apart any step will do, and one that vanishes would divide by zero
        scale = torch.where(width > torch.finfo(torch.float32).tiny, width, torch.ones_like(width))
        wire = Wire("uint8", low, scale)
        error = (wire(channels.T) - channels.T).square().mean(0)
        tried.append((error, low, scale))
    errors, lows, scales = (torch.stack(values) for values in zip(*tried, strict=True))
    best = errors.argmin(0, keepdim=True)
    return Wire("uint8", lows.gather(0, best)[0], scales.gather(0, best)[0])
