# SPDX-License-Identifier: Apache-2.0
"""Two convolutions and two linear layers: the small network of membership inference on CIFAR-10.

Source: wang2021mcmia, Section V-A (the CNN of Table I: two convolutional and two fully connected layers, after rahman2018dp).
Departures: the paper gives no sizes; these are 32 and 64 filters of 3x3 pixels, each pooled, and 128 hidden units. There is no
batch norm, so that the network trains with DP-SGD too. Weights: PyTorch's default initialization.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sfumato.models.normalize import normalization
from sfumato.models.width import check_sizes, scaled


def cnn4(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Sequential:
    """Make a network of four layers with cuts `normalize`, `c1`, `c2` (each with its pooling), `flatten`, `f1`, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels and hidden units.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> sum(p.numel() for p in cnn4(10, (3, 32, 32)).parameters())
        545098
    """
    check_sizes(classes, shape)
    c1, c2, f1 = (scaled(count, width) for count in (32, 64, 128))
    return nn.Sequential(
        OrderedDict(
            normalize=normalization(shape[0], mean, std),
            c1=_convolution(shape[0], c1),
            c2=_convolution(c1, c2),
            flatten=nn.Flatten(),
            f1=nn.Sequential(nn.Linear(c2 * (shape[1] // 4) * (shape[2] // 4), f1), nn.ReLU()),
            classifier=nn.Linear(f1, classes),
        )
    )


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Make a 3x3 convolution with ReLU and 2x2 max pooling."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
