# SPDX-License-Identifier: Apache-2.0
"""Labels that are mixed with all classes alike, with a weight of either sign.

Source: szegedy2016smoothing, Section 7 (positive weights); wei2022smoothing (negative ones, "not label smoothing").
Equations: wei2022smoothing (1): label' = (1 - r) label + r / C -> LabelSmoothing.criterion, the cross-entropy with it.
Departures: wei2022smoothing trains with the labels as they are first, and with a negative weight after; here the weight is the
same throughout, so a negative one wants a small learning rate.
"""

from __future__ import annotations

import math

from torch import Tensor

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes
from sfumato.errors import ConfigError
from sfumato.split import Split
from sfumato.types import Step


class LabelSmoothing(Defense):
    """Train on smoothed labels: less sure answers with a positive alpha, surer ones with a negative alpha.

    It narrows what tells members from others by the size of the loss; adversaries who know how each example behaves under models
    trained likewise need not lose by it. A negative alpha has no least loss: watch the training.

    Args:
        alpha: r of Eq. (1), below 1; 0 leaves the labels as they are.

    Raises:
        ConfigError: alpha is 1 or more, or not finite; or the data is not for classification.

    Example:
        >>> LabelSmoothing(alpha=-0.2)
        LabelSmoothing(alpha=-0.2)
    """

    name = "label_smoothing"
    surface = "predictions"

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__()
        if not -math.inf < alpha < 1:
            raise ConfigError(f"alpha must be finite and below 1, got {alpha}: at 1 the label is lost; 0.1 is the usual one")
        self.alpha = alpha

    @property
    def separable(self) -> bool:
        """Whether training sees each picture for itself: it does."""
        return True

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse data whose task has a loss of its own."""
        require_classes(data, self.name)

    def criterion(self, step: Step) -> Tensor:
        """Return the cross-entropy with the smoothed labels, a mean over the batch."""
        losses = -step.logits.float().log_softmax(1)  # of each class, were it the label
        label = losses.gather(1, step.y[:, None])[:, 0]
        return ((1 - self.alpha) * label + self.alpha * losses.mean(1)).mean()  # Eq. (1)

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}"
