# SPDX-License-Identifier: Apache-2.0
"""ResNet-18, 34 and 50, with the stem for large or for small pictures, and ResNet-20 for small pictures.

Source: he2016resnet, Section 3.3 and Table 1 (ResNet-18, 34 and 50), Section 4.2 (ResNet-20).
Departures: but for ResNet-20, the 3x3 stem without pooling is not in the paper; the split-inference papers use it at 32x32.
Weights: convolutions from a normal distribution scaled by fan-out (Kaiming, as the common implementations have it; the paper's
reference [13] offers both fans), batch norm 1 and 0, the classifier PyTorch's default.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import nn

from sfumato.models.normalize import normalization
from sfumato.models.residual import Bottleneck, ResidualBlock
from sfumato.models.width import check_sizes, scaled

Stem = Literal["auto", "cifar", "imagenet"]
Block = Callable[[int, int, int], nn.Module]
"""Makes a block of the channels of x, the channels of the result, and the stride."""
_PLAIN: Block = partial(ResidualBlock, padded=False)


def resnet18(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: Stem = "auto",
) -> nn.Sequential:
    """Make a ResNet-18 with cuts `normalize`, `stem`, `layer1` to `layer4` and their blocks, `pool`, `flatten`, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.
        stem: "imagenet" is a 7x7 convolution of stride 2 and a pooling, "cifar" a 3x3 convolution of stride 1; "auto" takes the
            latter below 64 pixels.

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> model = resnet18(10, (3, 32, 32))
        >>> sum(p.numel() for p in model.parameters())
        11173962
    """
    return _large((2, 2, 2, 2), classes, shape, width=width, mean=mean, std=std, stem=stem)


def resnet34(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: Stem = "auto",
) -> nn.Sequential:
    """Make a ResNet-34: the cuts and arguments of ResNet-18.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.
        stem: as of `resnet18`.

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> [len(stage) for stage in resnet34(10, (3, 8, 8), width=0.125)[2:6]]
        [3, 4, 6, 3]
    """
    return _large((3, 4, 6, 3), classes, shape, width=width, mean=mean, std=std, stem=stem)


def resnet50(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: Stem = "auto",
) -> nn.Sequential:
    """Make a ResNet-50: the cuts and arguments of ResNet-18, with bottlenecks that end in four times the channels.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.
        stem: as of `resnet18`.

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> resnet50(10, (3, 8, 8), width=0.125).classifier
        Linear(in_features=256, out_features=10, bias=True)
    """
    return _large((3, 4, 6, 3), classes, shape, width=width, mean=mean, std=std, stem=stem, expansion=4)


def resnet20(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    shortcut: Literal["padded", "projection"] = "padded",
) -> nn.Sequential:
    """Make a ResNet-20 with cuts `normalize`, `stem`, `layer1` to `layer3` and their blocks, `pool`, `flatten`, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.
        shortcut: where the shape changes. "padded" has no parameters and is what the paper uses on CIFAR-10 ("option A"), hence
            its 0.27 M; "projection" is a 1x1 convolution ("option B").

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> model = resnet20(10, (3, 32, 32))
        >>> sum(p.numel() for p in model.parameters())
        269722
    """
    check_sizes(classes, shape)
    channels = [scaled(count, width) for count in (16, 32, 64)]
    first, block = _stem(shape[0], channels[0], 3, 1), partial(ResidualBlock, padded=shortcut == "padded")
    inputs = [channels[0], *channels]
    stages = [_stage(block, inputs[n], outputs, count=3, halves=n > 0) for n, outputs in enumerate(channels)]
    return _resnet(normalization(shape[0], mean, std), first, stages, nn.Linear(channels[-1], classes))


def _large(
    blocks: Sequence[int],
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    stem: Stem,
    expansion: int = 1,
) -> nn.Sequential:
    """Make a ResNet of four stages with so many blocks each; with an expansion above 1 they are bottlenecks."""
    check_sizes(classes, shape)
    small = min(shape[1:]) < 64 if stem == "auto" else stem == "cifar"
    channels = [scaled(count, width) for count in (64, 128, 256, 512)]
    first = _stem(shape[0], channels[0], 3, 1) if small else _stem(shape[0], channels[0], 7, 2)
    if not small:
        first.append(nn.MaxPool2d(3, 2, 1))
    stages: list[nn.Module] = []
    inputs = channels[0]
    for middle, count in zip(channels, blocks, strict=True):
        block: Block = _PLAIN if expansion == 1 else partial(Bottleneck, middle=middle)
        stages.append(_stage(block, inputs, expansion * middle, count=count, halves=bool(stages)))
        inputs = expansion * middle
    return _resnet(normalization(shape[0], mean, std), first, stages, nn.Linear(inputs, classes))


def _stem(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Make the first convolution with batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _stage(block: Block, inputs: int, outputs: int, *, count: int, halves: bool) -> nn.Sequential:
    """Put blocks after each other; the first changes the channels, and halves the map where asked to."""
    first = block(inputs, outputs, 2 if halves else 1)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(count - 1)))


def _resnet(normalize: nn.Module, stem: nn.Module, stages: Sequence[nn.Module], classifier: nn.Linear) -> nn.Sequential:
    """Put stages between a stem and a classifier, and draw the weights of all convolutions."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=normalize, stem=stem)
    layers |= {f"layer{number}": stage for number, stage in enumerate(stages, start=1)}
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": classifier}
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
