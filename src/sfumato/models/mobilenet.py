# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2: inverted residual blocks with depthwise convolutions and linear bottlenecks.

Source: sandler2018mobilenetv2, Table 2.
Departures: pictures below 64 pixels keep their size through the stem and the second group of blocks (strides 1 in place of
2), the common variant for CIFAR; the parameters are the same. Weights: convolutions from a normal distribution scaled by fan-
out (Kaiming), the classifier from a normal distribution of standard deviation 0.01, as the common implementations have it;
the paper does not say.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from sfumato.models.normalize import normalization
from sfumato.models.width import check_sizes, scaled

# Table 2: expansion, channels, blocks, stride of the first block; and that stride below 64 pixels
GROUPS = (
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 2),
    (6, 64, 4, 2, 2),
    (6, 96, 3, 1, 1),
    (6, 160, 3, 2, 2),
    (6, 320, 1, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; with a shortcut where the shape stays.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: of the depthwise convolution.
        expansion: factor from `inputs` to the channels between; 1 leaves the widening out.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_convolution(inputs, hidden, 1)]
        layers += [_convolution(hidden, hidden, 3, stride, groups=hidden)]
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, ceil(H / stride), ceil(W / stride)) of x (N, inputs, H, W)."""
        out: Tensor = x + self.body(x) if self.residual else self.body(x)
        return out


def mobilenet_v2(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dropout: float = 0.2,
) -> nn.Sequential:
    """Make a MobileNetV2 with cuts `normalize`, `stem`, `blocks.0` to `blocks.16`, `last`, `pool`, `flatten`, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels; the last 1280 are not narrowed, as in the paper.
        mean: of x, one number a channel; None is 0.5.
        std: of x, one number a channel; None is 0.5.
        dropout: probability of the dropout layer of the classifier, [0, 1].

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> model = mobilenet_v2(10, (3, 32, 32))
        >>> sum(p.numel() for p in model.parameters())
        2236682
    """
    check_sizes(classes, shape)
    small = min(shape[1:]) < 64
    inputs, last = scaled(32, width), scaled(1280, max(1.0, width))
    stem = _convolution(shape[0], inputs, 3, 1 if small else 2)
    blocks: list[nn.Module] = []
    for expansion, channels, repeats, standard, reduced in GROUPS:
        for repeat in range(repeats):
            stride = 1 if repeat else reduced if small else standard
            blocks.append(InvertedResidual(inputs, scaled(channels, width), stride, expansion))
            inputs = scaled(channels, width)
    model = nn.Sequential(
        OrderedDict(
            normalize=normalization(shape[0], mean, std),
            stem=stem,
            blocks=nn.Sequential(*blocks),
            last=_convolution(inputs, last, 1),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(nn.Dropout(dropout), nn.Linear(last, classes)),
        )
    )
    _initialize(model)
    return model


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Make a convolution with batch norm and ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


def _initialize(model: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers anew."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
