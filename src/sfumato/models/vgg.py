# SPDX-License-Identifier: Apache-2.0
"""VGG-11 and VGG-16 with batch norm, and the classifiers that the papers on split inference and on model inversion give them.

Source: simonyan2015vgg, Table 1, columns A and D; xia2025cem, supplement Section S6 and released code for the classifier
(dropout, 512, ReLU, dropout, 512, ReLU, classes) and the meaning of a cut: `c2` is the second convolution with its max-pool;
zhang2020secret, released code, for the target of model inversion (all places of the last map, batch norm, classes).
Departures: poolings that would shrink a map below one pixel are left out, and a map that is larger than one pixel before the
classifier is averaged (the released code of CEM flattens it into a wider linear layer at 64x64); both leave 32x32 as it is.
Weights: PyTorch's default initialization, where the released code has Xavier-uniform weights in the head.
"""

from __future__ import annotations

import math
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


def vgg16_face(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Sequential:
    """Make the VGG-16 that papers on model inversion attack: cuts `normalize`, `c1` to `c13`, `flatten`, `norm`, `classifier`.

    What the classifier is given is normalized over the batch without a shift: the bias of `norm` is 0 and is not trained.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8. With 64x64 pictures the classifier is given 2,048 numbers.
        width: factor on channels.
        mean: of x, one number a channel; None is 0.5. The papers' networks take x as it is: 0.
        std: of x, one number a channel; None is 0.5. The papers' networks take x as it is: 1.

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> vgg16_face(10, (3, 64, 64), width=0.25).classifier
        Linear(in_features=512, out_features=10, bias=True)
    """
    layers, sizes = _features(VGG16, classes, shape, width=width, mean=mean, std=std)
    norm = nn.BatchNorm1d(math.prod(sizes))
    norm.bias.requires_grad_(False)
    layers |= {"flatten": nn.Flatten(), "norm": norm, "classifier": nn.Linear(math.prod(sizes), classes)}
    return nn.Sequential(layers)


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
    """Make a VGG of groups of convolutions, with the classifier of the split-inference papers."""
    layers, sizes = _features(groups, classes, shape, width=width, mean=mean, std=std)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["classifier"] = _classifier(sizes[0], scaled(512, width), classes, dropout)
    return nn.Sequential(layers)


def _features(
    groups: Sequence[Sequence[int]],
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[OrderedDict[str, nn.Module], tuple[int, int, int]]:
    """Make the normalization and groups of convolutions, a pooling after each group; also the shape of what they give."""
    check_sizes(classes, shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=normalization(shape[0], mean, std))
    inputs, height, wide = shape
    for group in groups:
        pools = min(height, wide) > 1
        for place, channels in enumerate(group, start=1):
            outputs = scaled(channels, width)
            layers[f"c{len(layers)}"] = _convolution(inputs, outputs, pools and place == len(group))
            inputs = outputs
        if pools:
            height, wide = height // 2, wide // 2
    return layers, (inputs, height, wide)


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
