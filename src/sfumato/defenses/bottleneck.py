# SPDX-License-Identifier: Apache-2.0
"""Few channels through the cut: a convolution and a sigmoid at the end of the head, a convolution at the start of the tail.

Source: xia2025cem, section 5.1 (8 channels before and after the features, every row of its tables).
Equations: none; head' = sigmoid(conv3x3(C -> channels)(head)), tail' = tail(conv3x3(channels -> C)) -> Bottleneck.prepare
Departures: features that are not (C, H, W) get linear layers over their last dimension in place of the convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError
from sfumato.modules import device_of, eval_mode
from sfumato.split import Split


class Bottleneck(Defense):
    """Narrow the cut to a few channels in [0, 1].

    Args:
        channels: how many cross the cut.
        sigmoid: end the head in a sigmoid; off, the features are unbounded.

    Raises:
        ConfigError: channels is not positive.

    Example:
        >>> Bottleneck(channels=8)
        Bottleneck(channels=8, sigmoid=True)
    """

    name = "bottleneck"

    def __init__(self, channels: int = 8, sigmoid: bool = True) -> None:
        super().__init__()
        if channels < 1:
            raise ConfigError(f"channels must be at least 1, got {channels}; 8 is the paper's")
        self.channels = channels
        self.sigmoid = sigmoid

    @property
    def builds(self) -> bool:
        """Whether `prepare` puts layers into the model: it does."""
        return True

    def prepare(self, model: Split, data: Data) -> None:
        """Put the narrow layers at both sides of the cut, on the model's device; in the head Xavier weights and zero bias."""
        device = device_of(model)
        with eval_mode(model):
            z = model.head(torch.zeros(2, *data.shape, device=device))
        narrow, widen = _layers(z, self.channels)
        nn.init.xavier_uniform_(narrow.weight)
        nn.init.zeros_(narrow.bias)  # type: ignore[arg-type]  # made with a bias just above
        end = [nn.Sigmoid()] if self.sigmoid else []
        model.head = nn.Sequential(model.head, narrow.to(device), *end)
        model.tail = nn.Sequential(widen.to(device), model.tail)

    def extra_repr(self) -> str:  # noqa: D102
        return f"channels={self.channels}, sigmoid={self.sigmoid}"


def _layers(z: Tensor, channels: int) -> tuple[nn.Conv2d | nn.Linear, nn.Conv2d | nn.Linear]:
    """Return the layers into and out of the bottleneck for features like z."""
    if z.dim() == 4:
        wide = z.shape[1]
        return nn.Conv2d(wide, channels, 3, padding=1), nn.Conv2d(channels, wide, 3, padding=1)
    wide = z.shape[-1]
    return nn.Linear(wide, channels), nn.Linear(channels, wide)
