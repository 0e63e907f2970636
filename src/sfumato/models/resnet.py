# SPDX-License-Identifier: Apache-2.0
"""ResNet-18, with the stem for large or for small pictures, and ResNet-20 for small pictures.

Source: he2016resnet, Section 3.3 and Table 1 (ResNet-18), Section 4.2 (ResNet-20).
Departures: the 3x3 stem without pooling of ResNet-18 is not in the paper; it is what the split-inference papers use at 32x32.
Weights: convolutions from a normal distribution scaled by fan-out (Kaiming, as the common implementations have it; the paper's
reference [13] offers both fans), batch norm 1 and 0, the classifier PyTorch's default.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.models.normalize import normalization
from sfumato.models.width import check_sizes, scaled

Stem = Literal["auto", "cifar", "imagenet"]


class PaddedShortcut(nn.Module):
    """Subsample by a stride and pad the channels with zeros: the shortcut without parameters, "option A" of the paper.

    Args:
        extra: channels to add.
        stride: 1 or 2.
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C + extra, ceil(H / stride), ceil(W / stride)) of x (N, C, H, W)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them.

    Args:
        inputs: channels of x.
        outputs: channels of the result; at least `inputs` where `padded`.
        stride: of the first convolution.
        padded: pad the shortcut with zeros where the shape changes (option A) in place of a 1x1 convolution (option B).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, padded: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                bn1=nn.BatchNorm2d(outputs),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                bn2=nn.BatchNorm2d(outputs),
            )
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            self.shortcut = PaddedShortcut(outputs - inputs, stride) if padded else projection
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, ceil(H / stride), ceil(W / stride)) of x (N, inputs, H, W)."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


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
    check_sizes(classes, shape)
    small = min(shape[1:]) < 64 if stem == "auto" else stem == "cifar"
    channels = [scaled(count, width) for count in (64, 128, 256, 512)]
    first = _stem(shape[0], channels[0], 3, 1) if small else _stem(shape[0], channels[0], 7, 2)
    if not small:
        first.append(nn.MaxPool2d(3, 2, 1))
    return _resnet(normalization(shape[0], mean, std), first, channels, blocks=2, classes=classes, padded=False)


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
    first = _stem(shape[0], channels[0], 3, 1)
    return _resnet(normalization(shape[0], mean, std), first, channels, blocks=3, classes=classes, padded=shortcut == "padded")


def _stem(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Make the first convolution with batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _resnet(
    normalize: nn.Module, stem: nn.Module, channels: Sequence[int], *, blocks: int, classes: int, padded: bool
) -> nn.Sequential:
    """Put stages of residual blocks between a stem and a classifier; each stage but the first halves the map."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=normalize, stem=stem)
    inputs = channels[0]
    for number, outputs in enumerate(channels, start=1):
        stage = [ResidualBlock(inputs, outputs, 1 if number == 1 else 2, padded=padded)]
        stage += [ResidualBlock(outputs, outputs, 1, padded=padded) for _ in range(blocks - 1)]
        layers[f"layer{number}"] = nn.Sequential(*stage)
        inputs = outputs
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(inputs, classes)}
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
