# SPDX-License-Identifier: Apache-2.0
"""Fully connected layers, for the rows of a table; pictures are flattened.

Source: nasr2018adversarial, Section 5.2 (the classifier of Purchase100 and Texas100: 1024, 512, 256 and 128 units with tanh).
Departures: none of the layers is sparse. Weights: PyTorch's default initialization.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import prod
from typing import Literal

from torch import nn

from sfumato.arguments import require_choice
from sfumato.errors import ConfigError
from sfumato.models.width import scaled

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def mlp(
    classes: int,
    shape: tuple[int, int, int],
    *,
    hidden: tuple[int, ...] = (1024, 512, 256, 128),
    activation: Literal["tanh", "relu"] = "tanh",
    width: float = 1.0,
) -> nn.Sequential:
    """Make a multi-layer perceptron with cuts `flatten`, `f1`, `f2` and so on, `classifier`.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x; (F, 1, 1) for the rows of a table.
        hidden: units of each hidden layer.
        activation: after each hidden layer.
        width: factor on the hidden units.

    Returns:
        A model from x (N, C, H, W), any range, to logits (N, classes).

    Raises:
        ConfigError: a size is not positive, or another activation.

    Example:
        >>> sum(p.numel() for p in mlp(100, (600, 1, 1)).parameters())
        1317348
    """
    require_choice("activation", activation, tuple(_ACTIVATIONS))
    if classes < 1 or min(shape) < 1 or min(hidden, default=1) < 1:
        raise ConfigError(f"classes, shape and hidden must be positive, got {classes}, {tuple(shape)} and {hidden}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = prod(shape)
    for place, units in enumerate(hidden, 1):
        outputs = scaled(units, width, multiple=1)
        layers[f"f{place}"] = nn.Sequential(nn.Linear(inputs, outputs), _ACTIVATIONS[activation]())
        inputs = outputs
    layers["classifier"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)
