# SPDX-License-Identifier: Apache-2.0
"""Normalization as the first layer of a model.

A model takes pictures in [0, 1]; wherever it is split, the normalization lies in the head, and `x` in [0, 1] is what an
attack has to recover.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato.errors import ConfigError


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel.

    Args:
        mean: one number a channel, in the units of x.
        std: one positive number a channel, in the units of x.

    Raises:
        ConfigError: `mean` and `std` differ in length or are empty, or a standard deviation is not positive.

    Example:
        >>> Normalize([0.5], [0.5])(torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)).flatten().tolist()
        [-1.0, 0.0, 1.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std):
            raise ConfigError(f"mean and std must have one number a channel, got {len(mean)} and {len(std)} numbers")
        if min(std) <= 0:
            raise ConfigError(f"std must be positive in every channel, got {list(std)}; 1 leaves a channel unscaled")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize pictures.

        Args:
            x: (N, C, H, W), float, [0, 1].

        Returns:
            The same shape; [-1, 1] with a mean and a standard deviation of 0.5.
        """
        # One operation on x, (x - mean) / std, so that no cut falls between two.
        return torch.addcmul(-self.mean / self.std, x, 1 / self.std)


def normalization(channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalize:
    """Make the first layer of a model.

    Args:
        channels: of x.
        mean: one number a channel; None is 0.5 in each.
        std: one positive number a channel; None is 0.5 in each.

    Returns:
        The layer.

    Raises:
        ConfigError: another count of numbers than channels, or a standard deviation that is not positive.

    Example:
        >>> normalization(3, None, None).mean.shape
        torch.Size([3, 1, 1])
    """
    means, stds = [0.5] * channels if mean is None else mean, [0.5] * channels if std is None else std
    for name, values in (("mean", means), ("std", stds)):
        if len(values) != channels:
            raise ConfigError(f"{name} must have {channels} numbers, one a channel of x, got {len(values)}; leave it out for 0.5")
    return Normalize(means, stds)
