# SPDX-License-Identifier: Apache-2.0
"""IR-50 and IR-152, residual networks for faces: at 64 pixels the IR-50 is the "FaceNet64" of the papers on model inversion.

Source: deng2019arcface, Section 3.1 (the improved residual unit, and batch norm, dropout, linear, batch norm for the embedding);
the depths and the pooled shortcut are those of its common implementation, the targets those of zhang2020secret.
Departures: the papers' classifiers have one linear layer after the embedding, which is trained with cross-entropy, in place of
the angular margin. Shortcuts that keep the channels subsample by a max-pool of one place, as in that implementation.
Weights: linear and convolution weights from Xavier's uniform distribution, batch norm 1 and 0, slopes of the PReLU 0.25.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from sfumato.models.normalize import normalization
from sfumato.models.width import check_sizes, scaled

EMBEDDING = 512
"""Length of the embedding at width 1."""


class ImprovedUnit(nn.Module):
    """Batch norm, a 3x3 convolution, PReLU, a 3x3 convolution and batch norm, with a shortcut around them and nothing after.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: of the second convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                bn1=nn.BatchNorm2d(inputs),
                conv1=nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
                prelu=nn.PReLU(outputs),
                conv2=nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
                bn2=nn.BatchNorm2d(outputs),
            )
        )
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, ceil(H / stride), ceil(W / stride)) of x (N, inputs, H, W)."""
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


def ir50(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dropout: float = 0.5,
) -> nn.Sequential:
    """Make an IR-50, cuts `normalize`, `stem`, `layer1` to `layer4` and their units, `embedding` and its layers, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8. The papers have 64x64 for targets and 112x112 for evaluators.
        width: factor on channels.
        mean: of x, one number a channel; None is 0.5. The targets at 64 pixels take x as it is: 0.
        std: of x, one number a channel; None is 0.5. The targets at 64 pixels take x as it is: 1.
        dropout: probability before the embedding, [0, 1].

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> model = ir50(10, (3, 64, 64), width=0.125)
        >>> [len(stage) for stage in model[2:6]], model.classifier.in_features
        ([3, 4, 14, 3], 64)
    """
    return _ir((3, 4, 14, 3), classes, shape, width=width, mean=mean, std=std, dropout=dropout)


def ir152(
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dropout: float = 0.5,
) -> nn.Sequential:
    """Make an IR-152: the cuts and arguments of IR-50.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; H, W >= 8.
        width: factor on channels.
        mean: of x, one number a channel; None is 0.5. The targets at 64 pixels take x as it is: 0.
        std: of x, one number a channel; None is 0.5. The targets at 64 pixels take x as it is: 1.
        dropout: probability before the embedding, [0, 1].

    Returns:
        A model from x (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        ConfigError: sizes out of range.

    Example:
        >>> [len(stage) for stage in ir152(10, (3, 8, 8), width=0.125)[2:6]]
        [3, 8, 36, 3]
    """
    return _ir((3, 8, 36, 3), classes, shape, width=width, mean=mean, std=std, dropout=dropout)


def _ir(
    units: Sequence[int],
    classes: int,
    shape: tuple[int, int, int],
    *,
    width: float,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dropout: float,
) -> nn.Sequential:
    """Make a network of four stages with so many units each; every stage halves the map, the first too."""
    check_sizes(classes, shape)
    inputs, height, wide = scaled(64, width), *shape[1:]
    stem = nn.Sequential(nn.Conv2d(shape[0], inputs, 3, 1, 1, bias=False), nn.BatchNorm2d(inputs), nn.PReLU(inputs))
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalize=normalization(shape[0], mean, std), stem=stem)
    for number, (channels, count) in enumerate(zip((64, 128, 256, 512), units, strict=True), start=1):
        outputs = scaled(channels, width)
        rest = [ImprovedUnit(outputs, outputs, 1) for _ in range(count - 1)]
        layers[f"layer{number}"] = nn.Sequential(ImprovedUnit(inputs, outputs, 2), *rest)
        inputs, height, wide = outputs, (height + 1) // 2, (wide + 1) // 2
    length = scaled(EMBEDDING, width)
    layers["embedding"] = _embedding(inputs, height * wide, length, dropout)
    layers["classifier"] = nn.Linear(length, classes)
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return model


def _embedding(channels: int, places: int, length: int, dropout: float) -> nn.Sequential:
    """Make what turns the last map into a vector."""
    return nn.Sequential(
        OrderedDict(
            bn1=nn.BatchNorm2d(channels),
            dropout=nn.Dropout(dropout),
            flatten=nn.Flatten(),
            linear=nn.Linear(channels * places, length),
            bn2=nn.BatchNorm1d(length),
        )
    )
