# SPDX-License-Identifier: Apache-2.0
"""Several image decoders, of several architectures and from several starts, and of them the best on held-out pictures.

Source: networks of xia2025cem, supplement S3, and ding2024patrol, section IV-A; averaging of networks, breiman1996bagging.
Equations: x_hat = mean over the k best members of D_i(z); the error of that mean on the held-out pictures is the mean of the
    k x k part of G, G_ij = E (D_i(z) - x) . (D_j(z) - x) / d, and k is where it is lowest -> choose
Departures: bagging draws a new sample for each member; here members differ by architecture, first weights and order of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Fitting, Recordings, fit_inverter, record, share
from sfumato.errors import ConfigError
from sfumato.models.inverter import MirrorDecoder, ResidualDecoder, check_size
from sfumato.seeds import ambient, derive
from sfumato.target import BATCH, Recording
from sfumato.types import Reconstruction


@dataclass(kw_only=True)
class Ensemble(FeatureAttack):
    """Invert z with the best of several networks, or the mean of the best few, chosen on held-out auxiliary pictures.

    Args:
        residual: blocks and channels of each residual decoder.
        mirror: whether the head's own layers turned round are a member too; then the adversary knows its architecture.
        restarts: how often each network is trained, each time from other weights and in another order.
        fitting: how each is trained.

    Raises:
        ConfigError: there is no network, a size cannot be, or restarts is below 1.

    Example:
        >>> Ensemble(residual=((2, 16),), restarts=3).access
        'features'
    """

    access = "features"

    residual: tuple[tuple[int, int], ...] = ((8, 64), (2, 128))
    mirror: bool = True
    restarts: int = 2
    fitting: Fitting = field(default_factory=Fitting)

    def __post_init__(self) -> None:
        if self.restarts < 1 or not (self.residual or self.mirror):
            raise ConfigError(f"expected one restart or more of at least one network, got {self}; raise restarts or set mirror")
        for blocks, channels in self.residual:
            check_size(blocks, channels)
        self._chosen: tuple[nn.Module, ...] = ()

    def fit(self, adversary: Adversary) -> None:
        """Train every member and choose."""
        recordings = record(adversary)
        kinds, epochs = len(self.residual) + self.mirror, self.fitting.epochs
        members: list[nn.Module] = []
        for number in range(self.restarts):
            with ambient(adversary.seed, "restart", number):
                for network in self._networks(adversary, recordings):
                    watch = share(adversary.watch, len(members) * epochs, self.restarts * kinds * epochs)
                    restarted = replace(adversary, seed=derive(adversary.seed, "restart", number), watch=watch)
                    members.append(fit_inverter(network, restarted, recordings, self.fitting).networks["best"])
        self._chosen = choose(members, recordings.held_out)

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return the mean of what the chosen members make of z."""
        made = [torch.stack([network(part) for network in self._chosen]).mean(0) for part in z.split(BATCH)]
        return (Reconstruction(torch.cat(made), "best"),)

    def _networks(self, adversary: Adversary, recordings: Recordings) -> list[nn.Module]:
        """Make one network of each architecture."""
        z, x = recordings.feature_shape, adversary.image_shape
        made: list[nn.Module] = [ResidualDecoder(z, x, blocks=blocks, channels=channels) for blocks, channels in self.residual]
        return [*made, MirrorDecoder(adversary.view.layers(x), x)] if self.mirror else made


@torch.no_grad()
def choose(members: Sequence[nn.Module], held_out: Recording) -> tuple[nn.Module, ...]:
    """Choose the members whose mean does best on held-out pictures: the best alone, the best two, and so on to all of them.

    Args:
        members: image decoders in eval mode.
        held_out: the releases of the pictures to choose by.

    Returns:
        The chosen members, the best first.
    """
    gram = torch.zeros(len(members), len(members), dtype=torch.float64)
    for index in torch.arange(len(held_out)).split(BATCH):
        z, x = held_out.pairs(index)
        residuals = torch.stack([(network(z) - x).flatten() for network in members])
        gram += (residuals @ residuals.T).double().cpu()
    order = gram.diagonal().argsort()
    errors = [gram[order[:count]][:, order[:count]].mean() for count in range(1, len(members) + 1)]
    best = int(torch.stack(errors).argmin()) + 1
    return tuple(members[place] for place in order[:best].tolist())
