# SPDX-License-Identifier: Apache-2.0
"""Plug and play attack: choose good styles, move them a little on random crops, keep those whose pictures hold up to cropping.

The prior need not know the target: one style generator serves every target of its kind of pictures.

Source: struppek2022ppa, sections 3.2 to 3.5; constants of its release for FaceScrub, which ho2024tldmi compares with.
Equations: Poincaré loss -> objectives.poincare; selections -> selection; min over w of the loss of T(crop(G(w))) -> PPA.invert
Departures: truncation works on all layers of a style, where the release leaves those after the eighth. The release keeps the best
50 of 200 at every size; fewer are kept by the same rule. The gradient of the loss falls with the number of classes, about as 1/K,
but Adam divides by its size, so that the learning rate is a length in W and holds for any number of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.assembly import at_once, rows_of
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.budget import search_within
from sfumato.attacks.weights.objectives import identity, poincare
from sfumato.attacks.weights.search import Search
from sfumato.attacks.weights.selection import answers, drawn_styles, mirrored, require_selection, robust_pictures, select_start
from sfumato.data.variation import Variation, center
from sfumato.errors import ConfigError
from sfumato.inversion_types import ClassPictures
from sfumato.types import Images, Labels


@dataclass(kw_only=True)
class PPA(InversionAttack):
    """Search the styles of a style generator; white box.

    Args:
        samples: styles that are drawn to choose from; the release has 5000 for CelebA.
        candidates: of each class that are searched.
        per_class: pictures of each class that are kept in the end.
        psi: truncation of the styles that are drawn, [0, 1].
        steps: of the search; the release has 70 for CelebA and 100 for dogs.
        learning_rate: of Adam, in units of W; the release has 0.01 for dogs.
        betas: of Adam, [0, 1).
        scale: least and largest share of the area that a crop has while searching.
        crop: share of each side of the prior's pictures that is used, (0, 1]; the release cuts 800 of 1024 pixels.
        views: random crops by which the final choice is made.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> PPA(samples=1000, candidates=20, per_class=5).learning_rate
        0.005
    """

    access = "weights"
    prior = "style"

    samples: int = 2000
    candidates: int = 200
    per_class: int = 50
    psi: float = 0.5
    steps: int = 50
    learning_rate: float = 0.005
    betas: tuple[float, float] = (0.1, 0.1)
    scale: tuple[float, float] = (0.9, 1.0)
    crop: float = 1.0
    views: int = 100

    def __post_init__(self) -> None:
        require_selection(
            samples=self.samples, candidates=self.candidates, per_class=self.per_class, psi=self.psi, crop=self.crop
        )
        require_least(1, steps=self.steps, views=self.views)
        require_positive(learning_rate=self.learning_rate)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be two numbers in [0, 1), got {self.betas}; the release has 0.1 and 0.1")
        Variation(scale=self.scale)

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        style = means.prior.style

        def decode(w: Tensor, labels: Labels) -> Images:
            return center(style.synthesis(w), self.crop)

        ask, w = answers(means), drawn_styles(means, samples=self.samples, psi=self.psi)
        chosen = select_start(
            w, lambda some: mirrored(ask, decode(some, labels)), labels, each=self.candidates, batch=at_once(means)
        )
        parts = Search(
            decode=decode,
            ask=means.white.classify,
            terms=[(1.0, identity(poincare))],
            optimizer=lambda variables: torch.optim.Adam(variables, lr=self.learning_rate, betas=self.betas),
            steps=self.steps,
            show=Variation(scale=self.scale),
        )
        found = search_within(means, parts, [w[chosen.index.flatten()]], rows_of(labels, self.candidates))
        return robust_pictures(means, decode, found.variables[0], labels, keep=self.per_class, times=self.views)
