# SPDX-License-Identifier: Apache-2.0
"""The adversary of Min-Max: a network that is told the answer and the label, and learns from examples that it knows.

Source: nasr2018adversarial, Section 3 (the attack); wang2021mcmia, Section VI-A (its layers, Adam 1e-3).
Equations: max over h of E_members log h(f(x), y) + E_others log(1 - h(f(x), y)) -> Nasr.score
Departures: the releases report the best epoch on the scored examples; here the number of epochs is fixed, and what is scored
chooses nothing. It is small, and the rate falls to zero: the network has far more weights than there are known examples. A few
hundred of these do not move it from the paper's N(0, 0.01), so weights start as PyTorch has it; `deviation=0.01` is the paper's,
best without weight decay. What the network says of several views is averaged. Of two sorts of input none is always stronger: name
both, as nasr and nasr-sorted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch.nn.functional as F
from torch import Tensor

from sfumato.arguments import require_choice
from sfumato.attacks.predictions.base import Evidence, MembershipAttack
from sfumato.attacks.predictions.learning import adam, fit, from_known, mean_over_views, require_training, sample
from sfumato.errors import ConfigError
from sfumato.models.inference import InferenceNetwork, Inputs
from sfumato.seeds import generator


@dataclass(kw_only=True)
class Nasr(MembershipAttack):
    """Learn from examples whose membership is known what the target answers about its members.

    Args:
        inputs: what the network is given of an answer.
        deviation: standard deviation of the first weights; None is PyTorch's own initialization.
        epochs: passes over the rows.
        batch_size: rows a step.
        learning_rate: of Adam, at the start.
        weight_decay: L2.
        rows: known examples to learn from, at most.

    Raises:
        ConfigError: a value is out of its range, or there is no such choice of inputs.
        DataError: when called, fewer than 2 members or 2 non-members are known.

    Example:
        >>> Nasr().needs
        frozenset({'known'})
    """

    needs = frozenset({"known"})

    inputs: Inputs = "log_softmax"
    deviation: float | None = None
    epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 3e-4
    rows: int = 5000

    def __post_init__(self) -> None:
        require_choice("inputs", self.inputs, get_args(Inputs))
        require_training(self, "epochs", "batch_size", "rows", rate=self.learning_rate, decay=self.weight_decay)
        if self.deviation is not None and not 0 < self.deviation < math.inf:
            raise ConfigError(f"deviation must be > 0 and finite, got {self.deviation}; None is PyTorch's own initialization")

    def score(self, evidence: Evidence) -> Tensor:
        """Return what the network says of answer and label; of the examples that it learned from too."""
        lessons = from_known(evidence)
        lessons.require("nasr")
        stream = generator(evidence.seed, "membership", "nasr")
        rows = sample(lessons, self.rows, stream)
        network = InferenceNetwork(evidence.classes, inputs=self.inputs, deviation=self.deviation).to(rows.logits)
        optimizer = adam(network, self.learning_rate, self.weight_decay)
        fit(
            network, (rows.logits, self._one_hot(rows.labels, evidence)), rows.member,
            optimizer=optimizer, epochs=self.epochs, batch_size=self.batch_size, stream=stream,
            factor=lambda share: 1 - share,
        )  # fmt: skip
        return mean_over_views(network, evidence.target.logits, self._one_hot(evidence.labels, evidence))

    @staticmethod
    def _one_hot(labels: Tensor, evidence: Evidence) -> Tensor:
        return F.one_hot(labels, evidence.classes).float()


def ranked(
    *,
    deviation: float | None = None,
    epochs: int = 3,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 3e-4,
    rows: int = 5000,
) -> Nasr:
    """Return the attack whose network is given probabilities in descending order.

    Args:
        deviation: standard deviation of the first weights; None is PyTorch's own initialization.
        epochs: passes over the rows.
        batch_size: rows a step.
        learning_rate: of Adam, at the start.
        weight_decay: L2.
        rows: known examples to learn from, at most.
    """
    return Nasr(
        inputs="sorted", deviation=deviation, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        weight_decay=weight_decay, rows=rows,
    )  # fmt: skip
