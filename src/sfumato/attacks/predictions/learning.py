# SPDX-License-Identifier: Apache-2.0
"""What an adversary learns from: answers about examples whose membership it knows, and the training of a network on them.

Such answers come from reference models, which the adversary trained itself, or from the target, about examples that it knows.

Source: shokri2017membership, Section V-C (shadow models); nasr2018adversarial, Section 3 (known members).
Equations: min over theta of the cross-entropy of sigmoid(h_theta(row)) and membership -> fit
Departures: papers train on every answer of every shadow model. K of them say much the same about N examples, so a sample is taken
where there are more than `limit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.attacks.predictions.base import Evidence, References
from sfumato.data.loader import divide, shuffled
from sfumato.errors import ConfigError, DataError

_LEAST = 2
_CHUNK = 8192


@dataclass(frozen=True)
class Lessons:
    """Models, and the examples of which the adversary knows who was trained on which.

    Attributes:
        references: what the models answered; the target is one of them where the adversary knows some of its examples.
        labels: (N,), int64: classes of these examples.
    """

    references: References
    labels: Tensor

    def counts(self) -> Tensor:
        """Count non-members and members of each class over all models, (2, C), int64.

        Example:
            >>> from sfumato.attacks.predictions.base import Answers
            >>> answers, keep = Answers(torch.zeros(3, 1, 2)), torch.tensor([[True, False, False]])
            >>> Lessons(References((answers,), keep), torch.tensor([0, 0, 1])).counts()
            tensor([[1, 1],
                    [1, 0]])
        """
        classes = self.references.answers[0].logits.shape[-1]
        labels, members = self.labels.cpu(), self.references.keep.sum(0).cpu()
        inside = torch.zeros(classes, dtype=torch.int64).index_add(0, labels, members)
        return torch.stack([len(self.references) * labels.bincount(minlength=classes) - inside, inside])

    def require(self, name: str, classes: Tensor | None = None) -> None:
        """Raise unless there are members and non-members to learn from.

        Args:
            name: of the attack.
            classes: (M,), int64: of each of these there must be; None asks for them among all classes together.

        Raises:
            DataError: there are fewer than 2 of either.
        """
        counts = self.counts()
        if classes is None:
            rows = {"all classes": counts.sum(1).tolist()}
        else:
            rows = {f"class {place}": counts[:, place].tolist() for place in classes.unique().tolist()}
        for where, (outside, inside) in rows.items():
            if min(inside, outside) < _LEAST:
                raise DataError(
                    f"{name} learns from at least {_LEAST} members and {_LEAST} non-members of {where}, found {inside} and "
                    f"{outside}; train more reference models, let the adversary know more examples, or leave the attack out"
                )


def from_references(evidence: Evidence) -> Lessons:
    """Return what reference models teach."""
    assert evidence.references is not None  # noqa: S101 -- an attack that calls this needs them
    return Lessons(evidence.references, evidence.labels)


def from_known(evidence: Evidence) -> Lessons:
    """Return what the target teaches, by the examples whose membership is known."""
    assert evidence.known is not None  # noqa: S101 -- an attack that calls this needs them
    told = (evidence.known >= 0).nonzero()[:, 0]
    keep = evidence.known[told].bool().unsqueeze(0)
    return Lessons(References((evidence.target.at(told),), keep), evidence.labels[told.to(evidence.labels.device)])


def require_training(attack: object, *counts: str, rate: float, decay: float = 0.0) -> None:
    """Raise unless an attack's hyper-parameters can train a network.

    Args:
        attack: a dataclass.
        counts: names of its fields that count something.
        rate: its learning rate.
        decay: its weight decay.

    Raises:
        ConfigError: a count is below 1, the rate is not above 0, or the decay is below 0.
    """
    if any(getattr(attack, name) < 1 for name in counts) or not 0 < rate < math.inf or not 0 <= decay < math.inf:
        raise ConfigError(
            f"{', '.join(counts)} must be at least 1, learning_rate > 0 and weight_decay >= 0, both finite, got {attack}"
        )


@dataclass(frozen=True)
class Rows:
    """Answers to train on, a row each, all on one device.

    Attributes:
        logits: (n, C), float32.
        labels: (n,), int64.
        member: (n,), float32: 1 where the model that answered was trained on the example, 0 elsewhere.
        sensitivity: (n, C), float32; None where it was not asked for.
    """

    logits: Tensor
    labels: Tensor
    member: Tensor
    sensitivity: Tensor | None = None


def sample(lessons: Lessons, limit: int, stream: torch.Generator, *, sensitivity: bool = False) -> Rows:
    """Take all answers, of every model about every view of every example, or so many drawn with replacement where there are more.

    Args:
        lessons: what there is to learn from.
        limit: rows at most.
        stream: on the CPU, so that every device draws the same.
        sensitivity: take it too, and view 0 alone, which it belongs to.

    Raises:
        ConfigError: a reference model has no sensitivity.
    """
    models, keep = lessons.references.answers, lessons.references.keep
    count, views = models[0].logits.shape[0], 1 if sensitivity else models[0].logits.shape[1]
    total = len(models) * count * views
    flat = torch.arange(total) if total <= limit else torch.randint(total, (limit,), generator=stream).sort().values
    model, example, view = flat // (count * views), flat // views % count, flat % views
    groups = [(answers, example[model == place], view[model == place]) for place, answers in enumerate(models)]
    moved = [answers.sensitivity[chosen] for answers, chosen, _ in groups if sensitivity and answers.sensitivity is not None]
    if sensitivity and len(moved) < len(models):
        raise ConfigError(
            f"the sensitivity of all {len(models)} reference models is needed, found that of {len(moved)}; ask them as the target"
        )
    device = lessons.labels.device
    return Rows(
        torch.cat([answers.logits[chosen, seen] for answers, chosen, seen in groups]).float().to(device),
        lessons.labels[example.to(device)],
        keep[model.to(keep.device), example.to(keep.device)].float().to(device),
        torch.cat(moved).float().to(device) if moved else None,
    )


def adam(network: nn.Module, rate: float, decay: float = 0.0) -> torch.optim.Adam:
    """Return Adam for the weights of a network; fused, which takes half the time of small batches."""
    return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay, fused=True)


def fit(
    network: nn.Module,
    inputs: Sequence[Tensor],
    member: Tensor,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    stream: torch.Generator,
    factor: Callable[[float], float] = lambda share: 1.0,
) -> None:
    """Train a network to tell members, for a fixed number of epochs, and leave it in evaluation mode.

    Args:
        network: from rows of each input to the logit of membership, (n,).
        inputs: what it is given, (n, ...) each.
        member: (n,), float32: 1 for a member.
        optimizer: of its parameters.
        epochs: passes over the rows; no epoch is chosen among them.
        batch_size: rows a step.
        stream: of the order, on the CPU.
        factor: what the learning rate is multiplied by after a share of the epochs, [0, 1).
    """
    network.train()
    rates = [group["lr"] for group in optimizer.param_groups]
    for epoch in range(epochs):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(epoch / epochs)
        for batch in divide(shuffled(len(member), stream).to(member.device), batch_size):
            step(network, optimizer, [given[batch] for given in inputs], member[batch])
    network.eval()


def step(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Sequence[Tensor], member: Tensor) -> None:
    """Make one update: the mean cross-entropy over the last dimension, summed over the others."""
    with torch.enable_grad():
        logit = network(*inputs)
        loss = F.binary_cross_entropy_with_logits(logit, member, reduction="none").mean(-1).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    optimizer.step()


def mean_over_views(network: nn.Module, logits: Tensor, *others: Tensor) -> Tensor:
    """Return the mean over views of what a trained network says, (N,), float64.

    Args:
        network: from rows of logits, (n, C), and of each other input to a logit, (n,).
        logits: (N, V, C), float32.
        others: (N, ...) each: the same for every view.
    """
    count, views = logits.shape[:2]
    said = [
        network(part.flatten(0, 1), *(other.repeat_interleave(views, 0) for other in rest)).double()
        for part, *rest in zip(*(one.split(max(1, _CHUNK // views)) for one in (logits, *others)), strict=True)
    ]
    return torch.cat(said).view(count, views).mean(1)
