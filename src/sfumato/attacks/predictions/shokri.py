# SPDX-License-Identifier: Apache-2.0
"""Shadow models: a network for each class learns from them what the posteriors of members look like.

Source: shokri2017membership, Section V (the attack) and VI (one hidden layer of 64 units).
Equations: h_y(p) = sigmoid(v_y . relu(W_y p + b_y) + c_y) -> ClassNetworks.forward
Departures: the paper does not say how its networks are trained: Adam, for a fixed number of steps. Those of all classes train as
one batched network, and each step draws as many answers of every class, so that rare classes learn as much. Shadow models are the
references, which are trained on examples of the target's own pool. What the network says of several views is averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.attacks.predictions.base import Evidence, MembershipAttack
from sfumato.attacks.predictions.learning import Rows, adam, from_references, require_training, sample, step
from sfumato.seeds import generator


class ClassNetworks(nn.Module):
    """Networks with one hidden layer, one for each class, that run together.

    Args:
        classes: how many networks.
        width: numbers in a row.
        hidden: units of the hidden layer.

    Example:
        >>> ClassNetworks(3, 10, 64)(torch.zeros(3, 5, 10)).shape
        torch.Size([3, 5])
    """

    def __init__(self, classes: int, width: int, hidden: int) -> None:
        super().__init__()
        self.weight, self.bias = _uniform((classes, width, hidden), width), _uniform((classes, 1, hidden), width)
        self.out = _uniform((classes, hidden, 1), hidden)
        self.last = _uniform((classes, 1, 1), hidden)

    def forward(self, p: Tensor) -> Tensor:
        """Return the logit of membership, (classes, n), of posteriors, (classes, n, width)."""
        return self.of(p, slice(None))[..., 0]

    def of(self, p: Tensor, chosen: slice) -> Tensor:
        """Return what some of the networks say, (chosen, n, 1), of posteriors, (chosen, n, width)."""
        hidden = torch.baddbmm(self.bias[chosen], p, self.weight[chosen]).relu()
        return torch.baddbmm(self.last[chosen], hidden, self.out[chosen])


def _uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """Return weights as `nn.Linear` draws them for so many inputs."""
    return nn.Parameter(torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5))


@dataclass(kw_only=True)
class Shokri(MembershipAttack):
    """Learn from shadow models, class by class, what posteriors of members look like.

    Args:
        hidden: units of each network.
        steps: of Adam.
        batch_size: answers of each class a step, drawn with replacement.
        learning_rate: of Adam.
        rows: answers to learn from, at most, of all classes and shadow models together.

    Raises:
        ConfigError: a value is out of its range.
        DataError: when called, a class has fewer than 2 members or 2 non-members in all shadow models.

    Example:
        >>> Shokri().needs
        frozenset({'references'})
    """

    needs = frozenset({"references"})

    hidden: int = 64
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 1e-2
    rows: int = 20_000

    def __post_init__(self) -> None:
        require_training(self, "hidden", "steps", "batch_size", "rows", rate=self.learning_rate)

    def score(self, evidence: Evidence) -> Tensor:
        """Return what the network of an example's class says of its posteriors."""
        lessons = from_references(evidence)
        lessons.require("shokri", evidence.labels)
        stream = generator(evidence.seed, "membership", "shokri")
        rows = sample(lessons, self.rows, stream)
        networks = ClassNetworks(evidence.classes, evidence.classes, self.hidden).to(rows.logits)
        self._fit(networks, rows, stream)
        said = evidence.target.logits.new_zeros(evidence.target.logits.shape[:2], dtype=torch.float64)
        for place in evidence.labels.unique().tolist():
            own = evidence.labels == place
            p = evidence.target.logits[own].float().softmax(-1)
            said[own] = networks.of(p.flatten(0, 1).unsqueeze(0), slice(place, place + 1)).view(p.shape[:2]).double()
        return said.mean(1)

    def _fit(self, networks: ClassNetworks, rows: Rows, stream: torch.Generator) -> None:
        """Train the networks of all classes at once: they share nothing, so the sum of their losses trains each alone."""
        ordered, counts = rows.labels.argsort(stable=True), rows.labels.bincount(minlength=len(networks.last)).unsqueeze(1)
        p, member = rows.logits.softmax(-1)[ordered], rows.member[ordered]
        first, last = counts.cumsum(0) - counts, len(member) - 1
        optimizer = adam(networks, self.learning_rate)
        for _ in range(self.steps):
            draw = torch.rand(len(counts), self.batch_size, generator=stream, dtype=torch.float64).to(counts.device)
            # A class that no row has learns from those of the next.
            index = (first + (draw * counts).long()).clamp(max=last)
            step(networks, optimizer, [p[index]], member[index])
