# SPDX-License-Identifier: Apache-2.0
"""What a latent search can want: to be taken for a class, to look like a picture of the prior's kind, to stay near its start.

Each loss gives one number a picture, (B,), lower is better, so that a search may add them and choose among its rows.

Source: zhang2020secret (GMI, section 3.2); chen2021kedmi, section 3.2; nguyen2023lomma, section 4; struppek2022ppa, section 3.4;
yuan2023plg, section 4.2.
Equations: identity, GMI and KEDMI: -log softmax(l)_y -> cross_entropy
    identity, LOMMA: -l_y -> logit
    regularizer, LOMMA: mean_d (phi(x) - p_reg)^2 -> feature_pull
    identity, PPA: arccosh(1 + 2 |u - v|^2 / ((1 - |u|^2) (1 - |v|^2))), u = l / |l|_1, v = 1 - xi at y, 0 elsewhere -> poincare
    identity, PLG: -l_y + max of the other logits -> priors.losses.max_margin
    prior, GMI: -D(x) -> realness
    prior, KEDMI: softplus(lse D(x)) - lse D(x) = softplus(-lse D(x)) -> likeness
Departures: PPA's release divides by 1 - |u|^2, which is 0 where one logit holds the whole of the norm, and its loss is then
infinite with a gradient of NaN. Here both factors are at least 1e-6 and the argument of arccosh at least 1 + 1e-6, which changes
nothing elsewhere in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.attacks.weights.search import Term, Trial
from sfumato.priors.losses import max_margin
from sfumato.types import Labels, Logits

_LEAST = 1e-6

Identity = Callable[[Logits, Labels], Tensor]
"""How far logits are from a class, (B,)."""


def cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """Return the negative log probability of the class of each row, (B,).

    Args:
        logits: (B, K), float.
        labels: (B,), int64.

    Example:
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp().round().item()
        4.0
    """
    return F.cross_entropy(logits, labels, reduction="none")


def logit(logits: Logits, labels: Labels) -> Tensor:
    """Return the negative logit of the class of each row, (B,): it has no bound, and its gradient does not fade.

    Args:
        logits: (B, K), float.
        labels: (B,), int64.

    Example:
        >>> logit(torch.tensor([[1.0, 3.0]]), torch.tensor([1])).item()
        -3.0
    """
    return -logits.gather(1, labels[:, None])[:, 0]


def poincare(logits: Logits, labels: Labels, *, xi: float = 1e-4) -> Tensor:
    """Return the distance in the Poincaré ball of normalized logits from the class of each row, (B,).

    Args:
        logits: (B, K), float: logits, not probabilities.
        labels: (B,), int64.
        xi: how far the class's point is from the border of the ball, (0, 1).

    Returns:
        Distances that are finite, with finite gradients, for finite logits.

    Example:
        >>> near, far = poincare(torch.tensor([[5.0, 0.1], [0.1, 5.0]]), torch.tensor([0, 0])).tolist()
        >>> near < far
        True
    """
    u = logits / logits.abs().sum(1, keepdim=True).clamp_min(_LEAST)
    v = F.one_hot(labels, logits.shape[1]).to(u.dtype) * (1 - xi)
    inside = (1 - u.square().sum(1)).clamp_min(_LEAST) * (1 - v.square().sum(1)).clamp_min(_LEAST)
    return torch.acosh((1 + 2 * (u - v).square().sum(1) / inside).clamp_min(1 + _LEAST))


IDENTITY: dict[str, Identity] = {
    "cross-entropy": cross_entropy,
    "logit": logit,
    "poincare": poincare,
    "max-margin": max_margin,
}
"""Identity losses by the names that attacks' arguments have for them."""


def identity(loss: Identity) -> Term:
    """Return a term that wants the target to take the pictures for their classes.

    Args:
        loss: of the logits.
    """
    return lambda trial: loss(trial.answer.logits, trial.rows.labels)


def realness(critic: nn.Module) -> Term:
    """Return a term that wants a Wasserstein critic to take the pictures for true ones: -D(x).

    Args:
        critic: from pictures to scores (B,).
    """

    def term(trial: Trial) -> Tensor:
        score: Tensor = critic(trial.x)
        return -score

    return term


def likeness(critic: nn.Module) -> Term:
    """Return a term that wants a discriminator without a class for made pictures to take them for true ones.

    Args:
        critic: from pictures to features and logits (B, K).
    """
    return lambda trial: F.softplus(-critic(trial.x)[1].logsumexp(1))


def feature_pull(toward: Callable[[Trial], Tensor]) -> Term:
    """Return a term that pulls the embedding of the pictures, in the target, toward points.

    Args:
        toward: the points, (B, E) or (1, E), of a trial.
    """
    return lambda trial: (trial.answer.embedding - toward(trial)).square().mean(1)
