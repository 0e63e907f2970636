# SPDX-License-Identifier: Apache-2.0
"""What an attack on released features is: hyper-parameters as fields, one method to reconstruct, and what every attack shares."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.data.loader import shuffled
from sfumato.errors import ModelError
from sfumato.seeds import ambient, generator
from sfumato.target import FeaturesView, Target
from sfumato.types import Access, Part, Reconstruction, Watch

HELD_OUT = 0.1
"""Fraction of an adversary's pictures that it chooses by and does not train on."""


@dataclass(frozen=True)
class Adversary:
    """What the adversary has.

    Attributes:
        view: what it may see of the target.
        auxiliary: pictures of its own that it trains on, on the device of the target where they are resident.
        held_out: pictures of its own that it does not train on, to choose by.
        seed: of everything random that it does.
        watch: told of its progress.
    """

    view: FeaturesView
    auxiliary: Pictures
    held_out: Pictures
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

    @property
    def releases(self) -> int:
        """How many releases of each picture the adversary sees."""
        return 1

    @property
    def gray_levels(self) -> int:
        """How far pixels of those pictures lie from the one to recover, of 255, at most; 0 where it is sent byte for byte."""
        return 0

    @property
    def repeats(self) -> bool:
        """Whether the adversary sees the same bytes sent again, which a sticky device answers alike."""
        return self.releases > 1 and not self.gray_levels

    def fit(self, adversary: Adversary) -> None:
        """Learn from the adversary's own pictures. Run with gradient, inside the attack's ambient stream."""

    @abstractmethod
    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        """Reconstruct pictures, one reconstruction for each selection of weights. Run without gradient.

        Args:
            adversary: what the adversary has.
            z: released features, (N, ...), on the device of the target; (N, releases, ...) where `releases` is above 1.
        """

    @final
    def __call__(
        self, target: Target, auxiliary: Pictures, victims: Mapping[Part, Tensor], *, seed: int = 0, watch: Watch | None = None
    ) -> Attacked:
        """Attack a target.

        Args:
            target: as deployed; its weights and modes are left as they are found.
            auxiliary: the adversary's own pictures, divided by `hold_out`.
            victims: released features by part, (N, ...), or (N, releases, ...) for an attack that sees several releases of each
                picture; not counted as the adversary's queries.
            seed: of everything random.
            watch: told of the progress.

        Returns:
            Reconstructions in [0, 1] for each part, cut to `limit`.

        Raises:
            ModelError: a reconstruction has not the shape of the pictures, is not finite, or leaves [0, 1].
        """
        attack, start, name = copy.deepcopy(self), time.perf_counter(), type(self).__name__
        view = target.view(self.access, generator(seed, "view", name, device=target.device))
        assert isinstance(view, FeaturesView)  # noqa: S101 -- an attack on features declares at least that access
        fitted, held_out = (part.to(target.device) for part in hold_out(auxiliary))
        adversary = Adversary(view, fitted, held_out, seed, watch or _silent)
        with ambient(seed, "attack", name):
            attack.fit(adversary)
            with torch.no_grad():
                found = {part: attack.reconstruct(adversary, z[: self.limit]) for part, z in victims.items()}
        for part, reconstructions in found.items():
            for reconstruction in reconstructions:
                _require_pictures(reconstruction.x_hat, (len(victims[part][: self.limit]), *auxiliary.shape), name)
        return Attacked(found, time.perf_counter() - start, view.queries)


def hold_out(auxiliary: Pictures) -> tuple[Pictures, Pictures]:
    """Divide an adversary's pictures into those that it trains on and a tenth that it chooses by, the same for every attack.

    Args:
        auxiliary: the adversary's own pictures, at least one; a single one serves as both.

    Returns:
        The pictures to train on, and those held out.
    """
    mixed = shuffled(len(auxiliary), generator(0, "held out"))
    held = max(1, round(HELD_OUT * len(mixed)))
    return auxiliary.subset(mixed[held:] if held < len(mixed) else mixed), auxiliary.subset(mixed[:held])


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _require_pictures(x_hat: Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(x_hat.shape) != shape:
        raise ModelError(
            f"{name} must return pictures of shape {shape}, found {tuple(x_hat.shape)}; return one for each row of z"
        )
    if bad := int((~x_hat.isfinite()).flatten(1).any(1).sum()):
        raise ModelError(f"{name} must return finite pictures, found {bad} of {len(x_hat)} that are not; lower its learning rate")
    if x_hat.min() < 0 or x_hat.max() > 1:
        raise ModelError(f"{name} must return pictures in [0, 1], found {x_hat.min():.3g} to {x_hat.max():.3g}; clamp them")
