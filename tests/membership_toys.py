# SPDX-License-Identifier: Apache-2.0
"""Evidence of membership whose answer is known: of a target that memorizes, of one that tells nothing, of Gaussian log odds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.attacks.predictions.base import Answers, Evidence, Oracle, References


@dataclass(frozen=True)
class Toy:
    """Evidence, and what it is about.

    Attributes:
        evidence: what the adversary holds; it knows a random half of the examples, and has references where some were asked for.
        member: (N,), bool: who was in the training set.
        optimum: (N,), float64: what the best adversary orders by.
    """

    evidence: Evidence
    member: Tensor
    optimum: Tensor

    @property
    def asked(self) -> Tensor:
        """Examples that the adversary does not know, (N,), bool."""
        assert self.evidence.known is not None
        return self.evidence.known < 0

    def auc(self, scores: Tensor) -> float:
        """Area under the ROC curve of the examples that are asked about."""
        return auc(scores[self.asked], self.member[self.asked])

    @property
    def least_of_perfect(self) -> float:
        """Lower end of the 95 % interval of an AUC that is 1 on as many examples."""
        return 0.025 ** (1 / min(self._sides()))

    @property
    def chance(self) -> float:
        """Standard deviation of the AUC of scores that have nothing to do with membership."""
        members, others = self._sides()
        return math.sqrt((members + others + 1) / (12 * members * others))

    def _sides(self) -> tuple[int, int]:
        members = int(self.member[self.asked].sum())
        return members, int(self.asked.sum()) - members


def auc(scores: Tensor, member: Tensor) -> float:
    """Share of pairs in which the member has the higher score; a tie counts one half."""
    inside, outside = scores[member], scores[~member].sort().values.contiguous()
    below = torch.searchsorted(outside, inside) + torch.searchsorted(outside, inside, right=True)
    return (below.double().mean() / (2 * len(outside))).item()


def balanced(models: int, count: int, *, seed: int = 0) -> Tensor:
    """A keep matrix, (models, count), bool: a random half of the examples, then the others, and so on."""
    stream = torch.Generator().manual_seed(seed)
    pairs = [torch.randperm(count, generator=stream) < count // 2 for _ in range((models + 1) // 2)]
    return torch.stack([side for half in pairs for side in (half, ~half)])[:models]


def gaussian(
    count: int = 2000,
    *,
    models: int = 8,
    classes: int = 4,
    shift: float = 2.0,
    spread: float = 0.0,
    views: int = 1,
    seed: int = 0,
) -> Toy:
    """Log odds of the true class are N(h, 1) outside and N(h + shift, 1) inside, all other classes sharing what is left evenly.

    h is how easy the example is for every model, N(0, spread^2): with spread 0 the loss is all that there is to know.
    """
    stream = torch.Generator().manual_seed(seed)
    easy = spread * torch.randn(count, generator=stream)

    def answer(member: Tensor, labels: Tensor) -> Tensor:
        phi = easy + shift * member + torch.randn(views, count, generator=stream)
        logits = torch.zeros(count, views, classes)
        place = labels.view(-1, 1, 1).expand(-1, views, 1)
        return logits.scatter(2, place, (phi + math.log(classes - 1)).T.unsqueeze(2))

    toy = _toy(count, models, classes, stream, answer)
    true = toy.evidence.target.logits.gather(2, toy.evidence.labels.view(-1, 1, 1).expand(-1, views, 1))[..., 0]
    return replace(toy, optimum=true.double().mean(1) - math.log(classes - 1) - easy.double())


def memorizing(count: int = 400, *, models: int = 8, classes: int = 4, views: int = 1, seed: int = 0) -> Toy:
    """Labels are noise: a model knows those of its members by heart, and names every other example wrong, and is not sure."""
    stream = torch.Generator().manual_seed(seed)

    def answer(member: Tensor, labels: Tensor) -> Tensor:
        logits = torch.randn(count, views, classes, generator=stream)
        place = labels.view(-1, 1, 1).expand(-1, views, 1)
        inside = logits.scatter(2, place, 20 + torch.rand(count, views, 1, generator=stream))
        outside = logits.scatter(2, place, logits.amin(2, keepdim=True) - torch.rand(count, views, 1, generator=stream))
        return torch.where(member.view(-1, 1, 1), inside, outside)

    return _toy(count, models, classes, stream, answer)


def independent(count: int = 1200, *, models: int = 8, classes: int = 4, views: int = 1, seed: int = 0) -> Toy:
    """What a model answers has nothing to do with what it was trained on."""
    stream = torch.Generator().manual_seed(seed)

    def answer(member: Tensor, labels: Tensor) -> Tensor:
        right = torch.nn.functional.one_hot(labels, classes).unsqueeze(1)
        return 2 * torch.randn(count, views, classes, generator=stream) + 2 * right

    return _toy(count, models, classes, stream, answer)


def _toy(count: int, models: int, classes: int, stream: torch.Generator, answer: Callable[[Tensor, Tensor], Tensor]) -> Toy:
    """Draw labels, members, and what target and references answer. The more a probability is off 0 and 1, the more it moves."""
    labels = torch.randint(classes, (count,), generator=stream)
    seed = stream.initial_seed()
    member = balanced(1, count, seed=seed + 1)[0]

    def answers(member: Tensor) -> Answers:
        logits = answer(member, labels)
        p = logits[:, 0].softmax(1)
        return Answers(logits, p * (1 - p) * (0.5 + torch.rand(count, 1, generator=stream)))

    known = torch.where(torch.rand(count, generator=stream) < 0.5, member.long(), -1)
    references = None
    if models:
        keep = balanced(models, count, seed=seed)
        references = References(tuple(answers(row) for row in keep), keep)
    target = answers(member)
    evidence = Evidence(target=target, labels=labels, references=references, known=known, oracle=_oracle(target, seed=seed))
    return Toy(evidence, member, member.double())


def _oracle(target: Answers, *, seed: int) -> Oracle:
    """Around each example the target says what it says of it, the farther the surer it is; elsewhere it says the next class."""
    p, told = target.logits[:, 0].softmax(1).max(1)
    x = 0.2 + 0.6 * torch.rand(len(told), 1, 8, 8, generator=torch.Generator().manual_seed(seed + 2))

    def labels(asked: Tensor) -> Tensor:
        apart, nearest = torch.cdist(asked.flatten(1), x.flatten(1)).min(1)
        return (told[nearest] + (apart > p[nearest] / 2)) % target.logits.shape[-1]

    return Oracle(labels=labels, read=lambda index: x[index.cpu()], classes=target.logits.shape[-1])
