# SPDX-License-Identifier: Apache-2.0
"""A variational bottleneck before the logits: features become a Gaussian, and the logits are those of what is drawn from it.

Source: alemi2017vib, sections 3 and 4; wang2021mid, for its use against model inversion; peng2022bido, whose release has the
layers and constants.
Equations: (mu, s) = linear(features), std = softplus(s - 5), r = mu + std eps, logits = linear(r) -> VariationalBottleneck;
    KL(N(mu, std^2) || N(0, 1)) = sum -(1 + 2 log std - mu^2 - std^2) / 2 -> Gaussian.divergence
Departures: the smallest positive float is added to std, which the release lets reach 0, where its logarithm is infinite. The
linear layer that gives the logits is given mu and draws for itself, so that who looks for the embedding of a picture finds mu,
which is the same at every look, whatever is answered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Answers = Literal["mean", "sample", "expectation"]
"""What a deployed model answers from: mu; one draw; or many, whose probabilities are averaged."""

_SHIFT = 5.0
_TINY = torch.finfo(torch.float32).tiny


class Gaussian(NamedTuple):
    """Independent Gaussians: mean and standard deviation, each (N, k)."""

    mean: Tensor
    std: Tensor

    @property
    def divergence(self) -> Tensor:
        """The Kullback-Leibler divergence from standard Gaussians, summed over k, in nats, (N,), float32 at least."""
        wide = torch.promote_types(self.std.dtype, torch.float32)
        mean, std = self.mean.to(wide), self.std.to(wide)
        return -0.5 * (1 + 2 * std.log() - mean.square() - std.square()).sum(1)


@dataclass
class Pass:
    """What a bottleneck shares with the defense that it belongs to, from one forward pass to the next. A copy starts empty.

    Attributes:
        stream: the random numbers of the next pass, on its device; None is PyTorch's ambient stream.
        seen: what the features of the first training pass became, until it is taken.
    """

    stream: torch.Generator | None = None
    seen: Gaussian | None = field(default=None, repr=False)

    def __deepcopy__(self, memo: dict[int, object]) -> Pass:
        return Pass()

    def draw(self, like: Tensor, count: int) -> Tensor:
        """Return standard Gaussian numbers, (count, N, k), for a tensor (N, k)."""
        stream, self.stream = self.stream, None  # it was for one pass
        return torch.empty_like(like.expand(count, -1, -1)).normal_(generator=stream)

    def take(self) -> Gaussian | None:
        """Return what was seen, and forget it."""
        seen, self.seen = self.seen, None
        return seen


class GaussianLinear(nn.Linear):
    """A linear layer that gives the logits of a Gaussian. In training it answers from one draw.

    Args:
        inputs: k.
        classes: K.
        answers: what it answers from in eval mode.
        draws: for "expectation".
        shared: where its random numbers come from.
    """

    def __init__(self, inputs: int, classes: int, *, answers: Answers, draws: int, shared: Pass) -> None:
        super().__init__(inputs, classes)
        self.answers: Answers = answers
        self.draws = draws
        self.shared = shared

    def forward(self, mean: Tensor, std: Tensor) -> Tensor:  # type: ignore[override]  # a Gaussian in place of a vector
        """Return logits, or log-probabilities of an expectation, (N, K), of mean and std, both (N, k)."""
        answers = "sample" if self.training else self.answers
        if answers == "mean":
            return super().forward(mean)
        if answers == "sample":
            return super().forward(mean + std * self.shared.draw(std, 1)[0])
        logits = super().forward(mean + std * self.shared.draw(std, self.draws))
        return logits.float().log_softmax(-1).logsumexp(0) - math.log(self.draws)


class VariationalBottleneck(nn.Module):
    """Put a Gaussian between features and logits.

    Args:
        inputs: length of the features, d.
        classes: K.
        width: length of the bottleneck, k.
        answers: what it answers from in eval mode.
        draws: for "expectation".
        shared: with the defense that it belongs to.

    Example:
        >>> layer = VariationalBottleneck(6, 3, width=2, answers="mean", draws=1, shared=Pass()).eval()
        >>> layer(torch.zeros(4, 6)).shape
        torch.Size([4, 3])
    """

    def __init__(self, inputs: int, classes: int, *, width: int, answers: Answers, draws: int, shared: Pass) -> None:
        super().__init__()
        self.gaussian = nn.Linear(inputs, 2 * width)
        self.classifier = GaussianLinear(width, classes, answers=answers, draws=draws, shared=shared)
        self.shared = shared

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, (N, K), of features, (N, d)."""
        found = self.distribution(features)
        if self.training and torch.is_grad_enabled() and self.shared.seen is None:
            self.shared.seen = found
        logits: Tensor = self.classifier(found.mean, found.std)
        return logits

    def distribution(self, features: Tensor) -> Gaussian:
        """Return what features, (N, d), become; std is above 0."""
        mean, raw = self.gaussian(features).chunk(2, dim=-1)
        return Gaussian(mean, F.softplus(raw - _SHIFT) + _TINY)
