# SPDX-License-Identifier: Apache-2.0
"""VGG-11 and VGG-16 with batch norm, and the small classifier that the split-inference papers give them.

Source: simonyan2015vgg, Table 1, columns A and D; xia2025cem, supplement Section S6 and released code for the classifier
(dropout, 512, ReLU, dropout, 512, ReLU, classes) and the meaning of a cut: `c2` is the second convolution with its max-pool.
Departures: poolings that would shrink a map below one pixel are left out, and a map that is larger than one pixel before the
classifier is averaged (the released code of CEM flattens it into a wider linear layer at 64x64); both leave 32x32 as it is.
Weights: PyTorch's default initialization, where the released code has Xavier-uniform weights in the head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sfumato.models.normalize import normalization
from sfumato.models.width import check_sizes, scaled

# channels of the convolutions between two poolings
VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg11(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dropout: float = 0.5,
) -> nn.Sequential:
    """Make a VGG-11 with batch norm and cuts `normalize`, `c1` to `c8` (each with its pooling), `pool`, `flatten`, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels and hidden units.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.
        dropout: probability of the two dropout layers of the classifier, [0, 1].

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes). With 3x32x32 pictures z at `c2` is (128, 8, 8).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> model = vgg11(10, (1, 28, 28), width=0.25)
        >>> [name for name, _ in model.named_children()][:3]
        ['normalize', 'c1', 'c2']
    """
    return _vgg(VGG11, classes, shape, width=width, dropout=dropout, mean=mean, std=std)


def vgg16(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dropout: float = 0.5,
) -> nn.Sequential:
    """Make a VGG-16 with batch norm and cuts `normalize`, `c1` to `c13` (each with its pooling), `pool`, `flatten`, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels and hidden units.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.
        dropout: probability of the two dropout layers of the classifier, [0, 1].

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> len(vgg16(10, (3, 8, 8), width=0.125))
        17
    """
    return _vgg(VGG16, classes, shape, width=width, dropout=dropout, mean=mean, std=std)


def _vgg(
    groups: Sequence[Sequence[int]],
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float,
    dropout: float,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> nn.Sequential:
    """Make a VGG of groups of convolutions, a pooling after each group."""
    check_sizes(classes, shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=normalization(shape[0], mean, std))
    inputs, side = shape[0], min(shape[1:])
    for group in groups:
        for place, channels in enumerate(group, start=1):
            outputs = scaled(channels, width)
            pooled = place == len(group) and side > 1
            layers[f"c{len(layers)}"] = _convolution(inputs, outputs, pooled)
            inputs = outputs
        side //= 2
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["classifier"] = _classifier(inputs, scaled(512, width), classes, dropout)
    return nn.Sequential(layers)


def _convolution(inputs: int, outputs: int, pooled: bool) -> nn.Sequential:
    """Make a 3x3 convolution with batch norm and ReLU, and 2x2 max pooling where asked for."""
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pooled else nn.Sequential(*layers)


def _classifier(inputs: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """Make two hidden layers behind dropout, and the logits."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
