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
from sfumato.attacks.predictions.base import Evidence, MembershipAttack
from sfumato.attacks.predictions.learning import Lessons, from_known, from_references
from sfumato.errors import ConfigError

Statistic = Literal["loss", "entropy", "modified_entropy", "confidence"]
"""The number: cross-entropy; entropy, which needs no label; entropy that knows the label; probability of the true class."""


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
        per_class: subtract the threshold of the example's class. Reference models choose it; where there are none, the examples
            that the adversary knows.

    Raises:
        ConfigError: there is no such statistic; when called with `per_class`, nothing is there to choose by.
        DataError: when called, a class has fewer than 2 members or 2 non-members to choose by.

    Example:
        >>> from sfumato.attacks.predictions.base import Answers
        >>> logits = torch.tensor([[[3.0, 0.0]], [[3.0, 0.0]]])
        >>> Threshold()(Evidence(target=Answers(logits), labels=torch.tensor([0, 1]))).scores
        tensor([-0.0486, -3.0486], dtype=torch.float64)
    """

    statistic: Statistic = "loss"
    per_class: bool = False

    def __post_init__(self) -> None:
        require_choice("statistic", self.statistic, get_args(Statistic))

    def score(self, evidence: Evidence) -> Tensor:
        """Return the mean of the number over views, less the threshold of the class where there is one."""
        found = self._mean(evidence.target.logits, evidence.labels)
        if not self.per_class:
            return found
        lessons = _lessons(evidence)
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


def loss(*, per_class: bool = False) -> Threshold:
    """Return the attack by the loss.

    Args:
        per_class: subtract the threshold of the example's class; likewise for the three below.
    """
    return Threshold(statistic="loss", per_class=per_class)


def entropy(*, per_class: bool = False) -> Threshold:
    """Return the attack by the entropy."""
    return Threshold(statistic="entropy", per_class=per_class)


def modified_entropy(*, per_class: bool = False) -> Threshold:
    """Return the attack by the modified entropy."""
    return Threshold(statistic="modified_entropy", per_class=per_class)


def confidence(*, per_class: bool = False) -> Threshold:
    """Return the attack by the probability of the true class."""
    return Threshold(statistic="confidence", per_class=per_class)


def best_threshold(scores: Tensor, member: Tensor) -> float:
    """Return the threshold that tells members from the others best, by (TPR + TNR) / 2, with one sort.

    Args:
        scores: (n,), float64, finite; a score at the threshold or above is taken for a member's.
        member: (n,), bool, of both kinds.

    Returns:
        A number between two scores; the lowest score where taking all for members is best. Of several, the highest.

    Example:
        >>> best_threshold(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([False, False, True]))
        3.0
    """
    scores, order = scores.sort(descending=True)
    inside = member[order].double()
    found = inside.cumsum(0) / inside.sum() - (1 - inside).cumsum(0) / (1 - inside).sum()
    # Equal scores go together: only after the last of them can a threshold lie.
    ends = torch.cat([scores[1:] < scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    place = int(found.where(ends, -torch.inf).argmax())
    below = scores[min(place + 1, len(scores) - 1)]
    return ((scores[place] + below) / 2).item()


def class_thresholds(scores: Tensor, labels: Tensor, member: Tensor, classes: int) -> Tensor:
    """Return the best threshold of each class, (classes,), float64; 0 where no example has the class.

    Args:
        scores: (n,), float64, finite.
        labels: (n,), int64.
        member: (n,), bool.
        classes: how many.
    """
    order, counts = labels.argsort(stable=True), labels.bincount(minlength=classes).tolist()
    member = member.to(scores.device)
    parts = zip(scores[order].split(counts), member[order].split(counts), strict=True)
    best = [best_threshold(*part) if count else 0.0 for part, count in zip(parts, counts, strict=True)]
    return torch.tensor(best, dtype=torch.float64)


def _lessons(evidence: Evidence) -> Lessons:
    """Return what thresholds are chosen by."""
    if evidence.references is not None and len(evidence.references):
        return from_references(evidence)
    if evidence.known is not None:
        return from_known(evidence)
    raise ConfigError(
        "a threshold for each class needs reference models or examples whose membership the adversary knows, found neither; "
        "train some with references = 16, set known to their share, or leave out per_class"
    )


def _place(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels as an index into the last dimension of logits, (N, V, 1)."""
    return labels.view(-1, 1, 1).expand(-1, logits.shape[1], 1)


def _log_true(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y, (N, V)."""
    return log_p.gather(-1, _place(labels, log_p))[..., 0]
