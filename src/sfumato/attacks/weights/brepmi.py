# SPDX-License-Identifier: Apache-2.0
"""Boundary-repelling model inversion: walk away from the border of a class, seeing nothing but the target's labels.

A walk starts at a latent whose picture the target takes for the class. It asks about points on a sphere around where it is and
goes away from those that are not of the class; once the whole sphere is, the sphere grows. The further the border, the more the
picture is of the class. All walks of all classes go in lock step, so that the target answers large batches.

Source: kahla2022brepmi, Algorithm 1; constants of its release.
Equations: u = R n / |n|, n ~ N(0, I) -> sphere
    g = mean_i w_i u_i / R, w_i = -1 where T(G(z + u_i)) is not y, else 0 -> repulsion
    z' = clip(z + min(R / 3, 3) g), kept where T(G(z')) = y -> _Walk.step
Departures: a class has a budget of queries, by which every walk ends, where the release loops for ever if a class is never named
while starts are looked for, or if no step is ever accepted: steps that are not accepted count here too. A class of which no
picture is found is not reached, where the release leaves out whatever it found late and so attacks the easiest classes. The paper
lets the sphere grow when all of it is inside, the release when 7/8 are: `expand_at` is 1 or 0.75. The paper has one walk a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.assembly import at_once, drawn, pictures, rows_of
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.errors import ConfigError
from sfumato.inversion_types import ClassPictures
from sfumato.types import Labels

LONGEST = 3.0
"""The longest that a step may be; below that it is a third of the radius."""

Inside = Callable[[Tensor, Tensor], Tensor]
"""From latents, (n, L), and the walks that they belong to, (n,) int64, to whether their pictures are of the class, (n,) bool."""


def sphere(noise: Tensor, radius: Tensor) -> Tensor:
    """Return the points of spheres around the origin at which noise points.

    Args:
        noise: (R, N, L), from N(0, 1).
        radius: of the sphere of each row, (R,).

    Returns:
        (R, N, L), of length `radius`.

    Example:
        >>> sphere(torch.tensor([[[3.0, 4.0]]]), torch.tensor([10.0])).tolist()
        [[[6.0, 8.0]]]
    """
    return F.normalize(noise, dim=2) * radius[:, None, None]


def repulsion(points: Tensor, inside: Tensor, radius: Tensor) -> Tensor:
    """Return where to go, away from the points of a sphere that are not of the class.

    Args:
        points: (R, N, L), on spheres around the origin.
        inside: whether the target takes them for the class, (R, N), bool.
        radius: of the spheres, (R,).

    Returns:
        (R, L), of length 1 at most.

    Example:
        >>> points = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])
        >>> repulsion(points, torch.tensor([[False, True]]), torch.tensor([2.0])) + 0
        tensor([[-0.5000,  0.0000]])
    """
    outside = (~inside).to(points.dtype)
    return -(outside[:, :, None] * points).mean(1) / radius[:, None]


@dataclass(kw_only=True)
class BREPMI(InversionAttack):
    """Walk through the latents of a plain GAN, away from the border of the class; sees labels alone.

    Args:
        budget: queries that are spent on each class, at most; up to half of them to find where to start. What is asked to find
            starts is asked once for all classes, and counts for each that still looks.
        draws: latents asked about at once to find starts.
        directions: points on a sphere.
        radius: of the first sphere.
        factor: by which a sphere grows.
        expand_at: a sphere grows when more than ``(1 + expand_at) / 2`` of its points are of the class, or all; (0, 1].
        patience: steps with one sphere after which a walk ends, whether accepted or not.
        bound: latents are kept in [-bound, bound]; the points of a sphere may be outside.
        per_class: pictures of each class, each from a walk of its own; they share the budget.

    Raises:
        ConfigError: a value is out of its range, or the budget is too small for a single step of every walk.

    Example:
        >>> BREPMI(budget=20_000, per_class=3).access
        'labels'
    """

    access = "labels"
    prior = "gan"

    budget: int = 100_000
    draws: int = 256
    directions: int = 32
    radius: float = 2.0
    factor: float = 1.3
    expand_at: float = 0.75
    patience: int = 1000
    bound: float = 1.5

    def __post_init__(self) -> None:
        require_least(1, draws=self.draws, directions=self.directions, patience=self.patience, per_class=self.per_class)
        require_least(1, factor=self.factor)
        require_positive(radius=self.radius, bound=self.bound, expand_at=self.expand_at)
        if self.expand_at > 1:
            raise ConfigError(f"expand_at must be at most 1, which asks for every point of a sphere, got {self.expand_at}")
        needed = 2 * max(self.draws, self.per_class * (self.directions + 1))
        if self.budget < needed:
            raise ConfigError(
                f"budget must be at least {needed} queries a class, half of them for {self.draws} draws to find starts, half for "
                f"a step of {self.per_class} walks, {self.directions + 1} each, got {self.budget}; raise it, or lower per_class"
            )

    @torch.no_grad()
    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes. Those of a class that is not reached are the prior's."""
        starts, spent = self._starts(means, labels)
        latents, losses = drawn(means, labels, self.per_class), torch.zeros(len(labels) * self.per_class, device=labels.device)
        reached = torch.tensor([len(some) > 0 for some in starts])
        rows = rows_of(reached, self.per_class).nonzero()[:, 0].to(labels.device)
        if len(rows):
            begin = [some[torch.arange(self.per_class) % len(some)] for some in starts if len(some)]
            left = (self.budget - rows_of(spent, self.per_class)[rows]) // self.per_class
            latents[rows], losses[rows] = self._walk(means, rows_of(labels, self.per_class)[rows], torch.cat(begin), left)
        found = pictures(means, lambda z, _: means.prior(z), latents, labels=labels, losses=losses)
        return replace(found, reached=reached)

    def _starts(self, means: Means, labels: Labels) -> tuple[list[Tensor], Tensor]:
        """Draw latents until every class has a start for each of its walks, or has spent half its budget.

        Returns:
            Of each class its starts, (at most per_class, L), and the queries that it spent, (K,), int64.
        """
        stream, spent = means.stream("start"), torch.zeros(len(labels), dtype=torch.int64, device=labels.device)
        found = [torch.empty(0, means.prior.latent, device=labels.device)] * len(labels)
        for done in range(self.draws, self.budget // 2 + 1, self.draws):
            looking = [place for place, some in enumerate(found) if len(some) < self.per_class]
            if not looking:
                break
            z = means.prior.draw(self.draws, stream).clamp_(-self.bound, self.bound)
            told = _told(means, z)
            for place in looking:
                found[place] = torch.cat([found[place], z[told == labels[place]]])[: self.per_class]
                spent[place] = done
        return found, spent

    def _walk(self, means: Means, labels: Labels, begin: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Walk from starts while there are queries and patience; return where that leads, (R, L), and minus the radii, (R,)."""

        def inside(latents: Tensor, rows: Tensor) -> Tensor:
            return _told(means, latents) == labels[rows]

        walk, total = _Walk(self, begin, left, inside), int(left.max())
        numbers = [(int(label), row % self.per_class) for row, label in enumerate(labels.tolist())]
        streams = [means.stream("walk", *number) for number in numbers]
        while len(rows := walk.going()):
            walk.step(rows, _noise(streams, rows, self.directions, begin))
            means.watch(total - int(walk.left[rows].max()), total)
        means.watch(total, total)  # patience may end before the budget
        return walk.found, -walk.radius


class _Walk:
    """Where the walks are.

    Args:
        rules: the attack.
        begin: where they start, (R, L), each of its class.
        left: queries that each has, (R,), int64.
        inside: what says whether latents are of the class of their walk.

    Attributes:
        at: (R, L): where they are, each of its class.
        kept: (R, L): where they were when their sphere last grew.
        grown: (R,), bool: whether it ever did.
        radius: of the sphere of each, (R,).
        steps: with the sphere that each has, (R,), int64.
    """

    def __init__(self, rules: BREPMI, begin: Tensor, left: Tensor, inside: Inside) -> None:
        self.rules, self.left, self.inside = rules, left.clone(), inside
        self.at, self.kept = begin.clone(), begin.clone()
        self.grown, self.steps = torch.zeros_like(left, dtype=torch.bool), torch.zeros_like(left)
        self.radius = torch.full_like(begin[:, 0], rules.radius)

    @property
    def found(self) -> Tensor:
        """Where the sphere of each last grew, or where a walk is whose sphere never did, (R, L)."""
        return torch.where(self.grown[:, None], self.kept, self.at)

    def going(self) -> Tensor:
        """Return which walks have queries for a step and patience left, (n,), int64."""
        return ((self.left > self.rules.directions) & (self.steps < self.rules.patience)).nonzero()[:, 0]

    def step(self, rows: Tensor, noise: Tensor) -> None:
        """Go a step, or let the sphere grow.

        Args:
            rows: which walks go, (n,), int64.
            noise: from N(0, 1), (n, N, L).
        """
        rules, radius, count = self.rules, self.radius[rows], noise.shape[1]
        points = sphere(noise, radius)
        inside = self.inside((self.at[rows, None] + points).flatten(0, 1), rows.repeat_interleave(count)).view(-1, count)
        self.left[rows] -= count
        balance = 2 * inside.sum(1) - count
        grows = (balance > rules.expand_at * count) | (balance == count)
        larger, moves = rows[grows], rows[~grows]
        self.kept[larger], self.grown[larger] = self.at[larger], True
        self.radius[larger] *= rules.factor
        self.steps[larger] = 0
        if len(moves):
            length = (radius[~grows] / 3).clamp_max(LONGEST)[:, None]
            there = self.at[moves] + length * repulsion(points[~grows], inside[~grows], radius[~grows])
            self._accept(moves, there.clamp(-rules.bound, rules.bound))

    def _accept(self, rows: Tensor, there: Tensor) -> None:
        """Go where the target still takes the picture for the class, and stay elsewhere; both are a step."""
        accepted = self.inside(there, rows)
        self.at[rows[accepted]] = there[accepted]
        self.left[rows] -= 1
        self.steps[rows] += 1


def _told(means: Means, latents: Tensor) -> Tensor:
    """Return what the target calls the pictures of latents, (N,), int64, as many at once as memory takes."""
    return torch.cat([means.view.labels(means.prior(some)) for some in latents.split(at_once(means, len(latents)))])


def _noise(streams: Sequence[torch.Generator], rows: Tensor, count: int, like: Tensor) -> Tensor:
    """Draw from N(0, 1), (n, count, L), each row from a stream of its own: it is the same whichever others still go."""
    drawn_of = [torch.randn(count, like.shape[1], generator=streams[row]) for row in rows.tolist()]
    return torch.stack(drawn_of).to(like)
