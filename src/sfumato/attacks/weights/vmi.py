# SPDX-License-Identifier: Apache-2.0
"""Variational model inversion: a distribution of latents for each class, near the prior's own, whose pictures are the class's.

With a style prior each of the first layers of the synthesis, those that make the identity, has a distribution of its own; the
others take the style of a latent that is drawn anew, so that what is learned holds whatever they do.

Source: wang2021vmi, section 3 and appendix; constants of its release, and of those that ho2024tldmi compares with.
Equations: min over q of E_q[-log p(y | G(z))] + kl_weight * KL(q | N(0, I)) / layers -> VMI.invert; q and KL -> variational
Departures: those of `variational`. Adam in place of SGD: the release's learning rate of 1e-4, with momentum, belongs to Glow's
parameters and to 4,867 steps, and in the 320 of TL-DMI's tables moves ours nowhere. The first 5 in 9 layers make the identity, as
10 of 18 do in the release, whatever the number of layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.arguments import require_choice, require_least, require_positive
from sfumato.attacks.weights.assembly import pictures
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.budget import search_within
from sfumato.attacks.weights.search import Rows, Search, Trial
from sfumato.attacks.weights.variational import Family, Flow, Gaussian
from sfumato.errors import ConfigError
from sfumato.inversion_types import ClassPictures
from sfumato.priors.base import Prior, PriorKind
from sfumato.types import Images, Labels

_IDENTITY = 10 / 18


@dataclass(frozen=True)
class Space:
    """Where a class has distributions: in the latents of a plain GAN, or in those of the first layers of a style generator.

    Args:
        prior: a plain or a style one.
        layers: how many distributions a class has.
        loose: layers that take the style of a latent of their own.
    """

    prior: Prior
    layers: int
    loose: int

    @classmethod
    def of(cls, prior: Prior, layers: int | None) -> Space:
        """Return the space of a prior.

        Raises:
            ConfigError: it has fewer layers than are asked for.
        """
        if prior.kind == "gan":
            return cls(prior, 1, 0)
        total = prior.style.layers
        layers = math.ceil(_IDENTITY * total) if layers is None else layers
        if layers > total:
            raise ConfigError(f"layers must be at most {total}, those of the prior, got {layers}; leave it out for 5 in 9")
        return cls(prior, layers, total - layers)

    def decode(self, latents: Tensor, labels: Labels) -> Images:
        """Make pictures of latents, (..., layers, D), with one more for the loose layers where there are any: one each."""
        z = latents.flatten(0, -3)
        if self.prior.kind == "gan":
            x: Images = self.prior(z[:, 0])
            return x
        w = self.prior.style.mapping(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return self.prior.style.synthesis(torch.cat([w[:, : self.layers], w[:, self.layers :].expand(-1, self.loose, -1)], 1))


@dataclass(kw_only=True)
class VMI(InversionAttack):
    """Learn a distribution of latents for each class; white box.

    Args:
        distribution: "flow" of affine couplings, or "gaussian" with a full covariance.
        generator: "style", with a distribution for each of several layers, or "gan", with one.
        steps: of the search.
        learning_rate: of Adam.
        batch: pictures of each class a step.
        kl_weight: of the divergence, beside a cross-entropy of weight 1.
        layers: of a style generator that have a distribution; None is the first 5 in 9.
        couplings: of the flow.
        hidden: units of each.
        per_class: pictures of each class, drawn at the end.

    Raises:
        ConfigError: a value is out of its range, or the prior has fewer layers.

    Example:
        >>> VMI(distribution="gaussian", generator="gan").kind
        'gan'
    """

    access = "weights"
    prior = "style"

    distribution: Literal["flow", "gaussian"] = "flow"
    generator: Literal["style", "gan"] = "style"
    steps: int = 320
    learning_rate: float = 0.01
    batch: int = 64
    kl_weight: float = 1e-3
    layers: int | None = None
    couplings: int = 6
    hidden: int = 64
    per_class: int = 100

    def __post_init__(self) -> None:
        require_choice("distribution", self.distribution, ("flow", "gaussian"))
        require_choice("generator", self.generator, ("style", "gan"))
        require_least(1, steps=self.steps, batch=self.batch, couplings=self.couplings, hidden=self.hidden)
        require_least(1, per_class=self.per_class, layers=1 if self.layers is None else self.layers)
        require_least(0, kl_weight=self.kl_weight)
        if self.generator == "gan" and self.layers is not None:
            raise ConfigError(f"layers are those of a style generator, got {self.layers} with generator = 'gan'; leave it out")
        require_positive(learning_rate=self.learning_rate)

    @property
    def kind(self) -> PriorKind:
        """The kind of prior that it searches, by `generator`."""
        return self.generator

    @property
    def family(self) -> Family:
        """The distributions among which it looks."""
        return Gaussian() if self.distribution == "gaussian" else Flow(self.couplings, self.hidden)

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        family, space, width = self.family, Space.of(means.prior, self.layers), means.prior.latent

        def noise(rows: Rows, count: int) -> Tensor:
            return rows.normal(count, space.layers, width, purpose="latent")

        def latents(variables: Sequence[Tensor], rows: Rows, count: int = self.batch) -> Tensor:
            z = family.draw(variables, noise(rows, count))
            return torch.cat([z, rows.normal(count, 1, width, purpose="loose")], 2) if space.loose else z

        def divergence(trial: Trial) -> Tensor:
            return family.divergence(trial.variables, noise(trial.rows, self.batch)) / space.layers

        parts = Search(
            decode=space.decode,
            ask=means.white.classify,
            terms=[(1.0, expected), (self.kl_weight, divergence)],
            optimizer=lambda variables: torch.optim.Adam(variables, lr=self.learning_rate),
            steps=self.steps,
            latents=latents,
        )
        start = family.start(space.layers, width, [means.stream("start", label) for label in labels.tolist()])
        found = search_within(means, parts, [one.to(labels.device) for one in start], labels)
        # No draw of a distribution is better than another: the pictures are in the order of their draws.
        rows = Rows(torch.arange(len(labels)), labels, len(labels), self.steps, means.seed)
        z = latents(found.variables, rows, self.per_class).flatten(0, 1)
        return pictures(means, space.decode, z, labels=labels, losses=torch.zeros(len(z), device=z.device))


def expected(trial: Trial) -> Tensor:
    """Return the mean cross-entropy of several pictures of each row, (B,).

    Args:
        trial: a step that made the pictures of a row one after the other, (B * S, C, H, W).
    """
    logits = trial.answer.logits
    labels = trial.rows.labels.repeat_interleave(len(logits) // len(trial.rows.labels))
    return F.cross_entropy(logits, labels, reduction="none").view(len(trial.rows.labels), -1).mean(1)


def gaussian(
    *, steps: int = 320, learning_rate: float = 0.05, batch: int = 64, kl_weight: float = 1e-3,
    generator: Literal["style", "gan"] = "style", per_class: int = 100,
) -> VMI:  # fmt: skip
    """Return the attack with Gaussians in place of flows, and a larger learning rate, which they bear and need.

    Args:
        steps: of the search.
        learning_rate: of Adam.
        batch: pictures of each class a step.
        kl_weight: of the divergence.
        generator: "style" or "gan".
        per_class: pictures of each class.

    Example:
        >>> gaussian().family
        Gaussian()
    """
    return VMI(
        distribution="gaussian", steps=steps, learning_rate=learning_rate, batch=batch, kl_weight=kl_weight,
        generator=generator, per_class=per_class,
    )  # fmt: skip
