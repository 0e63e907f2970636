# SPDX-License-Identifier: Apache-2.0
"""SAMIA: a transformer over classes that is told posterior, sensitivity and label, and learns from shadow models pruned alike.

Source: yuan2022pruned (self-attention membership inference); layers and constants of its release.
Equations: h = sigmoid(head(encoder(gelu(W [p_k, s_k, 1(k = y)] + b), k = 1..C))) -> SelfAttention.forward
Departures: Adam in place of SGD, whose 1e-3 needs hundreds of passes, and few epochs on a sample of rows, as self-attention costs
by far the most of all attacks; the rate still falls tenfold after half and three quarters of them. One logit in place of two. It
looks at view 0 alone, which the sensitivity belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.attacks.predictions.base import Evidence, MembershipAttack
from sfumato.attacks.predictions.learning import adam, fit, from_references, mean_over_views, require_training, sample
from sfumato.seeds import generator

_WIDTH, _LAYERS, _HEADS, _INNER, _DROPOUT = 64, 3, 4, 128, 0.2


class SelfAttention(nn.Module):
    """A transformer whose tokens are the classes.

    Args:
        classes: how many tokens.

    Example:
        >>> SelfAttention(3)(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * classes)
        self.token = nn.Linear(3, _WIDTH)
        layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, _INNER, _DROPOUT, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(_WIDTH * classes, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1))

    def forward(self, logits: Tensor, sensitivity: Tensor, label: Tensor) -> Tensor:
        """Return the logit of membership.

        Args:
            logits: (n, C), float32.
            sensitivity: (n, C), float32, of each probability.
            label: the true class, one-hot, (n, C), float32.

        Returns:
            (n,), float32.
        """
        given = self.norm(torch.cat([logits.softmax(1), sensitivity, label], 1))
        tokens = given.unflatten(1, (3, -1)).transpose(1, 2)  # (n, C, 3)
        encoded = self.encoder(F.gelu(self.token(tokens)))
        logit: Tensor = self.head(encoded.flatten(1))
        return logit[:, 0]


@dataclass(kw_only=True)
class Samia(MembershipAttack):
    """Learn from shadow models what posteriors and sensitivities of members look like.

    Args:
        epochs: passes over the rows; the release has 100.
        batch_size: rows a step.
        learning_rate: of Adam, at the start.
        weight_decay: L2.
        rows: answers of shadow models to learn from, at most.

    Raises:
        ConfigError: a value is out of its range; when called, a reference model has no sensitivity.
        DataError: when called, the shadow models have fewer than 2 members or 2 non-members.

    Example:
        >>> sorted(Samia().needs)
        ['references', 'sensitivity']
    """

    needs = frozenset({"references", "sensitivity"})

    epochs: int = 4
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    rows: int = 2000

    def __post_init__(self) -> None:
        require_training(self, "epochs", "batch_size", "rows", rate=self.learning_rate, decay=self.weight_decay)

    def score(self, evidence: Evidence) -> Tensor:
        """Return what the transformer says of posteriors, sensitivities and label."""
        lessons = from_references(evidence)
        lessons.require("samia")
        stream = generator(evidence.seed, "membership", "samia")
        rows = sample(lessons, self.rows, stream, sensitivity=True)
        assert rows.sensitivity is not None  # noqa: S101 -- it was asked for
        assert evidence.target.sensitivity is not None  # noqa: S101 -- it is in `needs`
        network = SelfAttention(evidence.classes).to(rows.logits)
        optimizer = adam(network, self.learning_rate, self.weight_decay)
        fit(
            network, (rows.logits, rows.sensitivity, F.one_hot(rows.labels, evidence.classes).float()), rows.member,
            optimizer=optimizer, epochs=self.epochs, batch_size=self.batch_size, stream=stream,
            factor=lambda share: 0.1 ** ((share >= 0.5) + (share >= 0.75)),
        )  # fmt: skip
        label = F.one_hot(evidence.labels, evidence.classes).float()
        return mean_over_views(network, evidence.target.logits[:, :1], evidence.target.sensitivity, label)
