# SPDX-License-Identifier: Apache-2.0
"""LiRA: is the answer more likely from a model that was trained on the example, or from one that was not?

Reference models of both kinds give, for each example, two distributions of its log odds. What the target says is held against
both (online), or against those that were not trained on it alone (offline).

Source: carlini2022lira, Section V (Algorithm 1 and the offline variant); the prior on the variance: brannvall2026bavaria (the
idea), gelman2013bayesian, Chapter 3 (normal data, and a scaled inverse chi-squared prior on their variance).
Equations: log p(phi | mu_in, s_in) - log p(phi | mu_out, s_out), mean over views -> lira_scores, online;
    z = (phi - mu_out) / s_out, mean over views -> lira_scores, offline
Departures: means are means, where the released code takes medians, so that models are read one at a time and nothing is kept of
them. Offline is one-sided as in the paper; the released code takes -log p(phi), which is high for an answer that is much less
sure than those of any reference, too. A global variance is that around each example's own mean; the released code's has the
differences between examples in it, and takes it from members for both sides. The default variance is none of the paper's:
each is drawn to the mean one by an inverse-gamma prior, and the densities are Student's t, which knows how little a few
references tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.arguments import require_choice
from sfumato.attacks.predictions.base import Evidence, MembershipAttack, true_log_odds
from sfumato.errors import ConfigError, DataError

Variance = Literal["bayes", "shrunk", "global", "example", "auto"]
"""The variance of an example's log odds over models: "global" is one for all examples, "example" each one's own; "auto" is
"example" from 64 references on and "global" below; "shrunk" lies between the two, by how many references there are; "bayes" has
that variance in densities that are as wide as the references are few."""
MANY = 64
"""References from which on "auto" trusts each example's own variance."""
FLOOR = 1e-12
"""Of a variance: references that all say the same leave none."""


@dataclass(frozen=True)
class Sides:
    """The log odds of examples over the models that were not trained on them, and over those that were.

    Attributes:
        count: (2, N, 1), float64: how many models.
        mean: (2, N, V), float64.
        square: (2, N, V), float64: the sum of squared differences from the mean.
    """

    count: Tensor
    mean: Tensor
    square: Tensor


@dataclass(kw_only=True)
class LiRA(MembershipAttack):
    """Hold the log odds of the true class against those of models that were, and were not, trained on the example.

    Args:
        online: use models that were trained on the example; else one-sided, with those alone that were not.
        variance: how the spread of an example over models is known.
        prior: how many references the mean variance is worth to "bayes" and "shrunk", over 0.

    Raises:
        ConfigError: a value is out of its range.
        DataError: when called, of `lira_scores`.

    Example:
        >>> LiRA()
        LiRA(online=True, variance='bayes', prior=4.0)
        >>> LiRA(variance="global", online=False).access
        'logits'
    """

    needs = frozenset({"references"})
    least = 4

    online: bool = True
    variance: Variance = "bayes"
    prior: float = 4.0

    def __post_init__(self) -> None:
        require_choice("variance", self.variance, get_args(Variance))
        if not 0 < self.prior < math.inf:
            raise ConfigError(f"prior must be a positive number of references, got {self.prior}; 4 is the default")

    def score(self, evidence: Evidence) -> Tensor:
        """Return the log likelihood ratio, or offline how many standard deviations the answer lies above its mean."""
        references = evidence.references
        assert references is not None  # noqa: S101 -- needs says so
        labels, logits = evidence.labels, evidence.target.logits
        return lira_scores(
            true_log_odds(logits, labels),
            (true_log_odds(answers.logits, labels) for answers in references.answers),
            references.keep,
            online=self.online,
            variance=self.variance,
            prior=self.prior,
        )


def lira_scores(
    phi: Tensor,
    references: Iterable[Tensor],
    keep: Tensor,
    *,
    online: bool = True,
    variance: Variance = "bayes",
    prior: float = 4.0,
) -> Tensor:
    """Score examples, in O(K N V) time and with O(N V) memory.

    An example that all references were trained on, or none, is taken to have the mean gap of the others between its two means.

    Args:
        phi: (N, V), float: what the target says about V views of each example.
        references: (N, V) of each of K models, read one at a time.
        keep: (K, N), bool: which examples each was trained on.
        online: see `LiRA`; likewise the other two.
        variance: of the log odds.
        prior: of the variance.

    Returns:
        (N,), float64.

    Raises:
        DataError: no example has references on both sides where one has to stand for the other, or none has two on one side.

    Example:
        >>> keep = torch.tensor([[True], [True], [False], [False]])
        >>> lira_scores(torch.tensor([[4.0]]), torch.tensor([3.0, 5.0, -1.0, 1.0]).view(4, 1, 1), keep, variance="global")
        tensor([4.], dtype=torch.float64)
    """
    wide = phi.double()
    sides = gather(wide, references, keep)
    mean = _complete(sides, both=online)
    if not online:
        sides, mean = Sides(sides.count[:1], sides.mean[:1], sides.square[:1]), mean[:1]
    if variance == "auto":
        variance = "example" if len(keep) >= MANY else "global"
    freedom = (sides.count - 1).clamp_min(0)
    spread = _spread(sides.square, freedom, {"global": math.inf, "example": 0.0}.get(variance, prior))
    if variance == "bayes":
        spread = spread * (1 + 1 / sides.count.clamp_min(1))  # the mean itself is known as well as so many references tell
    off = wide - mean
    if not online:
        return (off / spread.sqrt())[0].mean(-1)
    density = _student(off, spread, freedom + prior) if variance == "bayes" else _normal(off, spread)
    return (density[1] - density[0]).mean(-1)


def gather(phi: Tensor, references: Iterable[Tensor], keep: Tensor) -> Sides:
    """Return the statistics of reference models, each read once, by Welford's updates.

    Args:
        phi: (N, V), float64: gives shape and device.
        references: (N, V) of each of K models.
        keep: (K, N), bool: which examples each was trained on.

    Example:
        >>> sides = gather(torch.zeros(1, 1), torch.tensor([1.0, 3.0]).view(2, 1, 1), torch.tensor([[True], [True]]))
        >>> sides.mean[1].item(), sides.square[1].item()
        (2.0, 2.0)
    """
    count, mean, square = phi.new_zeros(2, len(phi), 1), phi.new_zeros(2, *phi.shape), phi.new_zeros(2, *phi.shape)
    for one, row in zip(references, keep, strict=True):
        weight = torch.stack([~row, row]).unsqueeze(-1).to(phi)
        count += weight
        off = one.to(phi) - mean
        mean += weight * off / count.clamp_min(1)
        square += weight * off * (one.to(phi) - mean)
    return Sides(count, mean, square)


def _complete(sides: Sides, *, both: bool) -> Tensor:
    """Return the means, (2, N, V), with those that no model tells set from the other side's."""
    there = sides.count > 0
    missing = int((~there if both else ~there[:1]).sum())
    if not missing:
        return sides.mean
    paired = there.all(0)[:, 0]
    if not bool(paired.any()):
        raise DataError(
            f"LiRA expected examples that some references were trained on and others were not, found none, and {missing} that "
            f"lack {'one of the two' if both else 'references that were not'}; draw the halves evenly, or set online = false "
            "where no reference was trained on any"
        )
    gap = (sides.mean[1] - sides.mean[0])[paired].mean(0)
    return sides.mean.where(there, torch.stack([sides.mean[1] - gap, sides.mean[0] + gap]))


def _spread(square: Tensor, freedom: Tensor, prior: float) -> Tensor:
    """Return variances, each drawn to the mean one as if `prior` more references had that: inf is the mean, 0 each one's own."""
    total = freedom.sum(1, keepdim=True)
    if not bool((total > 0).all()):
        raise DataError(
            "LiRA expected at least two references on the same side of some example, found no example that has; without them "
            "nothing tells how far answers spread: train more references"
        )
    pooled = square.sum(1, keepdim=True) / total
    trust = (freedom / (freedom + prior)).nan_to_num(0.0)  # 0 / 0: one reference, and no prior
    return (trust * square / freedom.clamp_min(1) + (1 - trust) * pooled).clamp_min(FLOOR)


def _normal(off: Tensor, spread: Tensor) -> Tensor:
    """Return log densities of a Gaussian, up to a constant."""
    return -(off.square() / spread + spread.log()) / 2


def _student(off: Tensor, spread: Tensor, freedom: Tensor) -> Tensor:
    """Return log densities of Student's t: of a Gaussian whose variance has an inverse-gamma posterior, up to a constant."""
    scale = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - freedom.log() / 2
    return scale - spread.log() / 2 - (freedom + 1) / 2 * torch.log1p(off.square() / (freedom * spread))
