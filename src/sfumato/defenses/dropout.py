# SPDX-License-Identifier: Apache-2.0
"""Random zeros in the released features, in training and in deployment.

Source: he2020attacking, section VI (dropout defense).
Equations: z = mask * head(x), each element of the mask 0 with probability p -> Dropout.protect
Departures: elements that stay are not scaled by 1 / (1 - p), as in the CEM release, so that a kept element shows the same value
whatever p is; `rescale` turns the scaling on. The mask is applied to what the adversary sees, which the CEM release forgets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError


class Dropout(Defense):
    """Set elements of z to zero at random.

    Args:
        p: probability that an element is set to zero, in [0, 1).
        rescale: divide what stays by 1 - p.

    Raises:
        ConfigError: p is outside [0, 1).

    Example:
        >>> Dropout(p=0.0).protect(torch.ones(2, 3), None).equal(torch.ones(2, 3))
        True
    """

    name = "dropout"

    def __init__(self, p: float, rescale: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"p must be in [0, 1), got {p}; 0 disables dropout")
        self.p = p
        self.rescale = rescale

    @property
    def stochastic(self) -> bool:
        """Whether anything is dropped."""
        return self.p > 0

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: D102
        if not self.stochastic:
            return z
        kept = torch.empty_like(z).bernoulli_(1 - self.p, generator=generator)
        return z * (kept / (1 - self.p) if self.rescale else kept)

    def extra_repr(self) -> str:  # noqa: D102
        return f"p={self.p}, rescale={self.rescale}"
