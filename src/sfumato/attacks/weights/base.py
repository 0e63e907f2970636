# SPDX-License-Identifier: Apache-2.0
"""What an attack on weights is: hyper-parameters as fields, one method to invert classes, and what every attack shares."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.errors import ConfigError, ModelError
from sfumato.inversion_types import ClassPictures
from sfumato.priors.base import Prior, PriorKind
from sfumato.seeds import ambient, generator
from sfumato.target import LabelsView, Target, WeightsView
from sfumato.types import Access, Labels, Watch

MEMORY = 2 << 30
"""Bytes that a batch of a search may take, unless the caller says otherwise."""


@dataclass(frozen=True)
class Means:
    """What an adversary has who inverts classes.

    Attributes:
        view: what it may see of the target.
        prior: its generator of pictures.
        public: pictures of people whom the target does not know, on the device of the target where they are resident.
        classes: of the target.
        seed: of everything random that it does.
        memory: bytes that a batch may take.
        watch: told of its progress.
    """

    view: LabelsView
    prior: Prior
    public: Pictures
    classes: int
    seed: int
    memory: int
    watch: Watch

    @property
    def white(self) -> WeightsView:
        """The view of an adversary who has the weights; an attack asks only if it declares that access."""
        assert isinstance(self.view, WeightsView)  # noqa: S101 -- the view is made by the declared access
        return self.view

    def stream(self, *names: str | int) -> torch.Generator:
        """Return a stream of random numbers on the CPU, the same on every device."""
        return generator(self.seed, "inversion", *names)


@dataclass(frozen=True)
class Inverted:
    """What an attack came to: its pictures of each class, the wall time it took and the queries it made."""

    pictures: ClassPictures
    seconds: float
    queries: int


@dataclass(kw_only=True)
class InversionAttack(ABC):
    """An attack that makes pictures of a target's classes.

    A subclass is a keyword-only dataclass whose fields are the paper's hyper-parameters. What it learns goes into private
    attributes: `__call__` works on a copy, so that an attack can be called again.

    Args:
        per_class: pictures that it makes of each class.

    Attributes:
        access: what it must see of the target.
        prior: the kind of prior that it searches.
    """

    access: ClassVar[Access]
    prior: ClassVar[PriorKind]

    per_class: int = 5

    @property
    def kind(self) -> PriorKind:
        """The kind of prior that it searches with its settings; another than `prior` where a setting says so."""
        return self.prior

    def fit(self, means: Means) -> None:
        """Learn from the public pictures. Run with gradient, inside the attack's ambient stream."""

    @abstractmethod
    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes. Run with gradient, inside the attack's ambient stream.

        Args:
            means: what the adversary has.
            labels: the classes, (K,), int64, different, on the device of the target.
        """

    @final
    def __call__(
        self,
        target: Target,
        prior: Prior,
        public: Pictures,
        classes: Tensor,
        *,
        outputs: int,
        seed: int = 0,
        memory: int = MEMORY,
        watch: Watch | None = None,
    ) -> Inverted:
        """Attack a target.

        Args:
            target: as deployed; its weights, modes and gradients are left as they are found.
            prior: of the attack's kind and of the target's pictures.
            public: pictures of people whom the target does not know.
            classes: to make pictures of, (K,), int64, different.
            outputs: how many classes the target has.
            seed: of everything random.
            memory: bytes that a batch may take.
            watch: told of the progress.

        Returns:
            Pictures in [0, 1] for each class, on the CPU.

        Raises:
            ConfigError: the prior is of another kind or of other pictures, or a class is not one of the target's.
            ModelError: the pictures have another shape, are not finite, or leave [0, 1].
        """
        attack, start, name = copy.deepcopy(self), time.perf_counter(), type(self).__name__
        _require_fit(name, attack.kind, prior, public.shape)
        _require_classes(classes, outputs)
        view = target.view(self.access, generator(seed, "view", name, device=target.device))
        assert isinstance(view, LabelsView)  # noqa: S101 -- every level has labels
        prior = copy.deepcopy(prior).to(target.device).eval().requires_grad_(False)
        means = Means(view, prior, public.to(target.device), outputs, seed, memory, watch or _silent)
        with ambient(seed, "inversion", name), torch.enable_grad():
            attack.fit(means)
            found = attack.invert(means, classes.to(target.device))
        _require_pictures(found, len(classes), public.shape, name)
        return Inverted(found, time.perf_counter() - start, view.queries)


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _require_fit(name: str, kind: PriorKind, prior: Prior, shape: tuple[int, int, int]) -> None:
    """Raise unless a prior is of a kind and makes pictures of a shape."""
    if prior.kind != kind:
        raise ConfigError(f"{name} searches a prior of kind '{kind}', got one of kind '{prior.kind}'; train one of that kind")
    if prior.image_shape != shape:
        raise ConfigError(
            f"the prior makes pictures of {prior.image_shape} and the target takes {shape}; train the prior on public pictures "
            "of the target's size"
        )


def _require_classes(classes: Tensor, outputs: int) -> None:
    """Raise unless classes are different classes of a target."""
    if classes.ndim != 1 or not len(classes) or len(classes.unique()) < len(classes):
        raise ConfigError(f"classes must be different numbers, got {classes.tolist()}; name each class once")
    if int(classes.min()) < 0 or int(classes.max()) >= outputs:
        raise ConfigError(f"classes must be from 0 to {outputs - 1}, those of the target, got {classes.tolist()}")


def _require_pictures(found: ClassPictures, classes: int, shape: tuple[int, int, int], name: str) -> None:
    x_hat = found.x_hat
    if x_hat.ndim != 5 or x_hat.shape[0] != classes or tuple(x_hat.shape[2:]) != shape:
        raise ModelError(f"{name} must return pictures of shape ({classes}, n, {shape}), found {tuple(x_hat.shape)}")
    if not bool(x_hat.isfinite().all()) or float(x_hat.min()) < 0 or float(x_hat.max()) > 1:
        raise ModelError(
            f"{name} must return finite pictures in [0, 1], found {float(x_hat.min()):.3g} to {float(x_hat.max()):.3g}"
        )
