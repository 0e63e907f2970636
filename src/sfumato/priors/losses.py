# SPDX-License-Identifier: Apache-2.0
"""What generators and critics are trained for: pure functions of scores, logits and pictures.

Source: gulrajani2017wgan, Algorithm 1; miyato2018spectral, equations 16 and 17 (hinge); goodfellow2014gan, section 3 (logistic,
not saturating); mescheder2018training, equation 9 (penalty at true pictures); chen2021kedmi, equations 2 to 5, as its release has
them; salimans2016improved, sections 3.1 and 5; yuan2023plg, equation 8 (max-margin).
Equations: (wgan-gp) L_D = E D(x_hat) - E D(x), L_G = -E D(x_hat) -> critic_gap, generator_gap
    (hinge) L_D = E max(0, 1 - D(x)) + E max(0, 1 + D(x_hat)), L_G = -E D(x_hat) -> critic_gap, generator_gap
    (logistic) L_D = E softplus(-D(x)) + E softplus(D(x_hat)), L_G = E softplus(-D(x_hat)) -> critic_gap, generator_gap
    (r1) E ||grad_x D(x)||^2 / 2 -> slope_penalty
    (true) (E softplus(l(x)) - E l(x) + E softplus(l(x_hat))) / 2, l = logsumexp of the logits -> truth_loss
    (soft) E sum_k -p_k log softmax(logits)_k -> soft_label_loss
    (match) mean over features of |E f(x_hat) - E f(x)| -> matching_loss
    (entropy) sum over the batch of H(softmax(logits)) -> entropy
    (margin) E max_k!=y l_k - E l_y -> max_margin
Departures: none; the entropy is a sum where every other term is a mean, as in KEDMI's release, whose weight of 1e-4 is for that.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.priors.settings import Loss
from sfumato.types import Images, Labels, Logits


def critic_gap(loss: Loss, true: Tensor, made: Tensor) -> Tensor:
    """Return what the critic minimizes, a scalar, without penalties.

    Args:
        loss: which.
        true: its scores of true pictures, (N,).
        made: of made ones, (M,).

    Example:
        >>> critic_gap("hinge", torch.tensor([2.0, 0.5]), torch.tensor([-1.0])).item()
        0.25
    """
    if loss == "wgan-gp":
        return made.mean() - true.mean()  # (wgan-gp)
    if loss == "hinge":
        return F.relu(1 - true).mean() + F.relu(1 + made).mean()  # (hinge)
    return F.softplus(-true).mean() + F.softplus(made).mean()  # (logistic)


def generator_gap(loss: Loss, made: Tensor) -> Tensor:
    """Return what the generator minimizes, a scalar, of the critic's scores of what it made, (N,).

    Example:
        >>> generator_gap("wgan-gp", torch.tensor([2.0, 4.0])).item()
        -3.0
    """
    return F.softplus(-made).mean() if loss == "logistic" else -made.mean()


def slope_penalty(scores: Tensor, x: Images) -> Tensor:
    """Return half the mean squared length of a critic's gradient at true pictures, a scalar with gradient to the critic.

    Args:
        scores: the critic's, (N,), no picture's score depending on another picture.
        x: the pictures that were scored, (N, C, H, W), with gradient.

    Example:
        >>> x = torch.ones(2, 1, 2, 2, requires_grad=True)
        >>> slope_penalty(3 * x.sum((1, 2, 3)), x).item()
        18.0
    """
    (slope,) = torch.autograd.grad(scores.sum(), [x], create_graph=True)
    return slope.square().flatten(1).sum(1).mean() / 2  # (r1)


def truth_loss(unlabeled: Logits, made: Logits) -> Tensor:
    """Return what a discriminator of classes minimizes to tell true pictures from made ones, a scalar.

    Args:
        unlabeled: its logits of true pictures, (N, K).
        made: of made ones, (M, K).

    Example:
        >>> round(truth_loss(torch.zeros(2, 1), torch.zeros(2, 1)).item(), 4)
        0.6931
    """
    true = unlabeled.logsumexp(1)
    return (F.softplus(true).mean() - true.mean() + F.softplus(made.logsumexp(1)).mean()) / 2  # (true)


def soft_label_loss(logits: Logits, labels: Tensor) -> Tensor:
    """Return the cross-entropy to soft labels, (N, K) that sum to 1, of logits (N, K): a scalar.

    Example:
        >>> round(soft_label_loss(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]])).item(), 4)
        0.6931
    """
    return -(labels * logits.log_softmax(1)).sum(1).mean()  # (soft)


def matching_loss(made: Tensor, true: Tensor) -> Tensor:
    """Return how far the mean features of made pictures, (N, F), are from those of true ones, (M, F): a scalar.

    Example:
        >>> matching_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])).item()
        0.5
    """
    return (made.mean(0) - true.mean(0)).abs().mean()  # (match)


def entropy(logits: Logits) -> Tensor:
    """Return the entropy in nats of the answers to pictures, logits (N, K), summed over them: a scalar.

    Example:
        >>> round(entropy(torch.zeros(3, 2)).item(), 4)
        2.0794
    """
    named = logits.log_softmax(1)
    return -(named.exp() * named).sum()  # (entropy)


def max_margin(logits: Logits, labels: Labels) -> Tensor:
    """Return how far the class of each row is behind the best other, (N,); below 0 it is ahead.

    Args:
        logits: (N, K), float, K at least 2.
        labels: (N,), int64.

    Example:
        >>> max_margin(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([1])).item()
        -1.0
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - logits.gather(1, labels[:, None])[:, 0]  # (margin)
