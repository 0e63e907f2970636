# SPDX-License-Identifier: Apache-2.0
"""HopSkipJump: how far a picture is from what the target calls something else, found with labels alone.

A search starts at a picture of another class and goes along the boundary towards the picture itself. Each round asks about random
neighbors of a point at the boundary, the labels of which tell where the boundary faces; jumps in that direction; and halves
its way back to the boundary. All pictures are searched for at once, so that the target answers large batches.

Source: chen2020hopskipjump, Algorithm 1 (binary search) and Algorithm 2 (the attack, untargeted, L2).
Equations: theta = d^(-3/2) -> _Search.theta; delta = sqrt(d) theta |x_t - x|, sum of (phi_b - mean phi) u_b -> _direction;
    B_t = B_0 sqrt(t), step = |x_t - x| / sqrt(t) -> boundary_distances; the step is halved until the label is another -> _jump
Departures: a search starts at noise and at the nearest example that the target takes for another class, and goes on from where
the boundary is nearer; noise alone is often called one class. theta is at least 2^-20, all that single precision tells apart. A
step is halved ten times at most, and the round is given up after that. A round whose neighbors are all alike is lost; the paper
takes any direction. The number of rounds follows from a budget of queries for each picture. The distance is that of the nearest
point found, so that no round makes it larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.types import Images

Adversarial = Callable[[Images, Tensor], Tensor]
"""From x, (n, C, H, W), and the places of the pictures that they stand near, (n,) int64, to whether the target calls them
something else, (n,) bool."""
FEWEST = 100
"""Queries of a picture that a search needs at least: both of its starts take half of them."""
NEIGHBORS = 100
"""Random neighbors that the first round asks about, B_0."""
TRIES = 10
"""Of noise that the target calls something else, and of a step that is halved."""
FINEST = 2.0**-20
"""Of theta."""
ELEMENTS = 2**22
"""Numbers in the neighbors that are made at once."""


@dataclass
class _Search:
    """Where the search for each picture is; pictures are rows of d numbers here.

    Attributes:
        x: (M, d): the pictures.
        other: what says whether the target calls a picture something else.
        shape: (C, H, W) of a picture.
        stream: of the noise, on the device of x.
        at: (M, d): the nearest points found that are called something else.
        distance: (M,): how far they are, L2; inf where there is none.
        high: (d,): the highest that each number may be; the lowest is 0.
        asked: queries of each picture so far, at most.
    """

    x: Tensor
    other: Adversarial
    shape: torch.Size
    stream: torch.Generator
    at: Tensor
    distance: Tensor
    high: Tensor
    asked: int = 0

    @property
    def theta(self) -> float:
        """How near the boundary a binary search ends, of the distance that it starts with."""
        return max(math.pow(self.x.shape[1], -1.5), FINEST)

    @property
    def halvings(self) -> int:
        """How many queries a binary search takes."""
        return math.ceil(-math.log2(self.theta))

    def clamped(self, points: Tensor) -> Tensor:
        """Return the points of the box that are nearest to some, (..., d)."""
        return points.clamp_min(0).minimum(self.high)

    def ask(self, points: Tensor, place: Tensor, *, each: int = 1) -> Tensor:
        """Ask about points near some pictures, `each` of them near each picture, (n,) bool."""
        self.asked += each
        return self.other(points.unflatten(1, self.shape), place)

    def approach(self, found: Tensor, place: Tensor) -> None:
        """Go from points that are called something else straight towards their pictures, up to the boundary; keep what is nearer.

        Args:
            found: (n, d).
            place: (n,), int64: the pictures that they belong to.
        """
        if not len(place):
            return
        x, far, near = self.x[place], found.new_ones(len(place), 1), found.new_zeros(len(place), 1)
        for _ in range(self.halvings):
            middle = (far + near) / 2
            other = self.ask(torch.lerp(x, found, middle), place)[:, None]
            far, near = torch.where(other, middle, far), torch.where(other, near, middle)
        reached = torch.lerp(x, found, far)
        distance = (reached - x).norm(dim=1)
        better = distance < self.distance[place]
        self.at[place[better]] = reached[better]
        self.distance[place[better]] = distance[better]


def boundary_distances(
    x: Images,
    other: Adversarial,
    *,
    examples: Images,
    wrong: Tensor,
    queries: int,
    generator: torch.Generator,
    fixed: Tensor | None = None,
) -> Tensor:
    """Return an upper bound of how far each picture is from what is called something else.

    Args:
        x: (M, C, H, W), in [0, 1]: pictures that the target names right.
        other: what says whether the target calls a picture something else.
        examples: (P, C, H, W), in [0, 1]: pictures to start from; P may be 0.
        wrong: (M, P), bool: whether the target takes an example for another class than that of a picture.
        queries: how many `other` answers about each picture, at most; at least 100.
        generator: of the noise, on the device of x.
        fixed: (C, H, W), bool: what is 0 in all pictures and stays so; None moves everything.

    Returns:
        (M,), float32: L2, in units of x; inf where nothing is found that is called something else.

    Example:
        >>> dark = lambda x, place: x.flatten(1).mean(1) < 0.5
        >>> none = {"examples": torch.ones(0, 1, 2, 2), "wrong": torch.ones(1, 0, dtype=torch.bool)}
        >>> stream = torch.Generator().manual_seed(0)
        >>> found = boundary_distances(torch.full((1, 1, 2, 2), 0.75), dark, **none, queries=1000, generator=stream)
        >>> bool((found - 0.5).abs() < 0.02)  # a quarter in each of four pixels
        True
    """
    rows = x.flatten(1)
    high = rows.new_ones(rows.shape[1]) if fixed is None else 1 - fixed.flatten().to(rows)
    search = _Search(rows, other, x.shape[1:], generator, rows.clone(), rows.new_full((len(x),), torch.inf), high)
    _start(search, examples.flatten(1), wrong)
    place = search.distance.isfinite().nonzero()[:, 0]
    for number in range(1, queries):
        neighbors = int(NEIGHBORS * math.sqrt(number))
        if not len(place) or search.asked + neighbors + TRIES + search.halvings > queries:
            break
        jumped, there = _jump(search, place, _direction(search, place, neighbors), search.distance[place] / math.sqrt(number))
        search.approach(jumped[there], place[there])
    return search.distance


def _start(search: _Search, examples: Tensor, wrong: Tensor) -> None:
    """Find points that are called something else: the nearest example that is, and noise."""
    place = wrong.any(1).nonzero()[:, 0]
    if len(place):
        apart = torch.cdist(search.x[place], examples).where(wrong[place], torch.inf)
        search.approach(examples[apart.argmin(1)], place)
    noise, lack = torch.empty_like(search.x), torch.arange(len(search.x), device=search.x.device)
    for _ in range(TRIES):
        drawn = torch.rand(noise[lack].shape, generator=search.stream, device=noise.device, dtype=noise.dtype)
        noise[lack] = search.clamped(drawn)
        lack = lack[~search.ask(noise[lack], lack)]
        if not len(lack):
            break
    found = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
    found[lack] = False
    search.approach(noise[found], found.nonzero()[:, 0])


def _direction(search: _Search, place: Tensor, neighbors: int) -> Tensor:
    """Return where the boundary faces at the nearest points found, (n, d), of length 1, by the labels of random neighbors."""
    at, smallest = search.at[place], torch.finfo(search.x.dtype).tiny
    delta = (math.sqrt(at.shape[1]) * search.theta * search.distance[place]).clamp_min(smallest)[:, None]
    plain, turned, total = torch.zeros_like(at), torch.zeros_like(at), at.new_zeros(len(at))
    per = max(ELEMENTS // at.numel(), 1)
    for count in [per] * (neighbors // per) + [neighbors % per] * bool(neighbors % per):
        drawn = torch.randn(count, *at.shape, generator=search.stream, device=at.device, dtype=at.dtype)
        moved = search.clamped(at + delta * F.normalize(drawn, dim=2))
        u = (moved - at) / delta  # what is left inside the box
        phi = 2 * search.ask(moved.flatten(0, 1), place.repeat(count), each=count).view(count, -1).to(at.dtype) - 1
        plain += u.sum(0)
        turned += (phi[..., None] * u).sum(0)
        total += phi.sum(0)
    return F.normalize(turned - (total / neighbors)[:, None] * plain, dim=1, eps=smallest)


def _jump(search: _Search, place: Tensor, direction: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return points a step away, and whether the target calls them something else; steps are halved until it does."""
    at = search.at[place]
    jumped, there = at.clone(), torch.zeros(len(at), dtype=torch.bool, device=at.device)
    for _ in range(TRIES):
        lack = (~there).nonzero()[:, 0]
        if not len(lack):
            break
        jumped[lack] = search.clamped(at[lack] + step[lack, None] * direction[lack])
        there[lack] = search.ask(jumped[lack], place[lack])
        step = step / 2
    return jumped, there
