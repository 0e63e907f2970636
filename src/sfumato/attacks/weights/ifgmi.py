# SPDX-License-Identifier: Apache-2.0
"""Intermediate features: search the styles, and then, layer by layer, what the layers of the synthesis hand on.

What no style gives, a layer's activations may; but the further they are from what the layer made of itself, the less is a picture
one of the prior's kind. So they are kept in an L1 ball around that, whose radius grows with the layers.

Source: qiu2024ifgmi, section 3; constants of its release for FaceScrub.
Equations: h_i = G_i(h_i-1, w); min over w and h_i of Poincaré(T(crop(G_L(... G_i+1(h_i, w)))), y) with |h_i - h_i_0|_1 <= r_i and
    |w - w_0|_1 <= r_i -> IFGMI.invert; the ball -> clipping.l1_ball; the first search, of styles alone, and selections as PPA's
Departures: what is searched are the changes of activations and styles, not these themselves, so that the balls are around 0. The
augmented target models, which the release has and its experiments leave out, are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.assembly import at_once, rows_of
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.budget import search_within
from sfumato.attacks.weights.clipping import l1_ball
from sfumato.attacks.weights.objectives import identity, poincare
from sfumato.attacks.weights.search import Rows, Search
from sfumato.attacks.weights.selection import (
    answers,
    drawn_styles,
    in_parts,
    mirrored,
    require_selection,
    robust_pictures,
    select_start,
)
from sfumato.data.variation import Variation, center
from sfumato.errors import ConfigError
from sfumato.inversion_types import ClassPictures
from sfumato.priors.base import Style
from sfumato.types import Images, Labels


@dataclass(frozen=True)
class Layer:
    """A place in a synthesis where a search begins: before it nothing is looked at.

    Latents are packed: for each row the style, and behind it the activations, flat.

    Args:
        style: the synthesis.
        number: layers before the place; with 0 there are styles alone.
        latents: where the search begins, (R, D + F).
        shape: of the activations of a row.
        crop: share of each side of the pictures that is used.
    """

    style: Style
    number: int
    latents: Tensor
    shape: tuple[int, ...]
    crop: float

    def parts(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the styles and the activations of packed latents."""
        width = len(self.style.w_mean)
        return latents[:, :width], latents[:, width:].unflatten(1, self.shape) if self.number else None

    def decode(self, latents: Tensor, labels: Labels) -> Images:
        """Make pictures of packed latents."""
        w, activations = self.parts(latents)
        return center(self.style.synthesis(w, start=self.number, activations=activations), self.crop)

    @property
    def variables(self) -> list[Tensor]:
        """The changes that are searched, all 0 at first: of the styles, and of the activations."""
        width = len(self.style.w_mean)
        changes = torch.zeros_like(self.latents)
        return [changes[:, :width], changes[:, width:]] if self.number else [changes]

    def changed(self, variables: Sequence[Tensor], rows: Rows) -> Tensor:
        """Return the packed latents of rows with changes."""
        return self.latents[rows.index.to(self.latents.device)] + torch.cat(list(variables), 1)

    def after(self, variables: Sequence[Tensor]) -> Layer:
        """Return this place with changes made."""
        return replace(self, latents=self.latents + torch.cat(list(variables), 1))

    @torch.no_grad()
    def next(self, batch: int) -> Layer:
        """Return the place behind the next layer, so many rows at once."""

        def through(latents: Tensor) -> Tensor:
            w, given = self.parts(latents)
            return self.style.activations(w, self.number + 1, start=self.number, activations=given)

        made = in_parts(through, self.latents, batch=batch)
        latents = torch.cat([self.parts(self.latents)[0], made.flatten(1)], 1)
        return replace(self, number=self.number + 1, latents=latents, shape=tuple(made.shape[1:]))


@dataclass(kw_only=True)
class IFGMI(InversionAttack):
    """Search the styles and then the activations of a style generator; white box.

    It holds the activations of all candidates of all classes at once: with a large prior, attack some classes at a time.

    Args:
        samples: styles that are drawn to choose from.
        candidates: of each class that are searched.
        per_class: pictures of each class that are kept in the end.
        psi: truncation of the styles that are drawn, [0, 1].
        steps: of each search: of styles, then behind the first layer, and so on.
        radii: of the balls around the start of each search, L1, in units of W and of activations.
        learning_rate: of Adam, in those units.
        betas: of Adam, [0, 1).
        scale: least and largest share of the area that a crop has while searching.
        crop: share of each side of the prior's pictures that is used, (0, 1]; the release cuts 800 of 1024 pixels.
        views: random crops by which the final choice is made.

    Raises:
        ConfigError: a value is out of its range, or the prior has fewer layers.

    Example:
        >>> IFGMI(samples=1000, candidates=10, per_class=5).steps
        (50, 10, 10, 10)
    """

    access = "weights"
    prior = "style"

    samples: int = 2000
    candidates: int = 50
    per_class: int = 50
    psi: float = 0.5
    steps: tuple[int, ...] = (50, 10, 10, 10)
    radii: tuple[float, ...] = (1000.0, 2000.0, 3000.0, 4000.0)
    learning_rate: float = 0.005
    betas: tuple[float, float] = (0.1, 0.1)
    scale: tuple[float, float] = (0.9, 1.0)
    crop: float = 1.0
    views: int = 100

    def __post_init__(self) -> None:
        require_selection(
            samples=self.samples, candidates=self.candidates, per_class=self.per_class, psi=self.psi, crop=self.crop
        )
        if not self.steps or len(self.steps) != len(self.radii):
            raise ConfigError(f"steps and radii must be one number for each search, got {self.steps} and {self.radii}")
        require_least(1, views=self.views, **{f"steps[{place}]": one for place, one in enumerate(self.steps)})
        require_positive(learning_rate=self.learning_rate, **{f"radii[{place}]": one for place, one in enumerate(self.radii)})
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be two numbers in [0, 1), got {self.betas}; the release has 0.1 and 0.1")
        Variation(scale=self.scale)

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        style = means.prior.style
        if len(self.steps) > style.layers:
            raise ConfigError(
                f"steps must be at most {style.layers} numbers, the layers of the prior, got {self.steps}; leave some out"
            )
        ask, w = answers(means), drawn_styles(means, samples=self.samples, psi=self.psi)
        first = Layer(style, 0, w, (), self.crop)
        chosen = select_start(
            w, lambda some: mirrored(ask, first.decode(some, labels)), labels, each=self.candidates, batch=at_once(means)
        )
        layer = replace(first, latents=w[chosen.index.flatten()])
        for number in range(len(self.steps)):
            layer = self._searched(means, layer.next(at_once(means)) if number else layer, rows_of(labels, self.candidates))
        return robust_pictures(means, layer.decode, layer.latents, labels, keep=self.per_class, times=self.views)

    def _searched(self, means: Means, layer: Layer, rows: Labels) -> Layer:
        """Search at one place."""
        radius, steps = self.radii[layer.number], self.steps[layer.number]

        def into_balls(variables: Sequence[Tensor]) -> None:
            for one in variables:
                one.copy_(l1_ball(one, radius))

        def told(done: int, total: int) -> None:
            before = sum(self.steps[: layer.number])
            means.watch(before + steps * done // total, sum(self.steps))

        parts = Search(
            decode=layer.decode,
            ask=means.white.classify,
            terms=[(1.0, identity(poincare))],
            optimizer=lambda variables: torch.optim.Adam(variables, lr=self.learning_rate, betas=self.betas),
            steps=steps,
            latents=layer.changed,
            show=Variation(scale=self.scale),
            clip=into_balls,
        )
        return layer.after(
            search_within(replace(means, watch=told), parts, layer.variables, rows, "layer", layer.number).variables
        )
