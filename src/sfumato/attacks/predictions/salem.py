# SPDX-License-Identifier: Apache-2.0
"""One shadow model: a small network learns from it what the largest posteriors of members look like, whatever their class.

Source: salem2019mlleaks, Section III (adversary 1); constants of its release.
Equations: h(p) = sigmoid(v . relu(W sort(p)[:3] + b) + c) -> Salem.score
Departures: batches of 100 in place of 10, since ten times fewer updates take a tenth of the time and learn as much. The shadow
model is the first reference. What the network says of several views is averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from sfumato.attacks.predictions.base import Evidence, MembershipAttack
from sfumato.attacks.predictions.learning import adam, fit, from_references, mean_over_views, require_training, sample
from sfumato.seeds import generator


class TopPosteriors(nn.Module):
    """A network with one hidden layer on the largest posteriors, in descending order.

    Args:
        top: how many.
        hidden: units of the hidden layer.

    Example:
        >>> import torch
        >>> TopPosteriors(3, 64)(torch.zeros(5, 10)).shape
        torch.Size([5])
    """

    def __init__(self, top: int, hidden: int) -> None:
        super().__init__()
        self.top = top
        self.layers = nn.Sequential(nn.Linear(top, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the logit of membership, (n,), of logits, (n, C)."""
        logit: Tensor = self.layers(logits.softmax(1).topk(self.top, dim=1).values)
        return logit[:, 0]


@dataclass(kw_only=True)
class Salem(MembershipAttack):
    """Learn from one shadow model what the largest posteriors of members look like.

    Args:
        top: how many posteriors; all where there are fewer classes.
        hidden: units of the network.
        epochs: passes over the rows.
        batch_size: rows a step; the release has 10.
        learning_rate: of Adam.
        weight_decay: L2.
        rows: answers of the shadow model to learn from, at most.

    Raises:
        ConfigError: a value is out of its range.
        DataError: when called, the shadow model has fewer than 2 members or 2 non-members.

    Example:
        >>> Salem().least
        1
    """

    needs = frozenset({"references"})
    least = 1

    top: int = 3
    hidden: int = 64
    epochs: int = 50
    batch_size: int = 100
    learning_rate: float = 1e-2
    weight_decay: float = 1e-6
    rows: int = 5000

    def __post_init__(self) -> None:
        require_training(self, "top", "hidden", "epochs", "batch_size", "rows", rate=self.learning_rate, decay=self.weight_decay)

    def score(self, evidence: Evidence) -> Tensor:
        """Return what the network says of the largest posteriors."""
        assert evidence.references is not None  # noqa: S101 -- it is in `needs`
        lessons = from_references(replace(evidence, references=evidence.references.first(1)))
        lessons.require("salem")
        stream = generator(evidence.seed, "membership", "salem")
        rows = sample(lessons, self.rows, stream)
        network = TopPosteriors(min(self.top, evidence.classes), self.hidden).to(rows.logits)
        optimizer = adam(network, self.learning_rate, self.weight_decay)
        fit(
            network, (rows.logits,), rows.member,
            optimizer=optimizer, epochs=self.epochs, batch_size=self.batch_size, stream=stream,
        )  # fmt: skip
        return mean_over_views(network, evidence.target.logits)
