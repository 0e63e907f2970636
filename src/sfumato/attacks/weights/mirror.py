# SPDX-License-Identifier: Apache-2.0
"""MIRROR: search the styles of a style generator inside of the box of P space where its own styles lie; white box.

Source: an2022mirror, section IV (P-space clipping, white box); constants of its scripts, and of ho2024tldmi, appendix D.3.
Equations: min over w of 10 * CE(T(flip(G(w))), y), w clipped after every step -> MIRROR.invert; the box -> clipping.PSpace;
    the learning rate rises over the first 5 % and falls over the last 25 % of the steps, as a cosine -> ramp
Departures: every picture is mirrored or not by a draw of its own, where the release mirrors the whole batch. The steps are those
of TL-DMI's tables; the release has 20,000. Styles are clipped before the best are chosen to start from, so that these are where
the search is. The release's terms that are off by default (discriminator, Mahalanobis distance, distance to the start) are not
here. Its verifier is the target itself, so what it says is no success; the audit's evaluator judges instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.assembly import at_once, pictures, rows_of
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.budget import search_within
from sfumato.attacks.weights.objectives import cross_entropy, identity
from sfumato.attacks.weights.search import Search
from sfumato.attacks.weights.selection import answers, drawn_styles, p_space, require_selection, select_start
from sfumato.data.variation import Variation
from sfumato.inversion_types import ClassPictures
from sfumato.types import Images, Labels

_RISE, _FALL = 0.05, 0.25


@dataclass(kw_only=True)
class MIRROR(InversionAttack):
    """Search the styles of a style generator, clipped in P space; white box.

    Args:
        samples: styles that are drawn to start from the best of.
        per_class: starts, and pictures, of each class.
        psi: truncation of the styles that are drawn, [0, 1].
        steps: of the search; the release has 20,000.
        learning_rate: of Adam, in units of W.
        identity_weight: of the cross-entropy.
        measured: styles that the box of P space is measured on.
        deviations: half its side, in standard deviations.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> MIRROR(samples=1000, steps=100).per_class
        8
    """

    access = "weights"
    prior = "style"

    samples: int = 5000
    per_class: int = 8
    psi: float = 0.7
    steps: int = 500
    learning_rate: float = 0.25
    identity_weight: float = 10.0
    measured: int = 100_000
    deviations: float = 1.0

    def __post_init__(self) -> None:
        require_selection(samples=self.samples, candidates=self.per_class, per_class=self.per_class, psi=self.psi)
        require_least(1, steps=self.steps)
        require_least(2, measured=self.measured)
        require_positive(learning_rate=self.learning_rate, identity_weight=self.identity_weight, deviations=self.deviations)

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes: of every start the one that the target was surest of on the way."""
        style = means.prior.style

        def decode(w: Tensor, labels: Labels) -> Images:
            return style.synthesis(w)

        ask, w = answers(means), drawn_styles(means, samples=self.samples, psi=self.psi)
        space = p_space(means, samples=self.measured, psi=self.psi, deviations=self.deviations)
        space.clip([w])
        chosen = select_start(
            w, lambda some: ask(decode(some, labels)).softmax(1), labels, each=self.per_class, batch=at_once(means)
        )
        parts = Search(
            decode=decode,
            ask=means.white.classify,
            terms=[(self.identity_weight, identity(cross_entropy))],
            optimizer=lambda variables: torch.optim.Adam(variables, lr=self.learning_rate),
            steps=self.steps,
            show=Variation(flip=0.5),
            clip=space.clip,
            schedule=ramp,
            best=True,
        )
        found = search_within(means, parts, [w[chosen.index.flatten()]], rows_of(labels, self.per_class))
        return pictures(means, decode, found.variables[0], labels=labels, losses=found.losses)


def ramp(share: float) -> float:
    """Return the factor of the learning rate at a share of the steps done, [0, 1].

    Args:
        share: [0, 1).

    Example:
        >>> ramp(0.0), ramp(0.5)
        (0.0, 1.0)
    """
    fall = min(1.0, (1 - share) / _FALL)
    return min(1.0, share / _RISE) * (0.5 - 0.5 * math.cos(math.pi * fall))
