# SPDX-License-Identifier: Apache-2.0
"""Pseudo-label guided model inversion: a generator that was told classes by the target, and a margin instead of a probability.

The prior learned which public pictures the target finds most like each class, so that a class's latents already make pictures
like it; what is left to search is small.

Source: yuan2023plg (the max-margin loss; the attack, with random variations at every step); constants of its release.
Equations: min over z of sum over two variations a of -l_y(a(G(z, y))) + max_{k != y} l_k(a(G(z, y))) -> PLG.invert
Departures: the release jitters a picture with a probability of one half and by nothing otherwise; here every one, by amounts that
begin at nothing. Variations repeat the pixels of the border where the release has black. Each of the five restarts is a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.assembly import drawn, pictures, rows_of
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.budget import search_within
from sfumato.attacks.weights.objectives import Identity
from sfumato.attacks.weights.search import Search, Term, Trial
from sfumato.data.variation import Variation
from sfumato.inversion_types import ClassPictures
from sfumato.priors.conditional import SEEN
from sfumato.priors.losses import max_margin
from sfumato.types import Labels


def over_variations(loss: Identity, variation: Variation, count: int) -> Term:
    """Return a term that wants the target to take several variations of the pictures for their classes.

    Args:
        loss: of the logits of one variation; those of a picture are added.
        variation: of pictures, drawn anew for each.
        count: variations of each picture.
    """

    def term(trial: Trial) -> Tensor:
        seen = torch.cat([variation(trial.x, trial.rows, f"variation {number}") for number in range(count)])
        losses = loss(trial.ask(seen).logits, trial.rows.labels.repeat(count))
        return losses.view(count, -1).sum(0)

    return term


@dataclass(kw_only=True)
class PLG(InversionAttack):
    """Search the latents of a generator that is told the class; white box.

    Args:
        steps: of the search.
        learning_rate: of Adam.
        variations: of each picture that the target is shown at every step.
        per_class: pictures of each class, each from a start of its own.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> PLG(steps=150).prior
        'conditional'
    """

    access = "weights"
    prior = "conditional"

    steps: int = 600
    learning_rate: float = 0.1
    variations: int = 2

    def __post_init__(self) -> None:
        require_least(1, steps=self.steps, variations=self.variations, per_class=self.per_class)
        require_positive(learning_rate=self.learning_rate)

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        parts = Search(
            decode=means.prior,
            ask=means.white.classify,
            terms=[(1.0, over_variations(max_margin, SEEN, self.variations))],
            optimizer=lambda variables: torch.optim.Adam(variables, lr=self.learning_rate),
            steps=self.steps,
        )
        start = drawn(means, labels, self.per_class)
        found = search_within(means, parts, [start], rows_of(labels, self.per_class), "plg")
        return pictures(means, parts.decode, found.variables[0], labels=labels, losses=found.losses)
