# SPDX-License-Identifier: Apache-2.0
"""The blind adversary: answers with the mean of its own pictures whatever it sees.

Source: none; the floor under every attack. An attack that does no better has recovered nothing, which is no evidence of safety.
Equations: x_hat = E[x] over the auxiliary pictures, the best answer in MSE that does not look at z -> Mean.reconstruct
Departures: none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.data.loader import batches
from sfumato.target import BATCH
from sfumato.types import Reconstruction


@dataclass(kw_only=True)
class Mean(FeatureAttack):
    """Answer with the mean picture, to compare with.

    Example:
        >>> Mean().access
        'features'
    """

    access = "features"

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return the mean of the auxiliary pictures once for each row of z."""
        total = torch.zeros(adversary.image_shape, dtype=torch.float64, device=z.device)
        for x, _ in batches(adversary.auxiliary, size=BATCH, device=z.device):
            total += x.double().sum(0)
        mean = (total / len(adversary.auxiliary)).float()
        return (Reconstruction(mean.expand(len(z), *mean.shape)),)
