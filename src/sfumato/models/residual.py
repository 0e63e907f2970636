# SPDX-License-Identifier: Apache-2.0
"""What residual networks are made of: two convolutions, or a bottleneck of three, with a shortcut around them.

Source: he2016resnet, Sections 3.2 and 3.3, Figure 5.
Departures: the stride of a bottleneck is that of its 3x3 convolution, as common implementations have it, not of its first 1x1.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F


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
            by_weights = projection(inputs, outputs, stride)  # made in either case: it is part of what a seed draws
            self.shortcut = PaddedShortcut(outputs - inputs, stride) if padded else by_weights
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, ceil(H / stride), ceil(W / stride)) of x (N, inputs, H, W)."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """A 1x1 convolution, a 3x3 one on fewer channels and a 1x1 one back to more, with a shortcut around them.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: of the 3x3 convolution.
        middle: channels of the 3x3 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, middle: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(inputs, middle, 1, bias=False),
                bn1=nn.BatchNorm2d(middle),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(middle, middle, 3, stride, 1, bias=False),
                bn2=nn.BatchNorm2d(middle),
                relu2=nn.ReLU(),
                conv3=nn.Conv2d(middle, outputs, 1, bias=False),
                bn3=nn.BatchNorm2d(outputs),
            )
        )
        changes = stride != 1 or inputs != outputs
        self.shortcut = projection(inputs, outputs, stride) if changes else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, ceil(H / stride), ceil(W / stride)) of x (N, inputs, H, W)."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Make the shortcut of a block that changes the shape: a 1x1 convolution with batch norm, "option B" of the paper."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
