# SPDX-License-Identifier: Apache-2.0
"""Labels that are mixed with all classes alike, with a weight of either sign.

Source: szegedy2016smoothing, Section 7 (positive weights); wei2022smoothing (negative ones, "not label smoothing");
struppek2024smooth, which found that positive weights make model inversion better and negative ones worse, and its release.
Equations: wei2022smoothing (1): label' = (1 - r) label + r / C -> LabelSmoothing.criterion, the cross-entropy with it; the
schedule of struppek2024smooth's release, epochs 50 and 75 of 100 -> LabelSmoothing.begin_epoch
Departures: wei2022smoothing trains with the labels as they are first, and with a negative weight after. That is
`schedule="late"`; by default the weight is the same throughout, so a negative one wants a small learning rate.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor

from sfumato.arguments import require_choice
from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes
from sfumato.errors import ConfigError
from sfumato.split import Split
from sfumato.types import Epoch, Step

Schedule = Literal["constant", "late"]


class LabelSmoothing(Defense):
    """Train on smoothed labels: less sure answers with a positive alpha, surer ones with a negative alpha.

    It narrows what tells members from others by the size of the loss; adversaries who know how each example behaves under models
    trained likewise need not lose by it. A negative alpha has no least loss: watch the training.

    Against model inversion the sign decides, as Struppek et al. found (struppek2024smooth): a positive alpha gathers the pictures
    of a class around one embedding, and attacks find faces more easily, most of all with few pictures; a negative one, such as
    -0.05 with the late schedule, leaves an attack little to follow. Who defends the weights takes no positive one.

    Args:
        alpha: r of Eq. (1), below 1; 0 leaves the labels as they are.
        schedule: "constant", alpha from the first epoch on; or "late", 0 for half of the epochs, then a line to half of alpha,
            and all of it from three quarters on.

    Raises:
        ConfigError: alpha is 1 or more, or not finite; the schedule is another; or the data is not for classification.

    Example:
        >>> LabelSmoothing(alpha=-0.05, schedule="late")
        LabelSmoothing(alpha=-0.05, schedule='late')
    """

    name = "label_smoothing"
    surface = "predictions"

    def __init__(self, alpha: float = 0.1, *, schedule: Schedule = "constant") -> None:
        super().__init__()
        require_choice("schedule", schedule, get_args(Schedule))
        if not -math.inf < alpha < 1:
            raise ConfigError(f"alpha must be finite and below 1, got {alpha}: at 1 the label is lost; 0.1 is the usual one")
        self.alpha, self.schedule = alpha, schedule
        self._share = 1.0

    @property
    def separable(self) -> bool:
        """Whether training sees each picture for itself: it does."""
        return True

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse data whose task has a loss of its own."""
        require_classes(data, self.name)

    def begin_epoch(self, epoch: Epoch) -> None:
        """Find the share of alpha that an epoch has."""
        self._share = 1.0 if self.schedule == "constant" else _late(epoch.number, epoch.total)

    def criterion(self, step: Step) -> Tensor:
        """Return the cross-entropy with the smoothed labels, a mean over the batch."""
        alpha = self.alpha * self._share
        losses = -step.logits.float().log_softmax(1)  # of each class, were it the label
        label = losses.gather(1, step.y[:, None])[:, 0]
        return ((1 - alpha) * label + alpha * losses.mean(1)).mean()  # Eq. (1)

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}" + ("" if self.schedule == "constant" else f", schedule={self.schedule!r}")


def _late(number: int, total: int) -> float:
    """Return the share of alpha in an epoch of the late schedule, [0, 1]."""
    half = total / 2
    if number >= 0.75 * total:
        return 1.0
    return (number + 1 - half) / half if number >= half else 0.0  # the release's line stops at a half and then jumps
