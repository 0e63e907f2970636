# SPDX-License-Identifier: Apache-2.0
"""Learn to map released features back to pictures: the one loop of the attacks that train an image decoder.

Source: xia2025cem, supplement S3 (the inversion model); he2019inversion, section 4.2 (inverse network).
Equations: min over theta of E ||D_theta(z) - x||^2 / d -> fit_inverter
Departures: the releases keep the weights of the last epoch, or choose among epochs on the scored pictures. Here the last weights
and those that did best on held-out auxiliary pictures are both kept; the scored pictures choose nothing. A tenth of the pictures
is held out for it, in the reference recipe too, whose cosine moves with every step and not every epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.arguments import require_choice
from sfumato.attacks.base import Adversary
from sfumato.data.loader import divide, shuffled
from sfumato.errors import ConfigError
from sfumato.metrics.image import mse
from sfumato.seeds import generator
from sfumato.target import BATCH, Recording
from sfumato.types import Reconstruction, Selection, Watch


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How an image decoder is trained, with Adam.

    The defaults reach the error of the reference recipe in a fraction of its time; `Fitting.reference()` is that recipe.

    Args:
        epochs: passes over the auxiliary pictures, at most.
        batch_size: pictures a step.
        learning_rate: the highest one of the schedule.
        weight_decay: L2, as in the reference.
        schedule: "one-cycle" rises for a fifth of the run and anneals to zero; "cosine" falls from the start.
        final: last learning rate of "cosine".
        patience: epochs after the rise without an improvement of 0.1 % on the held-out pictures that end the run; 0 never does.

    Raises:
        ConfigError: a value is out of its range.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    final: float = 0.0
    patience: int = 5

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.patience < 0:
            raise ConfigError(f"epochs and batch_size must be at least 1 and patience at least 0, got {self}")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise ConfigError(f"learning_rate must be > 0 and weight_decay >= 0, both finite, got {self}")
        require_choice("schedule", self.schedule, ("one-cycle", "cosine"))

    @classmethod
    def reference(cls) -> Fitting:
        """Return the recipe of the CEM release: Adam 1e-3 falling to 1e-5 on a cosine, 50 epochs, batches of 256."""
        return cls(epochs=50, batch_size=256, learning_rate=1e-3, schedule="cosine", final=1e-5, patience=0)

    def rate(self, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs, with fraction."""
        share = epoch / self.epochs
        if self.schedule == "cosine":
            return self.final + (self.learning_rate - self.final) * (1 + math.cos(math.pi * share)) / 2
        rise = 0.2
        if share < rise:
            return self.learning_rate * (0.04 + 0.96 * share / rise)
        return self.learning_rate * (1 + math.cos(math.pi * (share - rise) / (1 - rise))) / 2


@dataclass(frozen=True)
class Inverters:
    """Trained image decoders: those of the best epoch and of the last."""

    networks: Mapping[Selection, nn.Module]

    def reconstruct(self, z: Tensor) -> tuple[Reconstruction, ...]:
        """Return what each decoder makes of features, (N, ...)."""
        return tuple(
            Reconstruction(torch.cat([network(part) for part in z.split(BATCH)]), selection)
            for selection, network in self.networks.items()
        )


@dataclass(frozen=True)
class Recordings:
    """What a target releases for an adversary's own pictures.

    Attributes:
        fitted: for those that it trains on.
        held_out: for those that it chooses by.
    """

    fitted: Recording
    held_out: Recording

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of z for one picture."""
        return self.fitted.feature_shape


def record(adversary: Adversary, releases: int = 1, *, gray_levels: int = 0) -> Recordings:
    """Record what a target releases for an adversary's own pictures.

    Args:
        adversary: what the adversary has.
        releases: how often each picture is asked about at every draw; the answers are averaged.
        gray_levels: above 0, near-duplicates of it are asked about instead, every pixel within so many levels of 255.
    """
    parts = (adversary.auxiliary, adversary.held_out)
    return Recordings(*(adversary.view.record(part, releases, gray_levels=gray_levels) for part in parts))


class Choice:
    """The weights of a network that did best so far on held-out pictures.

    Args:
        network: takes z, (N, ...), and returns pictures, (N, C, H, W), [0, 1]; it goes on learning elsewhere.
        held_out: the releases of the pictures to choose by.

    Attributes:
        lowest: the mean squared error of the best weights; infinite before the first look.
    """

    def __init__(self, network: nn.Module, held_out: Recording) -> None:
        self._network = network
        self._held_out = held_out
        self._best = copy.deepcopy(network.state_dict())
        self.lowest = math.inf

    @torch.no_grad()
    def look(self) -> float:
        """Return the mean squared error of the network as it is, in eval mode; where it is the lowest, keep the weights."""
        self._network.eval()
        errors = []
        for index in torch.arange(len(self._held_out)).split(BATCH):
            z, x = self._held_out.pairs(index)
            errors.append(mse(self._network(z), x))
        error = torch.cat(errors).mean().item()
        if error < self.lowest:
            self._best, self.lowest = copy.deepcopy(self._network.state_dict()), error
        return error

    def made(self) -> Inverters:
        """Return the network with the best weights and with those that it has, in eval mode."""
        self._network.eval()
        chosen = copy.deepcopy(self._network)
        chosen.load_state_dict(self._best)
        return Inverters({"best": chosen, "last": self._network})


def fit_inverter(network: nn.Module, adversary: Adversary, recordings: Recordings, fitting: Fitting) -> Inverters:
    """Train an image decoder on an adversary's own pictures.

    Args:
        network: takes z, (N, ...), and returns pictures, (N, C, H, W), [0, 1]; trained in place.
        adversary: what the adversary has.
        recordings: what the target releases for its pictures.
        fitting: how to train.

    Returns:
        The decoders, in eval mode.
    """
    place(network, adversary)
    optimizer = torch.optim.Adam(network.parameters(), lr=fitting.learning_rate, weight_decay=fitting.weight_decay)
    choice, since = Choice(network, recordings.held_out), 0
    for epoch in range(fitting.epochs):
        order = shuffled(len(recordings.fitted), generator(adversary.seed, "fit", epoch))
        _train_epoch(network, optimizer, recordings.fitted, order, epoch, fitting)
        lowest, error = choice.lowest, choice.look()
        since = 0 if error < 0.999 * lowest or epoch < fitting.epochs / 5 else since + 1
        settled = 0 < fitting.patience <= since
        adversary.watch(fitting.epochs if settled else epoch + 1, fitting.epochs)
        if settled:
            break
    return choice.made()


def place(network: nn.Module, adversary: Adversary) -> None:
    """Move a network to where the target computes, in the layout that convolutions like.

    On the CPU of the benchmark an epoch takes less than half the time in it.
    """
    network.to(adversary.view.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def share(watch: Watch, before: int, total: int) -> Watch:
    """Return a watch for one of several networks that are trained in turn.

    Args:
        watch: told of all of them.
        before: the epochs of those trained already.
        total: the epochs of all.

    Example:
        >>> share(lambda done, total: print(done, "of", total), 20, 40)(5, 20)
        25 of 40
    """
    return lambda done, _: watch(before + done, total)


def _train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, recording: Recording, order: Tensor, epoch: int, fitting: Fitting
) -> None:
    """Make one pass over the pictures at `order`."""
    network.train()
    parts = divide(order, fitting.batch_size)
    for step, index in enumerate(parts):
        for group in optimizer.param_groups:
            group["lr"] = fitting.rate(epoch + step / len(parts))
        z, x = recording.pairs(index)
        loss = F.mse_loss(network(z), x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
