# SPDX-License-Identifier: Apache-2.0
"""Learned inversion by a network that inverts the head layer by layer.

Source: ding2024patrol, section IV-A ("Inversion Model"), after he2019inversion, section 4.2.
Equations: as `regression`.
Departures: the paper gives neither optimizer nor epochs; the schedule is that of the decoder attack.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Fitting, Inverters, fit_inverter, record
from sfumato.models.inverter import MirrorDecoder
from sfumato.types import Reconstruction


@dataclass(kw_only=True)
class Mirror(FeatureAttack):
    """Invert z with the head's own layers turned round; black box, but the adversary knows the head's architecture.

    Args:
        fitting: how the network is trained.

    Example:
        >>> Mirror().access
        'features'
    """

    access = "features"

    fitting: Fitting = field(default_factory=Fitting)

    def __post_init__(self) -> None:
        self._inverters = Inverters({})

    def fit(self, adversary: Adversary) -> None:
        """Train the mirrored network."""
        network = MirrorDecoder(adversary.view.layers(adversary.image_shape), adversary.image_shape)
        self._inverters = fit_inverter(network, adversary, record(adversary), self.fitting)

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return what the mirrored network makes of z, with the best weights and with the last."""
        return self._inverters.reconstruct(z)
