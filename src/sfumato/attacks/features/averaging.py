# SPDX-License-Identifier: Apache-2.0
"""Learned inversion of several releases of the same picture: whoever sees one picture sent many times averages the noise away.

A sticky device repeats its noise when the same bytes come again, and so leaves nothing to average. A camera hardly ever sends the
same bytes twice: its pictures of one scene differ by a gray level here and there, and each has noise of its own.

Source: none for the attack; the network and its training are those of the decoder attack, xia2025cem, supplement S3.
Equations: x_hat = D(mean over j of z_j), j = 1..m; for noise of variance sigma^2 the mean has variance sigma^2 / m, and where
    pixels move by -g..g gray levels theirs is g (g + 1) / 3m squared levels -> Averaging.reconstruct
Departures: none. The mean is all that m releases say about x where the noise is Gaussian; for other defenses, and for heads that
are not linear where pictures differ, it is a summary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Fitting, Inverters, fit_inverter, record
from sfumato.errors import ConfigError, ModelError
from sfumato.models.inverter import ResidualDecoder, check_size
from sfumato.types import Reconstruction

_FITTING = Fitting()


@dataclass(kw_only=True)
class Averaging(FeatureAttack):
    """Invert the mean of several releases of each picture with a residual decoder trained on such means.

    Against a defense without randomness, and on a sticky device, it is the decoder attack as long as the pictures are the same.
    An audit holds all the releases of the scored pictures.

    Args:
        releases: how many releases of each picture the adversary sees, m.
        gray_levels: how far each pixel of these pictures lies from the scored one at most, of 255: all m are near-duplicates of
            it, each drawn by itself. 0 sends the scored picture m times, byte for byte.
        blocks: residual blocks of constant width.
        channels: their width.
        fitting: how the network is trained.

    Raises:
        ConfigError: releases is below 2, gray_levels is outside 0 to 255, blocks is negative or channels is not positive.

    Example:
        >>> Averaging(releases=64).access
        'features'
    """

    access = "features"

    releases: int = 16
    gray_levels: int = 0
    blocks: int = 8
    channels: int = 64
    fitting: Fitting = field(default_factory=Fitting)

    def __post_init__(self) -> None:
        if self.releases < 2:
            raise ConfigError(f"releases must be at least 2, got {self.releases}; for a single one use the attack 'decoder'")
        if not 0 <= self.gray_levels <= 255:
            raise ConfigError(f"gray_levels must be from 0 to 255, got {self.gray_levels}; 0 sends the same picture every time")
        check_size(self.blocks, self.channels)
        self._inverters = Inverters({})
        self._feature_shape: tuple[int, ...] = ()

    def fit(self, adversary: Adversary) -> None:
        """Train the decoder on means of as many releases of the adversary's own pictures."""
        recordings = record(adversary, self.releases, gray_levels=self.gray_levels)
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


def near(
    *, releases: int = 16, gray_levels: int = 1, blocks: int = 8, channels: int = 64, fitting: Fitting = _FITTING
) -> Averaging:
    """Return the attack of who sees a camera send one scene again and again: the pictures differ, if by a gray level only.

    Args:
        releases: how many near-duplicates of each picture are sent.
        gray_levels: how far each of their pixels lies from the scored picture at most, of 255.
        blocks: residual blocks of constant width.
        channels: their width.
        fitting: how the network is trained.

    Example:
        >>> near().gray_levels
        1
    """
    return Averaging(releases=releases, gray_levels=gray_levels, blocks=blocks, channels=channels, fitting=fitting)
