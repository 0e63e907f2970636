# SPDX-License-Identifier: Apache-2.0
"""LeNet-5: two 5x5 convolutions and three linear layers.

Source: lecun1998, Section II-B.
Departures: ReLU, max pooling and full connections between the convolutions, as recent papers that name LeNet-5 have them, in
place of tanh, trainable average pooling and the partial connection table. Pictures below the 32x32 of the paper are padded by
2, and maps too small for the second convolution too, so that any size from 8x8 works. Weights: PyTorch's default
initialization.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sfumato.models.normalize import normalization
from sfumato.models.width import check_sizes, scaled


def lenet5(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Sequential:
    """Make a LeNet-5 with cuts `normalize`, `c1`, `c2` (each with its pooling), `flatten`, `f1`, `f2`, `classifier`.

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
        >>> model = lenet5(10, (1, 28, 28))
        >>> sum(p.numel() for p in model.parameters())
        61706
    """
    check_sizes(classes, shape)
    c1, c2, f1, f2 = (scaled(count, width, multiple=1) for count in (6, 16, 120, 84))
    first = (_padding(shape[1], enough=32), _padding(shape[2], enough=32))
    down, across = _after(shape[1], first[0]), _after(shape[2], first[1])
    second = (_padding(down, enough=6), _padding(across, enough=6))
    features = c2 * _after(down, second[0]) * _after(across, second[1])
    return nn.Sequential(
        OrderedDict(
            normalize=normalization(shape[0], mean, std),
            c1=_convolution(shape[0], c1, first),
            c2=_convolution(c1, c2, second),
            flatten=nn.Flatten(),
            f1=nn.Sequential(nn.Linear(features, f1), nn.ReLU()),
            f2=nn.Sequential(nn.Linear(f1, f2), nn.ReLU()),
            classifier=nn.Linear(f2, classes),
        )
    )


def _convolution(inputs: int, outputs: int, padding: tuple[int, int]) -> nn.Sequential:
    """Make a 5x5 convolution with ReLU and 2x2 max pooling."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2))


def _padding(side: int, *, enough: int) -> int:
    """Return the padding that keeps a side through a 5x5 convolution, or none where the side is long enough to lose 4 pixels."""
    return 0 if side >= enough else 2


def _after(side: int, padding: int) -> int:
    """Return a side after a 5x5 convolution and 2x2 pooling."""
    return (side + 2 * padding - 4) // 2
