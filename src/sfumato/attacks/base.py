# SPDX-License-Identifier: Apache-2.0
"""What an attack on released features is: hyper-parameters as fields, one method to reconstruct, and what every attack shares."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.errors import ModelError
from sfumato.seeds import ambient, generator
from sfumato.target import FeaturesView, Target
from sfumato.types import Access, Part, Reconstruction

Watch = Callable[[int, int], None]
"""Called with the work done and the work in all."""


@dataclass(frozen=True)
class Adversary:
    """What the adversary has.

    Attributes:
        view: what it may see of the target.
        auxiliary: pictures of its own, on the device of the target where they are resident.
        seed: of everything random that it does.
        watch: told of its progress.
    """

    view: FeaturesView
    auxiliary: Pictures
    seed: int
    watch: Watch

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures to recover."""
        return self.auxiliary.shape


@dataclass(frozen=True)
class Attacked:
    """What an attack came to: its reconstructions of each part, the wall time it took and the queries it made."""

    reconstructions: Mapping[Part, tuple[Reconstruction, ...]]
    seconds: float
    queries: int


@dataclass(kw_only=True)
class FeatureAttack(ABC):
    """An attack that reconstructs x from z.

    A subclass is a keyword-only dataclass whose fields are the paper's hyper-parameters. What it learns goes into private
    attributes: `__call__` works on a copy, so that an attack can be called again.
    """

    access: ClassVar[Access]

    @property
    def limit(self) -> int | None:
        """How many pictures of each part are attacked; None is all that the audit scores."""
        return None

    def fit(self, adversary: Adversary) -> None:
        """Learn from the adversary's own pictures. Run with gradient, inside the attack's ambient stream."""

    @abstractmethod
    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Reconstruct pictures, one reconstruction for each selection of weights. Run without gradient.

        Args:
            adversary: what the adversary has.
            z: released features, (N, ...), on the device of the target.
        """

    @final
    def __call__(
        self, target: Target, auxiliary: Pictures, victims: Mapping[Part, Tensor], *, seed: int = 0, watch: Watch | None = None
    ) -> Attacked:
        """Attack a target.

        Args:
            target: as deployed; its weights and modes are left as they are found.
            auxiliary: the adversary's own pictures.
            victims: released features by part, (N, ...); not counted as the adversary's queries.
            seed: of everything random.
            watch: told of the progress.

        Returns:
            Reconstructions in [0, 1] for each part, cut to `limit`.

        Raises:
            ModelError: a reconstruction has not the shape of the pictures, or is not finite.
        """
        attack, start, name = copy.deepcopy(self), time.perf_counter(), type(self).__name__
        view = target.view(self.access, generator(seed, "view", name, device=target.device))
        assert isinstance(view, FeaturesView)  # noqa: S101 -- an attack on features declares at least that access
        adversary = Adversary(view, auxiliary.to(target.device), seed, watch or _silent)
        with ambient(seed, "attack", name):
            attack.fit(adversary)
            with torch.no_grad():
                found = {part: attack.reconstruct(adversary, z[: self.limit]) for part, z in victims.items()}
        for part, reconstructions in found.items():
            for reconstruction in reconstructions:
                _require_pictures(reconstruction.x_hat, (len(victims[part][: self.limit]), *auxiliary.shape), name)
        return Attacked(found, time.perf_counter() - start, view.queries)


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _require_pictures(x_hat: Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(x_hat.shape) != shape or not x_hat.isfinite().all():
        raise ModelError(
            f"{name} must return finite pictures of shape {shape}, found {tuple(x_hat.shape)}; lower its learning rate"
        )
