# SPDX-License-Identifier: Apache-2.0
"""Learned inversion, refined by who has the weights: near a network's answer, the picture whose features are those released.

Source: ding2024patrol, Table VI, scores a white box without saying which; the search starts from what its black box answers, or
that of xia2025cem. The distance is that of he2019inversion, section 4.1.
Equations: x_hat = D(z) + e(w), w = argmin_w L(D(z) + e(w)) + s |w|^2 / d, for d pixels -> Refine.reconstruct; L as `matching`,
    e as `spectrum`
Departures: the search is ours. Where errors of D are Gaussian and the head adds noise of variance sigma^2, it finds the most
probable picture if s is d sigma^2 over the spread of features; here held-out pictures choose s, with no search among the choices,
so that on them the attack is never worse than D. With errors alike at every frequency and smoothness beside them, as in L + TV,
it gains half as much. To train D to match features too was tried and is worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.arguments import require_choice
from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.matching import Matching
from sfumato.attacks.features.regression import Fitting, Recordings, fit_inverter, record, share
from sfumato.attacks.features.spectrum import ErrorSpectrum
from sfumato.errors import ConfigError
from sfumato.metrics.image import mse
from sfumato.models.inverter import MirrorDecoder, ResidualDecoder, check_size
from sfumato.target import BATCH, Recording
from sfumato.types import Images, Reconstruction


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the pictures near an answer are searched, with Adam.

    Args:
        steps: of Adam, its rate falling to zero on a cosine.
        learning_rate: the first, in standard deviations of the network's errors.
        closeness: weights of the squared distance to the answer, s, tried from the largest for as long as the next does better.
        draws: of the defense at each step, where it draws anything but Gaussian noise.
        kernel: width of the kernel around each draw, in standard deviations of a feature.

    Raises:
        ConfigError: a value is out of its range.
    """

    steps: int = 150
    learning_rate: float = 0.1
    closeness: tuple[float, ...] = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    draws: int = 32
    kernel: float = 0.3

    def __post_init__(self) -> None:
        if min(self.steps, self.draws) < 1 or not (0 < self.learning_rate < math.inf and 0 < self.kernel < math.inf):
            raise ConfigError(f"steps, draws, learning_rate and kernel must be positive and finite, got {self}")
        if not self.closeness or not all(0 <= weight < math.inf for weight in self.closeness):
            raise ConfigError(f"closeness must be weights >= 0, one at least, got {self.closeness}; 0 looks at z alone")

    def rate(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2


_FITTING, _SEARCH = Fitting(), Search()


@dataclass(kw_only=True)
class Refine(FeatureAttack):
    """Invert z with a learned network and search near its answer for what matches z; white box.

    Args:
        network: "decoder", a residual decoder, or "mirror", the head's own layers turned round.
        blocks: residual blocks of the decoder.
        channels: their width.
        fitting: how the network is trained.
        search: how the pictures near its answer are searched.
        pictures: how many pictures of each part are attacked.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> Refine(network="mirror", search=Search(steps=50)).access
        'weights'
    """

    access = "weights"

    network: Literal["decoder", "mirror"] = "decoder"
    blocks: int = 8
    channels: int = 64
    fitting: Fitting = field(default_factory=Fitting)
    search: Search = field(default_factory=Search)
    pictures: int = 256

    def __post_init__(self) -> None:
        require_choice("network", self.network, ("decoder", "mirror"))
        check_size(self.blocks, self.channels)
        if self.pictures < 1:
            raise ConfigError(f"pictures must be at least 1, got {self.pictures}; 256 is the default")
        self._inverter: nn.Module = nn.Identity()
        self._matching: Matching
        self._errors: ErrorSpectrum
        self._closeness: float | None = None

    @property
    def limit(self) -> int | None:
        """How many pictures of each part are attacked."""
        return self.pictures

    def fit(self, adversary: Adversary) -> None:
        """Train the network, learn what its errors look like, and choose how close to its answers the search stays."""
        recordings, total = record(adversary), self.fitting.epochs + len(self.search.closeness)
        training = replace(adversary, watch=share(adversary.watch, 0, total))
        network = self._untrained(adversary, recordings)
        self._inverter = fit_inverter(network, training, recordings, self.fitting).networks["best"]
        self._matching = Matching(adversary, draws=self.search.draws, kernel=self.search.kernel)
        with torch.no_grad():
            self._choose(recordings.held_out)
        adversary.watch(total, total)

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return the pictures near the network's answers that match z; the answers, where that was no better."""
        answers = [(self._inverter(part), part) for part in z.split(BATCH)]
        if self._closeness is None:
            return (Reconstruction(torch.cat([answer for answer, _ in answers]), "best"),)
        near = [self._near(answer, part, self._closeness) for answer, part in answers]
        return (Reconstruction(torch.cat(near), "best"),)

    def _untrained(self, adversary: Adversary, recordings: Recordings) -> nn.Module:
        """Make the network."""
        x = adversary.image_shape
        if self.network == "mirror":
            return MirrorDecoder(adversary.view.layers(x), x)
        return ResidualDecoder(recordings.feature_shape, x, blocks=self.blocks, channels=self.channels)

    def _choose(self, held_out: Recording) -> None:
        """Let the search go farther for as long as it gets nearer to held-out pictures."""
        z, x = held_out.pairs(torch.arange(min(BATCH, len(held_out))))
        answer = self._inverter(z)
        self._errors = ErrorSpectrum.of(x - answer)
        lowest = mse(answer, x).mean()
        for weight in sorted(self.search.closeness, reverse=True):
            error = mse(self._near(answer, z, weight), x).mean()
            if not error < lowest:
                break
            lowest, self._closeness = error, weight

    @torch.enable_grad()
    def _near(self, answer: Images, z: Tensor, closeness: float) -> Images:
        """Search near the answers to z, (N, ...)."""
        white = torch.zeros_like(answer, requires_grad=True)
        optimizer = torch.optim.Adam([white])
        for step in range(self.search.steps):
            optimizer.param_groups[0]["lr"] = self.search.rate(step)
            x = answer + self._errors.shaped(white)
            # A pixel at the edge of [0, 1] must be able to come back: the derivative is that without the edge.
            x = x + (x.clamp(0, 1) - x).detach()
            objective = self._matching(x, z) + closeness * white.square().flatten(1).mean(1)
            (white.grad,) = torch.autograd.grad(objective.sum(), [white])
            optimizer.step()
        with torch.no_grad():
            return (answer + self._errors.shaped(white)).clamp(0, 1)


def mirror(*, fitting: Fitting = _FITTING, search: Search = _SEARCH, pictures: int = 256) -> Refine:
    """Return the attack with PATROL's inversion network.

    Args:
        fitting: how the network is trained.
        search: how the pictures near its answer are searched.
        pictures: how many pictures of each part are attacked.

    Example:
        >>> mirror().network
        'mirror'
    """
    return Refine(network="mirror", fitting=fitting, search=search, pictures=pictures)
