# SPDX-License-Identifier: Apache-2.0
"""Posteriors with few decimals, at release.

Source: shokri2017membership, Section VIII (coarsen the precision of the prediction vector).
Equations: q = round(p, digits) -> Rounding.release
Departures: none in the rounding; what is released is log q, for which 0 is raised to a floor, and a label whose rounded posterior
equals that of another class is released just above it, so that the answer stays the same class.
"""

from __future__ import annotations

from torch import Tensor

from sfumato.defenses.base import Defense
from sfumato.defenses.posteriors import floored_log, keep_label
from sfumato.errors import ConfigError


class Rounding(Defense):
    """Round the posteriors that are released; the label does not change.

    It hides from an adversary what lies behind the last decimal, and nothing from one who looks at labels.

    Args:
        digits: decimals that stay, 0 to 6.

    Raises:
        ConfigError: digits is outside 0 to 6.

    Example:
        >>> import torch
        >>> Rounding(digits=1).release(torch.tensor([[0.62, 0.38]]).log()).exp()
        tensor([[0.6000, 0.4000]])
    """

    name = "rounding"
    surface = "predictions"

    def __init__(self, digits: int = 1) -> None:
        super().__init__()
        if not 0 <= digits <= 6:
            raise ConfigError(f"digits must be 0 to 6, got {digits}: float32 has no more; leave rounding out to round nothing")
        self.digits = digits

    def release(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the rounded posteriors, (N, C), finite."""
        rounded = logits.softmax(1).round(decimals=self.digits)
        return keep_label(floored_log(rounded), logits)

    def extra_repr(self) -> str:  # noqa: D102
        return f"digits={self.digits}"
