# SPDX-License-Identifier: Apache-2.0
"""MIRROR without the weights: breed styles in P space by what the target answers; black box.

Source: an2022mirror, section IV (black box); constants of its scripts.
Equations: fitness f = log p_y; parents by softmax(f); a child takes an entry from parent a with probability
    f_b / (f_a + f_b) -> share_of_first; with probability 0.1 an entry moves by 0.1 * U(-std, std); clipped to the box -> children
Departures: the release gives a parent the share f_a / (f_a + f_b) of its child. Fitness is negative, so that the less fit parent
gives more; here the shares are the other way round. The best of a generation goes on as it is, and the target is not asked about
it again. The styles to begin with are clipped, too. Every class has random numbers of its own, so that it is bred the same way
whichever others are attacked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.assembly import at_once, pictures
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.clipping import PSpace, to_p, to_w
from sfumato.attacks.weights.selection import drawn_styles, in_parts, p_space, require_selection, select_start
from sfumato.errors import ConfigError
from sfumato.inversion_types import ClassPictures
from sfumato.target import LogitsView
from sfumato.types import Labels

_LEAST = 1e-30


@dataclass(frozen=True)
class Herd:
    """Styles in P space, (N, D) on the device, and how fit each is, (N,) float64 on the CPU: log p of the class."""

    p: Tensor
    fitness: Tensor

    def first(self, count: int) -> Herd:
        """Return the fittest, in order."""
        order = self.fitness.argsort(descending=True, stable=True)[:count]
        return Herd(self.p[order.to(self.p.device)], self.fitness[order])


@dataclass(kw_only=True)
class MIRRORBlack(InversionAttack):
    """Breed styles of a style generator; black box: the target gives logits or probabilities.

    Args:
        samples: styles that are drawn, for all classes together; each is one query.
        population: of each class, the best of them.
        per_class: pictures of each class: the fittest of its last generation.
        psi: truncation of the styles that are drawn, [0, 1].
        generations: at most; each asks about population - 1 pictures.
        mutation: probability that an entry of a child moves, [0, 1].
        noise: how far, in standard deviations of P space.
        enough: a class is bred until the target is so sure of its fittest, (0, 1].
        measured: styles that the box of P space is measured on.
        deviations: half its side, in standard deviations.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> MIRRORBlack(samples=500, population=60, generations=30).access
        'logits'
    """

    access = "logits"
    prior = "style"

    samples: int = 5000
    population: int = 1000
    per_class: int = 8
    psi: float = 0.7
    generations: int = 100
    mutation: float = 0.1
    noise: float = 0.1
    enough: float = 0.95
    measured: int = 100_000
    deviations: float = 1.0

    def __post_init__(self) -> None:
        require_selection(samples=self.samples, candidates=self.population, per_class=self.per_class, psi=self.psi)
        require_least(1, generations=self.generations)
        require_least(2, measured=self.measured, population=self.population)
        require_least(0, noise=self.noise)
        require_positive(deviations=self.deviations)
        if not (0 <= self.mutation <= 1 and 0 < self.enough <= 1):
            raise ConfigError(f"mutation must be in [0, 1] and enough in (0, 1], got {self.mutation} and {self.enough}")

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        space = p_space(means, samples=self.measured, psi=self.psi, deviations=self.deviations)
        w = drawn_styles(means, samples=self.samples, psi=self.psi)
        space.clip([w])
        chosen = select_start(w, lambda some: _asked(means, some), labels, each=self.population, batch=at_once(means))
        herds = zip(to_p(w)[chosen.index], chosen.confidence, strict=True)
        best = [
            self._bred(means, space, Herd(p, _log(own)), label, number * self.generations, len(labels) * self.generations)
            for number, (label, (p, own)) in enumerate(zip(labels.tolist(), herds, strict=True))
        ]
        w, fitness = to_w(torch.cat([one.p for one in best])), torch.cat([one.fitness for one in best])
        return pictures(means, lambda w, _: means.prior.style.synthesis(w), w, labels=labels, losses=-fitness)

    def _bred(self, means: Means, space: PSpace, herd: Herd, label: int, done: int, total: int) -> Herd:
        """Breed one class, and return its fittest."""
        stream = means.stream("breed", label)
        for generation in range(self.generations):
            elite = herd.first(1)
            if float(elite.fitness) >= torch.tensor(self.enough, dtype=torch.float64).log():
                break
            p = children(herd, space, mutation=self.mutation, noise=self.noise, stream=stream)
            herd = Herd(torch.cat([elite.p, p]), torch.cat([elite.fitness, self._fitness(means, p, label)]))
            means.watch(done + generation + 1, total)
        means.watch(done + self.generations, total)
        return herd.first(self.per_class)

    @torch.no_grad()
    def _fitness(self, means: Means, p: Tensor, label: int) -> Tensor:
        """Ask the target about the pictures of styles, and return log p of the class."""
        return _log(in_parts(lambda w: _asked(means, w)[:, label], to_w(p), batch=at_once(means)))


def _asked(means: Means, w: Tensor) -> Tensor:
    """Return the probabilities of all classes that the target answers to the pictures of styles."""
    assert isinstance(means.view, LogitsView)  # noqa: S101 -- the view is made by the declared access
    return means.view.logits(means.prior.style.synthesis(w)).softmax(1)


def _log(probability: Tensor) -> Tensor:
    return probability.cpu().double().clamp_min(_LEAST).log()


def share_of_first(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of its child that the first of two parents gives: the more the fitter it is.

    Args:
        first: log probability of each first parent, (N,), at most 0.
        second: likewise of each second parent.

    Returns:
        (N,), [0, 1]; one half where both are sure.

    Example:
        >>> share_of_first(torch.tensor([-1.0]), torch.tensor([-3.0]))
        tensor([0.7500])
    """
    total = first + second
    share: Tensor = torch.where(total < 0, second / total.where(total < 0, -1.0), 0.5)
    return share


def children(herd: Herd, space: PSpace, *, mutation: float, noise: float, stream: torch.Generator) -> Tensor:
    """Breed a generation: all but the fittest, which goes on as it is.

    Args:
        herd: N styles and how fit each is.
        space: the box that children are kept in.
        mutation: probability that an entry of a child moves.
        noise: how far, in standard deviations of P space.
        stream: of random numbers, on the CPU.

    Returns:
        Styles in P space, (N - 1, D).
    """
    count, width = len(herd.p) - 1, herd.p.shape[1]
    parents = torch.multinomial(herd.fitness.softmax(0), 2 * count, replacement=True, generator=stream).view(2, count)
    mix, moved, shift = torch.rand(3, count, width, generator=stream)
    first, second = herd.fitness[parents]
    share = share_of_first(first, second)[:, None]
    device = herd.p.device
    a, b = herd.p[parents.to(device)]
    step = noise * (2 * shift - 1) * (moved < mutation)
    p: Tensor = torch.where((mix < share).to(device), a, b) + step.to(device) * space.std
    return p.clamp(space.low, space.high)
