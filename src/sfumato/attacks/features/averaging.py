# SPDX-License-Identifier: Apache-2.0
"""Learned inversion of several releases of the same picture: whoever sees one picture sent many times averages the noise away.

Source: none for the attack; the network and its training are those of the decoder attack, xia2025cem, supplement S3.
Equations: x_hat = D(mean over j of z_j), j = 1..m; for noise of variance sigma^2 the mean has variance sigma^2 / m
    -> Averaging.reconstruct
Departures: none. The mean is all that m releases say about x where the noise is Gaussian; for other defenses it is a summary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Fitting, Inverters, fit_inverter, record
from sfumato.errors import ConfigError, ModelError
from sfumato.models.inverter import ResidualDecoder, check_size
from sfumato.types import Reconstruction


@dataclass(kw_only=True)
class Averaging(FeatureAttack):
    """Invert the mean of several releases of each picture with a residual decoder trained on such means.

    Against a defense without randomness it is the decoder attack. An audit holds all the releases of the scored pictures.

    Args:
        releases: how many releases of each picture the adversary sees, m.
        blocks: residual blocks of constant width.
        channels: their width.
        fitting: how the network is trained.

    Raises:
        ConfigError: releases is below 2, blocks is negative or channels is not positive.

    Example:
        >>> Averaging(releases=64).access
        'features'
    """

    access = "features"

    releases: int = 16
    blocks: int = 8
    channels: int = 64
    fitting: Fitting = field(default_factory=Fitting)

    def __post_init__(self) -> None:
        if self.releases < 2:
            raise ConfigError(f"releases must be at least 2, got {self.releases}; for a single one use the attack 'decoder'")
        check_size(self.blocks, self.channels)
        self._inverters = Inverters({})
        self._feature_shape: tuple[int, ...] = ()

    def fit(self, adversary: Adversary) -> None:
        """Train the decoder on means of as many releases of the adversary's own pictures."""
        recordings = record(adversary, self.releases)
        self._feature_shape = recordings.feature_shape
        network = ResidualDecoder(self._feature_shape, adversary.image_shape, blocks=self.blocks, channels=self.channels)
        self._inverters = fit_inverter(network, adversary, recordings, self.fitting)

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return what the decoder makes of the mean of each picture's releases, with the best weights and with the last.

        Raises:
            ModelError: z is not (N, releases, ...).
        """
        if z.shape[1:] != (self.releases, *self._feature_shape):
            raise ModelError(
                f"expected {self.releases} releases of each picture, (N, {self.releases}, ...) with features of shape "
                f"{self._feature_shape}, found {tuple(z.shape)}; stack the releases of a picture in the second dimension"
            )
        return self._inverters.reconstruct(z.mean(1))
