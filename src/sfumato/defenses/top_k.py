# SPDX-License-Identifier: Apache-2.0
"""Only the k largest posteriors, at release.

Source: shokri2017membership, Section VIII (restrict the prediction vector to the top k classes).
Equations: q_c = p_c for the k largest, (1 - sum of those) / (C - k) for every other class -> TopK.release
Departures: the source leaves the other classes out. An answer here has a number for each class, so they share evenly what the k
leave: what anybody would assume who is told the k alone, and a distribution still.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes
from sfumato.defenses.posteriors import keep_label
from sfumato.errors import ConfigError
from sfumato.split import Split


class TopK(Defense):
    """Release the k largest posteriors; the other classes share the rest evenly, and the label does not change.

    Args:
        k: how many are released as they are.

    Raises:
        ConfigError: k is not positive, or, once the data is known, not below the number of classes.

    Example:
        >>> TopK(k=1).release(torch.tensor([[0.6, 0.3, 0.1]]).log()).exp()
        tensor([[0.6000, 0.2000, 0.2000]])
    """

    name = "top_k"
    surface = "predictions"

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}; 1 releases the largest posterior alone")
        self.k = k

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse a k that hides nothing."""
        require_classes(data, self.name)
        if self.k >= len(data.classes):
            raise ConfigError(
                f"k must be below the number of classes, {len(data.classes)}, got {self.k}: nothing would be hidden; lower it"
            )

    def release(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the posteriors that are left, (N, C), finite."""
        order = logits.argsort(dim=1, descending=True, stable=True)
        ranked = logits.log_softmax(1).gather(1, order)
        hidden = ranked[:, self.k :]
        # in logarithms: 1 less the k largest would be 0 where the model is sure
        share = hidden.logsumexp(1, keepdim=True) - math.log(hidden.shape[1])
        told = torch.cat([ranked[:, : self.k], share.expand_as(hidden)], 1)
        return keep_label(torch.empty_like(told).scatter_(1, order, told), logits)

    def extra_repr(self) -> str:  # noqa: D102
        return f"k={self.k}"
