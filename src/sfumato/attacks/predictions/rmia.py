# SPDX-License-Identifier: Apache-2.0
"""RMIA: by how much does the target find the example likelier than reference models do, and than it does other examples?

It works with few references, since it asks them for a mean only.

Source: zarifzadeh2024rmia (the score, and its offline variant).
Equations: r_x = p(x | theta) / p(x) -> log_ratios; p(x) = (P_out + P_in) / 2, offline with P_in = a P_out + 1 - a -> log_ratios;
    score = share of z with r_x / r_z > gamma -> rmia_scores
Departures: with one target, one set of z and one gamma, the score rises with r_x and has no other effect than ties, so that r_x
itself is the score unless gamma is set; the order is the same. All references count, with a mask; the released code takes the
larger half of them for those that were not trained on the example. Views: the mean of log r over them, where the paper lets
them vote, which needs a threshold. p(x | theta) is the softmax, not its Taylor series. P_out and P_in count one half each even
where an example has more references of one kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.attacks.predictions.base import Evidence, MembershipAttack, Need, true_log_odds
from sfumato.errors import ConfigError, DataError


@dataclass(kw_only=True)
class RMIA(MembershipAttack):
    """Compare how likely the target finds an example with how likely reference models find it.

    Args:
        online: use models that were trained on the example; else guess what they would say from those that were not.
        a: slope of that guess, P_in = a P_out + 1 - a, in [0, 1]: 1 where members are not told apart at all.
        gamma: how many times likelier than a non-member an example must be to count as dominating it, over 0. The score is the
            share of non-members that it dominates, which needs some that the adversary knows; examples that dominate all or none
            of them tie. None scores by the ratio.

    Raises:
        ConfigError: a value is out of its range.
        DataError: when called with `gamma`, it knows no non-member.

    Example:
        >>> RMIA()
        RMIA(online=True, a=0.3, gamma=None)
    """

    least = 1

    online: bool = True
    a: float = 0.3
    gamma: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.a <= 1:
            raise ConfigError(f"a must be in [0, 1], got {self.a}; 0.3 suits nets that memorize, 1 those that do not")
        if self.gamma is not None and not 0 < self.gamma < math.inf:
            raise ConfigError(f"gamma must be a positive number, got {self.gamma}; leave it out to score by the ratio")

    @property
    def needs(self) -> frozenset[Need]:
        """Reference models; with `gamma` non-members that it knows, too."""
        return frozenset({"references"}) if self.gamma is None else frozenset({"references", "known"})

    def score(self, evidence: Evidence) -> Tensor:
        """Return log r_x, or the share of the known non-members that the example dominates."""
        references, labels = evidence.references, evidence.labels
        assert references is not None  # noqa: S101 -- needs says so
        ratios = log_ratios(
            _log_true(evidence.target.logits, labels),
            (_log_true(answers.logits, labels) for answers in references.answers),
            references.keep,
            online=self.online,
            a=self.a,
        ).mean(-1)
        if self.gamma is None:
            return ratios
        assert evidence.known is not None  # noqa: S101 -- likewise
        return rmia_scores(ratios, ratios[evidence.known.to(ratios.device) == 0], self.gamma)


def log_ratios(log_p: Tensor, references: Iterable[Tensor], keep: Tensor, *, online: bool = True, a: float = 0.3) -> Tensor:
    """Return log r_x, in O(K N V) time and with O(N V) memory.

    Where no reference was trained on an example, what such a one would say is guessed as it is offline. Where all were, p(x) is
    their mean, which is too high, so that the example looks less like a member than it should.

    Args:
        log_p: (N, V), float, at most 0: log probability of the true class by the target, of V views.
        references: (N, V) of each of K models, read one at a time.
        keep: (K, N), bool: which examples each was trained on.
        online: see `RMIA`; likewise a.
        a: slope of the guess.

    Returns:
        (N, V), float64.

    Example:
        >>> keep = torch.tensor([[True], [False]])
        >>> log_ratios(torch.tensor([[0.9]]).log(), torch.tensor([0.8, 0.1]).log().view(2, 1, 1), keep).exp()
        tensor([[2.0000]], dtype=torch.float64)
    """
    wide = log_p.double()
    count, total = wide.new_zeros(2, len(wide), 1), wide.new_full((2, *wide.shape), -torch.inf)
    for one, row in zip(references, keep, strict=True):
        side = torch.stack([~row, row]).unsqueeze(-1).to(wide.device)
        count += side
        total = torch.logaddexp(total, one.to(wide).where(side, -torch.inf))
    # log of the mean probabilities; a side without models is told by the other one
    outside, inside = total - count.clamp_min(1).log()
    outside = outside.where(count[0] > 0, inside)
    guess = torch.logaddexp(outside + _log(a), wide.new_tensor(_log(1 - a)))
    inside = inside.where(count[1] > 0, guess) if online else guess
    return wide - torch.logaddexp(outside, inside) + math.log(2)


def rmia_scores(x: Tensor, z: Tensor, gamma: float) -> Tensor:
    """Return the share of z that each x dominates, r_x / r_z > gamma, with one sort: O((N + Z) log Z).

    Args:
        x: (N,), float: log ratios of the examples.
        z: (Z,), float: log ratios of examples that are no members.
        gamma: over 0.

    Returns:
        (N,), float64, in [0, 1].

    Raises:
        DataError: there is no z.

    Example:
        >>> rmia_scores(torch.tensor([0.0, 2.0]), torch.tensor([-1.0, 1.0]), 1.0)
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if not len(z):
        raise DataError("RMIA with gamma expected non-members to compare with, found none; let the adversary know some")
    return torch.searchsorted(z.sort().values, x - math.log(gamma)).double() / len(z)


def _log_true(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y, (N, V), which keeps its digits where p_y is near 1."""
    return F.logsigmoid(true_log_odds(logits, labels))


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf
