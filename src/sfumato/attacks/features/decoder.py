# SPDX-License-Identifier: Apache-2.0
"""Learned inversion: a residual decoder trained on the adversary's own pictures and what the target releases for them.

Source: xia2025cem, section 5.1 and supplement S3; network and constants of the release.
Equations: as `regression`.
Departures: the default schedule is ours, faster; `reference` is the release's. The paper says Adam 5e-3, the release runs 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Fitting, Inverters, fit_inverter, record
from sfumato.models.inverter import ResidualDecoder, check_size
from sfumato.types import Reconstruction


@dataclass(kw_only=True)
class Decoder(FeatureAttack):
    """Invert z with a residual decoder; black box: auxiliary pictures and queries only.

    Args:
        blocks: residual blocks of constant width.
        channels: their width.
        fitting: how the network is trained.

    Raises:
        ConfigError: blocks is negative or channels is not positive.

    Example:
        >>> Decoder(blocks=2, channels=16).access
        'features'
    """

    access = "features"

    blocks: int = 8
    channels: int = 64
    fitting: Fitting = field(default_factory=Fitting)

    def __post_init__(self) -> None:
        check_size(self.blocks, self.channels)
        self._inverters = Inverters({})

    def fit(self, adversary: Adversary) -> None:
        """Train the decoder."""
        recordings = record(adversary)
        network = ResidualDecoder(recordings.feature_shape, adversary.image_shape, blocks=self.blocks, channels=self.channels)
        self._inverters = fit_inverter(network, adversary, recordings, self.fitting)

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return what the decoder makes of z, with the best weights and with the last."""
        return self._inverters.reconstruct(z)


def reference(blocks: int = 8, channels: int = 64) -> Decoder:
    """Return the decoder attack as the CEM release runs it.

    Args:
        blocks: residual blocks of constant width.
        channels: their width.

    Example:
        >>> reference().fitting.epochs
        50
    """
    return Decoder(blocks=blocks, channels=channels, fitting=Fitting.reference())
