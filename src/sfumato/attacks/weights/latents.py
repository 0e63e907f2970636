# SPDX-License-Identifier: Apache-2.0
"""The two ways through the latents of a GAN that GMI and KEDMI found and LOMMA follows: points, and a Gaussian for each class.

Source: zhang2020secret, section 3; chen2021kedmi, section 3.3.
Equations: min over z of (-D(G(z)) + wanted) / B, z in [-1, 1]^d, by Nesterov's descent -> PointSearch
    min over mu, log_var of softplus(-lse D(G(z))) + wanted, z = mu + exp(log_var / 2) * e, e ~ N(0, I) -> GaussianSearch
Departures: as `gmi` and `kedmi` say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.assembly import drawn, pictures, rows_of
from sfumato.attacks.weights.base import Means
from sfumato.attacks.weights.budget import search_within
from sfumato.attacks.weights.objectives import likeness, realness
from sfumato.attacks.weights.search import Rows, Search, Term
from sfumato.inversion_types import ClassPictures
from sfumato.types import Labels

Wanted = Sequence[tuple[float, Term]]
"""Terms with their weights, beside the prior's of weight 1."""
_LOG_VAR = 20.0


@dataclass(frozen=True, kw_only=True)
class PointSearch:
    """Search latents themselves, several for each class, in a prior with a critic.

    Args:
        steps: of the search.
        learning_rate: of Nesterov's descent.
        momentum: likewise.
        bound: latents are kept in [-bound, bound].
        mean_over: the loss is divided by so many.
        per_class: pictures of each class, each from a start of its own.

    Raises:
        ConfigError: a value is out of its range.
    """

    steps: int
    per_class: int
    learning_rate: float = 0.02
    momentum: float = 0.9
    bound: float = 1.0
    mean_over: float = 60.0

    def __post_init__(self) -> None:
        require_least(1, steps=self.steps, per_class=self.per_class)
        require_positive(learning_rate=self.learning_rate, momentum=self.momentum, bound=self.bound, mean_over=self.mean_over)

    def __call__(self, means: Means, labels: Labels, wanted: Wanted) -> ClassPictures:
        """Make pictures of classes.

        Args:
            means: what the adversary has.
            labels: the classes, (K,), int64.
            wanted: what the pictures are to be, beside real.
        """
        parts, rows = self.parts(means, wanted), rows_of(labels, self.per_class)
        found = search_within(means, parts, [drawn(means, labels, self.per_class)], rows)
        return pictures(means, parts.decode, found.variables[0], labels=labels, losses=found.losses)

    def parts(self, means: Means, wanted: Wanted) -> Search:
        """Return what the search consists of."""
        prior = means.prior
        assert prior.critic is not None  # noqa: S101 -- a plain GAN keeps its critic
        terms = [(1.0, realness(prior.critic)), *wanted]
        return Search(
            decode=lambda latent, _: prior(latent),
            ask=means.white.classify,
            terms=[(weight / self.mean_over, term) for weight, term in terms],
            optimizer=lambda variables: torch.optim.SGD(variables, lr=self.learning_rate, momentum=self.momentum, nesterov=True),
            steps=self.steps,
            clip=lambda variables: _within(self.bound, variables),
        )


@dataclass(frozen=True, kw_only=True)
class GaussianSearch:
    """Search a Gaussian of latents for each class, in a prior whose discriminator knows classes.

    Args:
        steps: of the search.
        learning_rate: of Adam.
        log_var: of the Gaussians at the beginning, whose means are 0; kept in [-20, 20].
        bound: latents are clipped to [-bound, bound]; None clips none.
        per_class: pictures of each class, drawn from its Gaussian at the end.

    Raises:
        ConfigError: a value is out of its range.
    """

    steps: int
    per_class: int
    learning_rate: float = 0.02
    log_var: float = 0.0
    bound: float | None = 1.0

    def __post_init__(self) -> None:
        require_least(1, steps=self.steps, per_class=self.per_class)
        require_least(-_LOG_VAR, log_var=self.log_var)
        require_positive(learning_rate=self.learning_rate, **({} if self.bound is None else {"bound": self.bound}))

    def latents(self, variables: Sequence[Tensor], rows: Rows) -> Tensor:
        """Draw one latent of each Gaussian, (B, latent).

        Args:
            variables: means and log variances, each (B, latent).
            rows: which these are.
        """
        mean, log_var = variables
        z = mean + torch.exp(log_var / 2) * rows.normal(mean.shape[1])
        return z if self.bound is None else z.clamp(-self.bound, self.bound)

    def __call__(self, means: Means, labels: Labels, wanted: Wanted) -> ClassPictures:
        """Make pictures of classes.

        Args:
            means: what the adversary has.
            labels: the classes, (K,), int64.
            wanted: what the pictures are to be, beside like those of the prior.
        """
        prior = means.prior
        assert prior.critic is not None  # noqa: S101 -- a prior of this kind has no use without its discriminator
        parts = Search(
            decode=lambda latent, _: prior(latent),
            ask=means.white.classify,
            terms=[(1.0, likeness(prior.critic)), *wanted],
            optimizer=lambda variables: torch.optim.Adam(variables, lr=self.learning_rate),
            steps=self.steps,
            latents=self.latents,
            clip=_keep_variance,
        )
        center = torch.zeros(len(labels), prior.latent, device=labels.device)
        found = search_within(means, parts, [center, torch.full_like(center, self.log_var)], labels)
        shown = rows_of(labels, self.per_class)
        rows = Rows(torch.arange(len(shown)), shown, len(shown), self.steps, means.seed)
        z = self.latents([one.repeat_interleave(self.per_class, 0) for one in found.variables], rows)
        # One draw is as good as another: none goes first.
        return pictures(means, parts.decode, z, labels=labels, losses=torch.zeros(len(shown), device=labels.device))


def _within(bound: float, variables: Sequence[Tensor]) -> None:
    for one in variables:
        one.clamp_(-bound, bound)


def _keep_variance(variables: Sequence[Tensor]) -> None:
    variables[1].clamp_(-_LOG_VAR, _LOG_VAR)
