# SPDX-License-Identifier: Apache-2.0
"""What an attack on predictions is: hyper-parameters as fields, one method that scores stored answers, and what all share.

An adversary who asks whether an example was trained on holds *evidence*: what the target answered, what reference models
answered of which it knows what they were trained on, and perhaps the membership of some examples. All of it is stored logits, so
that an attack is a function and costs no training.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.errors import ConfigError, ModelError
from sfumato.membership_types import MembershipScores
from sfumato.seeds import ambient
from sfumato.types import Access

Need = Literal["references", "known", "sensitivity", "oracle"]
"""What an attack asks for beside the target's answers: reference models, examples whose membership it knows, how answers move
when pictures do, or a target that answers new questions."""


@dataclass(frozen=True)
class Answers:
    """What one model answered about N examples.

    Attributes:
        logits: (N, V, C), float32: of V views of each example, the same for every model; view 0 is the example as it is.
        sensitivity: (N, C), float32: mean change of each softmax probability over small perturbations of the example, divided by
            their standard deviation; None where nobody asked.
    """

    logits: Tensor
    sensitivity: Tensor | None = None

    def at(self, index: Tensor) -> Answers:
        """Return the answers about some examples, (n,) int64 or (N,) bool."""
        return Answers(self.logits[index], None if self.sensitivity is None else self.sensitivity[index])

    def labels_only(self) -> Answers:
        """Return what is left for an adversary who gets labels: logits that are 1 at the label and 0 elsewhere."""
        return Answers(F.one_hot(self.logits.argmax(-1), self.logits.shape[-1]).float())


@dataclass(frozen=True)
class References:
    """What K reference models answered about the same examples.

    Attributes:
        answers: of each model, in order.
        keep: (K, N), bool: which examples each was trained on.
        adaptive: whether they came about as the target did, defenses and compression included.
    """

    answers: tuple[Answers, ...]
    keep: Tensor
    adaptive: bool = True

    def __len__(self) -> int:
        return len(self.answers)

    def without(self, place: int) -> References:
        """Return the references of another one that is the target now: all but it and the models trained on the other half.

        With its complement among them, a member would have one reference less that was trained on it than a non-member, which
        tells the two apart where no answer does.
        """
        stay = [not torch.equal(row, self.keep[place]) and not torch.equal(row, ~self.keep[place]) for row in self.keep]
        answers = tuple(one for one, stays in zip(self.answers, stay, strict=True) if stays)
        return References(answers, self.keep[torch.tensor(stay)], self.adaptive)

    def at(self, index: Tensor) -> References:
        """Return the references' answers about some examples, (n,) int64."""
        return References(tuple(answers.at(index) for answers in self.answers), self.keep[:, index.cpu()], self.adaptive)

    def first(self, count: int) -> References:
        """Return the first so many of the references."""
        return References(self.answers[:count], self.keep[:count], self.adaptive)


@dataclass(frozen=True)
class Oracle:
    """A target that answers about changed pictures of the N examples; it counts.

    Attributes:
        labels: from x, float32 (n, C, H, W) in the box, to classes, (n,) int64.
        read: from the places of examples, (n,) int64, to x, float32 (n, C, H, W).
        classes: how many.
        box: the lowest and the highest that x may be: numbers, or (C, H, W) each for bounds of every feature, as the rows of a
            table have them; on the device of x.
    """

    labels: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], Tensor]
    classes: int
    box: tuple[float, float] | tuple[Tensor, Tensor] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What an adversary holds.

    Attributes:
        target: what the target answered about the N examples.
        labels: (N,), int64: their classes.
        references: what reference models answered, or None.
        known: (N,), int64: 1 for a member and 0 for a non-member that the adversary knows to be one, -1 for the examples that it
            is asked about; None where it knows nobody. Scores of those that are known do not count.
        oracle: the target itself, for those who ask more; None where it only exists as a table of answers.
        seed: of everything random that the adversary does.
    """

    target: Answers
    labels: Tensor
    references: References | None = None
    known: Tensor | None = None
    oracle: Oracle | None = None
    seed: int = 0

    @property
    def classes(self) -> int:
        """How many classes."""
        return self.target.logits.shape[-1]

    def at(self, index: Tensor) -> Evidence:
        """Return the evidence about some of the examples, (n,) int64."""
        oracle = self.oracle
        if oracle is not None:
            read = oracle.read
            oracle = replace(oracle, read=lambda some: read(index[some.to(index.device)]))
        return replace(
            self,
            target=self.target.at(index),
            labels=self.labels[index],
            references=None if self.references is None else self.references.at(index),
            known=None if self.known is None else self.known[index],
            oracle=oracle,
        )

    def seen_at(self, access: Access) -> Evidence:
        """Return what an adversary of an access level sees of it."""
        if access != "labels":
            return self
        references = self.references
        told = None if references is None else replace(references, answers=tuple(one.labels_only() for one in references.answers))
        return replace(self, target=self.target.labels_only(), references=told)


@dataclass(kw_only=True)
class MembershipAttack(ABC):
    """An attack that scores how likely each example was trained on.

    A subclass is a keyword-only dataclass whose fields are the paper's hyper-parameters. What it learns stays inside `score`.

    Attributes:
        access: what it may see: "labels" or "logits".
        least: how many reference models it needs at least, where it needs any.
    """

    access: ClassVar[Access] = "logits"
    least: ClassVar[int] = 2

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks for beside the target's answers; an audit gives it no other references and known examples."""
        return frozenset()

    @property
    def limit(self) -> int | None:
        """How many examples an audit asks the attack about, at most; None is all. Half of them are members."""
        return None

    @abstractmethod
    def score(self, evidence: Evidence) -> Tensor:
        """Return how likely each example was trained on, (N,), float64, finite; only the order counts. Run without gradient.

        Args:
            evidence: what an adversary of this access level holds; what `needs` names is there.
        """

    @final
    def __call__(self, evidence: Evidence) -> MembershipScores:
        """Attack.

        Args:
            evidence: what the adversary holds.

        Returns:
            Scores of all N examples, those that the adversary knows included.

        Raises:
            ConfigError: the evidence lacks what the attack needs.
            ModelError: the scores are of another shape or not finite.
        """
        attack, name = copy.deepcopy(self), type(self).__name__
        _require(evidence, self.needs, self.least, name)
        asked = 0
        oracle = evidence.oracle
        if oracle is not None:

            def counted(x: Tensor, labels: Callable[[Tensor], Tensor] = oracle.labels) -> Tensor:
                nonlocal asked
                asked += len(x)
                return labels(x)

            oracle = replace(oracle, labels=counted)
        start = time.perf_counter()
        with torch.no_grad(), ambient(evidence.seed, "membership", name):
            scores = attack.score(replace(evidence, oracle=oracle).seen_at(self.access)).double().cpu()
        if scores.shape != evidence.labels.shape or not bool(scores.isfinite().all()):
            raise ModelError(
                f"{name} must return a finite score for each of {len(evidence.labels)} examples, found shape "
                f"{tuple(scores.shape)} with {int((~scores.isfinite()).sum())} that are not finite"
            )
        return MembershipScores(scores, time.perf_counter() - start, evidence.target.logits[..., 0].numel() + asked)


def _require(evidence: Evidence, needs: frozenset[Need], least: int, name: str) -> None:
    """Raise where evidence lacks what an attack needs."""
    found = 0 if evidence.references is None else len(evidence.references)
    if "references" in needs and found < least:
        raise ConfigError(
            f"{name} needs at least {least} reference models, found {found}; train some: references = 16 in [membership] of a "
            "recipe, or sfumato.train_references; a table of logits has none"
        )
    if "known" in needs and evidence.known is None:
        raise ConfigError(f"{name} needs examples whose membership the adversary knows, found none; set known to their share")
    if "sensitivity" in needs and evidence.target.sensitivity is None:
        raise ConfigError(f"{name} needs to know how answers move when pictures do; a table of logits does not say")
    if "oracle" in needs and evidence.oracle is None:
        raise ConfigError(f"{name} needs a target that answers new questions; a table of logits does not")


def true_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the log odds of the true class: z_y - logsumexp of the other logits, in float64.

    It equals log p_y - log(1 - p_y), and needs no guard where p_y rounds to 1.

    Args:
        logits: (N, ..., C), any range.
        labels: (N,), int64.

    Returns:
        (N, ...), float64.

    Example:
        >>> true_log_odds(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.], dtype=torch.float64)
    """
    wide = logits.double()
    place = labels.view(-1, *[1] * (logits.ndim - 1)).expand(*logits.shape[:-1], 1)
    true = wide.gather(-1, place)
    return true[..., 0] - wide.scatter(-1, place, -torch.inf).logsumexp(-1)
