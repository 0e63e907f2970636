# SPDX-License-Identifier: Apache-2.0
"""NoPeek: features that depend as little on the picture as the task allows, by a penalty on their distance correlation.

Source: vepakomma2020nopeek; xia2025cem, Tables 1 to 3 ("DistCorr").
Equations: L + weight * dCor(x, z) -> DistCorr.penalty; dCor as `distance_correlation`.
Departures: x is in [0, 1]; the CEM release takes normalized pictures, whose channels weigh 1 / std each. Its strength S is this
weight on CIFAR-10 and ten times this weight on other data. z is taken before any `protect`, as in the releases.
"""

from __future__ import annotations

import math

from torch import Tensor

from sfumato.analysis.dependence import distance_correlation
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError
from sfumato.types import Step


class DistCorr(Defense):
    """Penalize the distance correlation between x and z in each batch.

    Args:
        weight: of the penalty; dCor is in [0, 1].

    Raises:
        ConfigError: weight is negative or not finite.

    Example:
        >>> DistCorr(weight=0.5)
        DistCorr(weight=0.5)
    """

    name = "distcorr"

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"weight must be >= 0, got {weight}; for no defense use Compose()")
        self.weight = weight

    def penalty(self, step: Step) -> Tensor:  # noqa: D102
        return self.weight * distance_correlation(step.x, step.z)

    def extra_repr(self) -> str:  # noqa: D102
        return f"weight={self.weight}"
