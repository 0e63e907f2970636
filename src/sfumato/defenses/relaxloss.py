# SPDX-License-Identifier: Apache-2.0
"""RelaxLoss: train to a loss that new pictures reach too, not to zero.

Source: chen2022relaxloss, Algorithm 1, and its released code.
Equations: even epochs |L - alpha|; odd epochs L above alpha, and else the mean of (1 - correct) CE(t, p) - CE(y, p) with
    t = p_y for the label and (1 - p_y) / (C - 1) for every other class -> RelaxLoss.criterion
Departures: t is a constant, a target as Algorithm 1 makes it; the release differentiates through it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes
from sfumato.errors import ConfigError
from sfumato.split import Split
from sfumato.types import Step


class RelaxLoss(Defense):
    """Hold the mean loss of the members at a level: descend above it, ascend or flatten the posteriors below it.

    Args:
        alpha: the level, in nats; the paper's are 1.0 (CIFAR-10, ResNet-20), 0.4 (CIFAR-10, VGG-11), 3.0 and 0.5 (CIFAR-100).
        upper: the most that the target t of the flattening gives a label, (0, 1]; 1 as in the paper.

    Raises:
        ConfigError: alpha is negative or not finite, or upper is outside (0, 1]; or, once the data is known, alpha is not below
            the loss of a guess, or the data is not for classification.

    Example:
        >>> RelaxLoss(alpha=0.5)
        RelaxLoss(alpha=0.5, upper=1.0)
    """

    name = "relaxloss"
    surface = "predictions"

    def __init__(self, alpha: float = 1.0, upper: float = 1.0) -> None:
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise ConfigError(f"alpha must be >= 0 and finite, got {alpha}; 0 is the loss as it is, 1.0 the paper's for CIFAR-10")
        if not 0 < upper <= 1:
            raise ConfigError(f"upper must be in (0, 1], a probability, got {upper}; 1.0 is the paper's")
        self.alpha = alpha
        self.upper = upper

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse a level that a model reaches by guessing."""
        require_classes(data, self.name)
        guess = math.log(len(data.classes))
        if self.alpha >= guess:
            raise ConfigError(
                f"alpha must be below the loss of a guess among {len(data.classes)} classes, {guess:.2f}, got {self.alpha}: the "
                "model would learn nothing; lower it"
            )

    def criterion(self, step: Step) -> Tensor:
        """Return the loss of a batch, which descends, ascends or flattens."""
        logits = step.logits.float()
        losses = F.cross_entropy(logits, step.y, reduction="none")
        mean = losses.mean()
        if step.epoch % 2 == 0:
            return (mean - self.alpha).abs()
        flattened = F.cross_entropy(logits, self._flat(logits.detach(), step.y), reduction="none")
        wrong = logits.argmax(1) != step.y
        # both are computed and one is taken: a branch would make a GPU wait for the loss
        return torch.where(mean > self.alpha, mean, (wrong * flattened - losses).mean())

    def _flat(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return t, (N, C): the posterior of the label, and what it leaves shared evenly by the other classes."""
        label = logits.softmax(1).gather(1, y[:, None]).clamp(max=self.upper)
        others = (1 - label) / (logits.shape[1] - 1)
        return others.expand_as(logits).scatter(1, y[:, None], label)

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}, upper={self.upper}"
