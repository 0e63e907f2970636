# SPDX-License-Identifier: Apache-2.0
"""Membership from one number of an answer: its loss, its entropy, how sure it is, or whether it names the right class.

These attacks train nothing. Any other attack should do better than they do.

Source: yeom2018privacy, Section 3 (loss; the gap attack); song2021systematic (entropy, modified entropy, confidence, correctness,
and a threshold for each class).
Equations: -L = log p_y -> loss_of; p_y -> confidence_of; -H = sum p_k log p_k -> entropy_of; minus the modified entropy,
    (1 - p_y) log p_y + sum over k != y of p_k log(1 - p_k) -> modified_entropy_of; 1 where argmax p = y -> Gap.score;
    argmax over t of (TPR + TNR) / 2 -> best_threshold
Departures: the numbers are turned so that a higher one is a likelier member. What they say of several views is averaged. The
papers answer yes or no: here a class's own threshold is subtracted, and the metrics choose one for what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.arguments import require_choice
from sfumato.attacks.predictions.base import Evidence, MembershipAttack, Need
from sfumato.attacks.predictions.learning import from_known, from_references
from sfumato.metrics.roc import operating_points

Statistic = Literal["loss", "entropy", "modified_entropy", "confidence"]
"""The number: cross-entropy; entropy, which needs no label; entropy that knows the label; probability of the true class."""
Teacher = Literal["references", "known"]
"""What the thresholds of classes are chosen by: reference models, or examples whose membership the adversary knows."""


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y, the negative of the cross-entropy.

    Args:
        logits: (N, V, C), finite, any range.
        labels: (N,), int64.

    Returns:
        (N, V), float64, at most 0; likewise for the three below.
    """
    return _log_true(logits.double().log_softmax(-1), labels)


def confidence_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return p_y, in [0, 1]."""
    return loss_of(logits, labels).exp()


def entropy_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return sum_k p_k log p_k, the negative of the entropy; the labels do not count."""
    log_p = logits.double().log_softmax(-1)
    return (log_p.exp() * log_p).sum(-1)


def modified_entropy_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (1 - p_y) log p_y + sum over k != y of p_k log(1 - p_k), the negative of the modified entropy.

    Example:
        >>> sure = torch.tensor([[[5.0, 0.0]], [[5.0, 0.0]]])
        >>> modified_entropy_of(sure, torch.tensor([0, 1]))[1]
        tensor([-9.9464], dtype=torch.float64)
    """
    wide = logits.double()
    log_p = wide.log_softmax(-1)
    top = log_p.argmax(-1, keepdim=True)
    # Only the most likely class can have a probability near 1, of which 1 - p would leave nothing.
    rest = log_p.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
    log_not = torch.log1p(-log_p.exp().scatter(-1, top, 0.0)).scatter(-1, top, rest)
    terms = log_p.exp() * log_not
    true = _place(labels, logits)
    own = log_not.gather(-1, true).exp() * log_p.gather(-1, true)
    return terms.scatter(-1, true, own).sum(-1)


STATISTICS: Mapping[Statistic, Callable[[Tensor, Tensor], Tensor]] = {
    "loss": loss_of,
    "entropy": entropy_of,
    "modified_entropy": modified_entropy_of,
    "confidence": confidence_of,
}
"""How each number is computed."""


@dataclass(kw_only=True)
class Threshold(MembershipAttack):
    """Take for a member what has a low loss, or another number of its answer that members have.

    Args:
        statistic: the number.
        per_class: subtract the threshold of the example's class.
        thresholds: what those are chosen by; without `per_class` it does not count.

    Raises:
        ConfigError: there is no such statistic or teacher; when called with `per_class`, what it is to choose by is not there.
        DataError: when called, a class has fewer than 2 members or 2 non-members to choose by.

    Example:
        >>> from sfumato.attacks.predictions.base import Answers
        >>> logits = torch.tensor([[[3.0, 0.0]], [[3.0, 0.0]]])
        >>> Threshold()(Evidence(target=Answers(logits), labels=torch.tensor([0, 1]))).scores
        tensor([-0.0486, -3.0486], dtype=torch.float64)
    """

    least = 1

    statistic: Statistic = "loss"
    per_class: bool = False
    thresholds: Teacher = "references"

    def __post_init__(self) -> None:
        require_choice("statistic", self.statistic, get_args(Statistic))
        require_choice("thresholds", self.thresholds, get_args(Teacher))

    @property
    def needs(self) -> frozenset[Need]:
        """What the thresholds of classes are chosen by, where it has some."""
        return frozenset({self.thresholds}) if self.per_class else frozenset()

    def score(self, evidence: Evidence) -> Tensor:
        """Return the mean of the number over views, less the threshold of the class where there is one."""
        found = self._mean(evidence.target.logits, evidence.labels)
        if not self.per_class:
            return found
        lessons = from_references(evidence) if self.thresholds == "references" else from_known(evidence)
        lessons.require(f"a {self.statistic} threshold for each class", evidence.labels)
        scores = torch.cat([self._mean(answers.logits, lessons.labels) for answers in lessons.references.answers])
        labels = lessons.labels.repeat(len(lessons.references))
        thresholds = class_thresholds(scores, labels, lessons.references.keep.flatten(), evidence.classes)
        return found - thresholds.to(found.device)[evidence.labels]

    def _mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        return STATISTICS[self.statistic](logits, labels).mean(1)


@dataclass(kw_only=True)
class Gap(MembershipAttack):
    """Take for a member what the target names right: all that labels tell, and what every attack should beat.

    It looks at view 0, the example as it is.

    Example:
        >>> Gap().access
        'labels'
    """

    access = "labels"

    def score(self, evidence: Evidence) -> Tensor:
        """Return 1 where the answer is right and 0 elsewhere."""
        return (evidence.target.logits[:, 0].argmax(-1) == evidence.labels).double()


def loss(*, per_class: bool = False, thresholds: Teacher = "references") -> Threshold:
    """Return the attack by the loss.

    Args:
        per_class: see `Threshold`; likewise thresholds, and for the three below.
        thresholds: what those of classes are chosen by.
    """
    return Threshold(statistic="loss", per_class=per_class, thresholds=thresholds)


def entropy(*, per_class: bool = False, thresholds: Teacher = "references") -> Threshold:
    """Return the attack by the entropy."""
    return Threshold(statistic="entropy", per_class=per_class, thresholds=thresholds)


def modified_entropy(*, per_class: bool = False, thresholds: Teacher = "references") -> Threshold:
    """Return the attack by the modified entropy."""
    return Threshold(statistic="modified_entropy", per_class=per_class, thresholds=thresholds)


def confidence(*, per_class: bool = False, thresholds: Teacher = "references") -> Threshold:
    """Return the attack by the probability of the true class."""
    return Threshold(statistic="confidence", per_class=per_class, thresholds=thresholds)


def best_threshold(scores: Tensor, member: Tensor) -> float:
    """Return the threshold that tells members from the others best, by (TPR + TNR) / 2, with one sort.

    Args:
        scores: (n,), float64, finite, n > 0; a score at the threshold or above is taken for a member's.
        member: (n,), bool.

    Returns:
        A number between two scores; the lowest score where taking all for members is best. Of several, the highest.

    Example:
        >>> best_threshold(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([False, False, True]))
        3.0
    """
    points = operating_points(scores, member)
    # Infinity could not be subtracted: the first point, which takes nobody, is no better than the last, which takes all.
    place = 1 + int(points.gain[1:].argmax())
    return max(points.between(place), points.thresholds[-1].item())


def class_thresholds(scores: Tensor, labels: Tensor, member: Tensor, classes: int) -> Tensor:
    """Return the best threshold of each class, (classes,), float64; 0 where no example has the class.

    Args:
        scores: (n,), float64, finite.
        labels: (n,), int64.
        member: (n,), bool.
        classes: how many.
    """
    order, counts = labels.argsort(stable=True), labels.bincount(minlength=classes).tolist()
    parts = zip(scores[order].split(counts), member.to(order.device)[order].split(counts), strict=True)
    best = [best_threshold(*part) if count else 0.0 for part, count in zip(parts, counts, strict=True)]
    return torch.tensor(best, dtype=torch.float64)


def _place(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels as an index into the last dimension of logits, (N, V, 1)."""
    return labels.view(-1, 1, 1).expand(-1, logits.shape[1], 1)


def _log_true(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y, (N, V)."""
    return log_p.gather(-1, _place(labels, log_p))[..., 0]
