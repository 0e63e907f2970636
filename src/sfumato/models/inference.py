# SPDX-License-Identifier: Apache-2.0
"""The inference network: from the answer of a classifier and the true label to whether the example was trained on.

Source: nasr2018adversarial, Section 5.1 and Figure 2 (two branches that join); wang2021mcmia, Section V-B (its layers).
Equations: h(f(x), y) = sigmoid(joint([prediction(f(x)), label(y)])), nasr2018adversarial, Section 3 -> InferenceNetwork.forward
Departures: wang2021mcmia says "[256, 64, 1]" of layers that are given 64 + 64 numbers; read as 128 -> 256 -> 64 -> 1. The network
returns the logit of h, so that log h and log (1 - h) need no guard. It is given log-probabilities, where the release gives it raw
logits (`inputs="logits"`): their scale grows during training, and with it the gradient into the classifier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sfumato.arguments import require_choice
from sfumato.errors import ConfigError

Inputs = Literal["log_softmax", "sorted", "logits"]
"""What the network is given of an answer: "log_softmax"; "sorted": probabilities in descending order, which do not say of what
class they are; "logits": the numbers as they come, features too."""


class InferenceNetwork(nn.Module):
    """Two branches, one for the prediction and one for the label, and a joint network to the logit of membership.

    Every layer but the last ends in a ReLU. Weights are drawn from PyTorch's ambient stream; biases start at 0.

    Args:
        classes: of the label.
        width: numbers in a prediction; as many as classes where None.
        inputs: what the first branch is given of the prediction.
        prediction: width of each layer of the first branch.
        label: of the second (the release has 128, 64).
        joint: of what follows, before the last layer (the release has 512, 256, 128, 64 or 256, 128, 64).
        deviation: standard deviation of the first weights; None is PyTorch's own initialization.

    Raises:
        ConfigError: a width is below 1, deviation is not positive and finite, or there is no such choice of inputs.

    Example:
        >>> network = InferenceNetwork(10)
        >>> network(torch.randn(4, 10), torch.eye(10)[:4]).shape
        torch.Size([4])
    """

    def __init__(
        self,
        classes: int,
        *,
        width: int | None = None,
        inputs: Inputs = "log_softmax",
        prediction: Sequence[int] = (1024, 512, 64),
        label: Sequence[int] = (512, 64),
        joint: Sequence[int] = (256, 64),
        deviation: float | None = 0.01,
    ) -> None:
        super().__init__()
        require_choice("inputs", inputs, get_args(Inputs))
        width = classes if width is None else width
        if min(classes, width, *prediction, *label, *joint) < 1:
            raise ConfigError(
                f"widths must be at least 1, got {classes} classes, {width} numbers, prediction={tuple(prediction)}, "
                f"label={tuple(label)} and joint={tuple(joint)}"
            )
        if deviation is not None and not 0 < deviation < math.inf:
            raise ConfigError(f"deviation must be > 0 and finite, got {deviation}; None is PyTorch's own initialization")
        self.inputs = inputs
        self.prediction, self.label = _layers((width, *prediction)), _layers((classes, *label))
        joined = ((width, *prediction)[-1] + (classes, *label)[-1], *joint)
        self.joint = nn.Sequential(_layers(joined), nn.Linear(joined[-1], 1))
        for module in self.modules():
            if isinstance(module, nn.Linear) and deviation is not None:
                nn.init.normal_(module.weight, std=deviation)
                nn.init.zeros_(module.bias)

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """Return the logit of membership, higher for a member.

        Args:
            prediction: logits or features of the classifier, (N, width), float, any range.
            label: the true class of each example, one-hot, (N, classes), float.

        Returns:
            (N,), with gradient into both.
        """
        seen = torch.cat([self.prediction(self._seen(prediction)), self.label(label)], 1)
        answer: Tensor = self.joint(seen)
        return answer[:, 0]

    def _seen(self, prediction: Tensor) -> Tensor:
        """Return what the first branch is given."""
        if self.inputs == "log_softmax":
            return prediction.log_softmax(1)
        if self.inputs == "sorted":
            return prediction.softmax(1).sort(1, descending=True).values
        return prediction


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers, each with a ReLU, from each width to the next."""
    return nn.Sequential(*(layer for here, there in pairwise(widths) for layer in (nn.Linear(here, there), nn.ReLU())))
