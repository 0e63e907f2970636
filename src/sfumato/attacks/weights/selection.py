# SPDX-License-Identifier: Apache-2.0
"""Which candidates a search starts from, and which of those that it found are kept: what the target is surest of.

The choice before the search says how far a prior gets without one. The choice after it asks about random crops: a picture that
shows its class is still taken for it, one that only fools the target is not.

Source: struppek2022ppa, sections 3.2 (initial selection) and 3.5 (final selection).
Equations: mean of softmax_y over the picture and its mirror image -> mirrored; the n largest of S -> select_start;
    mean of softmax_y over N random crops -> robust_confidence
Departures: none. A candidate may serve several classes, as in the release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.attacks.weights.assembly import at_once, pictures, rows_of
from sfumato.attacks.weights.base import Means
from sfumato.attacks.weights.clipping import PSpace
from sfumato.attacks.weights.search import Rows
from sfumato.data.variation import Variation
from sfumato.errors import ConfigError
from sfumato.inversion_types import ClassPictures
from sfumato.seeds import derive
from sfumato.types import Images, Labels, Logits

_AT_ONCE, _MAPPED = 64, 4096

CROPS = Variation(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5)
"""What the final selection shows the target of each picture."""

Ask = Callable[[Images], Logits]
"""What a target answers to pictures."""
Decode = Callable[[Tensor, Labels], Images]
"""Makes pictures of latents, given their classes."""


def answers(means: Means) -> Ask:
    """Return what tells an adversary the logits of a target whose weights it has."""
    return lambda x: means.white.classify(x).logits


def in_parts(make: Callable[[Tensor], Tensor], x: Tensor, *, batch: int = _AT_ONCE) -> Tensor:
    """Apply what works row by row to a few rows at once.

    Args:
        make: what works row by row.
        x: the rows, (N, ...).
        batch: rows at once.

    Example:
        >>> in_parts(lambda x: 2 * x, torch.arange(3))
        tensor([0, 2, 4])
    """
    return torch.cat([make(some) for some in x.split(batch)])


@dataclass(frozen=True)
class Chosen:
    """Candidates by class: which, (K, each) int64, the surest first, and how sure the target is, (K, each) in [0, 1]."""

    index: Tensor
    confidence: Tensor


def mirrored(ask: Ask, x: Images) -> Tensor:
    """Return what a target thinks of pictures and of their mirror images.

    Args:
        ask: what it answers; asked about twice the pictures.
        x: (N, C, H, W), [0, 1].

    Returns:
        Mean probabilities, (N, K).

    Example:
        >>> mirrored(lambda x: x.flatten(1), torch.tensor([[[[0.0, 1.0]]]]))
        tensor([[0.5000, 0.5000]])
    """
    both = ask(torch.cat([x, x.flip(-1)])).softmax(1)
    return both.view(2, len(x), -1).mean(0)


@torch.no_grad()
def select_start(
    latents: Tensor, confidence: Callable[[Tensor], Tensor], labels: Labels, *, each: int, batch: int = _AT_ONCE
) -> Chosen:
    """Choose, for every class, the candidates that the target is surest of; one may serve several classes.

    Args:
        latents: the candidates, (S, ...).
        confidence: probabilities of all classes, (n, K), of some candidates.
        labels: the classes to choose for, (L,), int64.
        each: how many for each class, at most S.
        batch: candidates at once; the memory beside theirs is that of L * (each + batch) numbers.

    Returns:
        Of each class the surest first; of equals the earlier.

    Raises:
        ConfigError: fewer candidates than are to be chosen.

    Example:
        >>> latents = torch.tensor([[0.1], [0.9], [0.5]])
        >>> select_start(latents, lambda z: torch.cat([z, 1 - z], 1), torch.tensor([0, 1]), each=2).index
        tensor([[1, 2],
                [0, 2]])
    """
    if each > len(latents):
        raise ConfigError(f"{each} candidates of each class cannot be chosen from {len(latents)}; draw more samples")
    surest = torch.empty(len(labels), 0, device=labels.device)
    index = torch.empty(len(labels), 0, dtype=torch.int64, device=labels.device)
    for place in torch.arange(len(latents), device=labels.device).split(batch):
        sure = confidence(latents[place])[:, labels].T.float()
        both = torch.cat([surest, sure], 1).sort(dim=1, descending=True, stable=True)
        order = both.indices[:, :each]
        surest = both.values[:, :each]
        index = torch.cat([index, place.expand(len(labels), -1)], 1).gather(1, order)
    return Chosen(index, surest)


@torch.no_grad()
def drawn_styles(means: Means, *, samples: int, psi: float) -> Tensor:
    """Draw styles of a prior, the same whichever classes are attacked, (samples, D).

    Args:
        means: what the adversary has; its prior is one in two steps.
        samples: how many.
        psi: truncation of the styles, [0, 1].
    """
    z = means.prior.draw(samples, means.stream("candidates"))
    return in_parts(lambda some: means.prior.style.mapping(some, psi), z)


@torch.no_grad()
def p_space(means: Means, *, samples: int, psi: float, deviations: float) -> PSpace:
    """Measure the box of P space on styles that the prior draws.

    Args:
        means: what the adversary has; its prior is one in two steps.
        samples: how many are drawn.
        psi: truncation of the styles, [0, 1].
        deviations: half the side of the box, in standard deviations.
    """
    style, stream = means.prior.style, means.stream("box")
    sizes = [min(_MAPPED, samples - done) for done in range(0, samples, _MAPPED)]
    return PSpace.of((style.mapping(means.prior.draw(size, stream), psi) for size in sizes), deviations)


@torch.no_grad()
def robust_confidence(
    decode: Decode, ask: Ask, latents: Tensor, labels: Labels, *,
    variation: Variation = CROPS, times: int = 100, batch: int = _AT_ONCE, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Return how sure a target is of pictures that are varied at random.

    Args:
        decode: makes pictures of latents.
        ask: what the target answers.
        latents: (R, ...).
        labels: the class of each, (R,), int64.
        variation: of the pictures.
        times: how often each is varied.
        batch: pictures at once; the answer does not depend on it but for rounding.
        seed: of the variations, which are the same for a row in whichever batch it is.

    Returns:
        Mean probability of the class, (R,), float32.
    """
    sure = []
    for index in torch.arange(len(latents)).split(batch):
        own = labels[index.to(labels.device)]
        x = decode(latents[index.to(latents.device)], own)
        total = torch.zeros(len(index), device=own.device)
        for time in range(times):
            rows = Rows(index, own, len(latents), time, seed)
            total += ask(variation(x, rows, "selection")).softmax(1).gather(1, own[:, None])[:, 0].float()
        sure.append(total / times)
    return torch.cat(sure)


def select_end(confidence: Tensor, labels: Labels, *, keep: int) -> Tensor:
    """Choose the rows of every class that a target is surest of.

    Args:
        confidence: (L * n,), float, n rows of each class, one class after the other.
        labels: the classes, (L,), int64.
        keep: how many of each, at most n.

    Returns:
        Which rows, (L * keep,), int64, of each class the surest first.

    Example:
        >>> select_end(torch.tensor([0.1, 0.3, 0.2, 0.9, 0.8, 0.7]), torch.tensor([5, 6]), keep=2)
        tensor([1, 2, 3, 4])
    """
    by_class = confidence.view(len(labels), -1)
    order = by_class.argsort(dim=1, descending=True, stable=True)[:, :keep]
    first = by_class.shape[1] * torch.arange(len(labels), device=order.device)
    return (first[:, None] + order).flatten()


def robust_pictures(means: Means, decode: Decode, latents: Tensor, labels: Labels, *, keep: int, times: int) -> ClassPictures:
    """Make pictures of the candidates of every class that are still taken for it when they are varied at random.

    Args:
        means: what the adversary has: a target whose weights it knows.
        decode: makes pictures of latents.
        latents: candidates, (L * n, ...), in the order of `rows_of`.
        labels: the classes, (L,), int64.
        keep: how many of each class.
        times: how often each candidate is varied.
    """
    rows = rows_of(labels, len(latents) // len(labels))
    seed, batch = derive(means.seed, "selection"), at_once(means)
    sure = robust_confidence(decode, answers(means), latents, rows, times=times, batch=batch, seed=seed)
    kept = select_end(sure, labels, keep=keep)
    return pictures(means, decode, latents[kept], labels=labels, losses=-sure[kept])


def require_selection(*, samples: int, candidates: int, per_class: int, psi: float, crop: float = 1.0) -> None:
    """Raise unless candidates can be chosen so.

    Args:
        samples: that are drawn.
        candidates: of each class that are chosen of them.
        per_class: pictures of each class that are kept of those.
        psi: truncation of styles.
        crop: share of each side of a picture that is used.

    Raises:
        ConfigError: fewer are chosen from than are to be chosen, or a share is out of its range.

    Example:
        >>> require_selection(samples=10, candidates=20, per_class=5, psi=0.5)
        Traceback (most recent call last):
        sfumato.errors.ConfigError: samples >= candidates >= per_class >= 1 is needed, got 10, 20 and 5; draw more samples
    """
    if not samples >= candidates >= per_class >= 1:
        raise ConfigError(
            f"samples >= candidates >= per_class >= 1 is needed, got {samples}, {candidates} and {per_class}; draw more samples"
        )
    if not (0 <= psi <= 1 and 0 < crop <= 1):
        raise ConfigError(f"psi must be in [0, 1] and crop in (0, 1], got {psi} and {crop}; 1 changes nothing")
