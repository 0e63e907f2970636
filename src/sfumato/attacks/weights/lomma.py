# SPDX-License-Identifier: Apache-2.0
"""LOMMA: an attack whose loss is the logit itself, held by a regularizer of features, against several models at once.

Source: nguyen2023lomma, sections 4.1 and 4.2; constants of its release.
Equations: L_logit = -l_y(x) + lam * mean_d (phi(x) - p_reg)^2, phi the target's embedding -> LOMMA.invert
    p_reg ~ N(mean, std) of the embeddings of public pictures, by dimension -> LOMMA.fit
    L_aug = (1 / (1 + S)) sum of -l_y over the target and S students -> LOMMA.invert
    min of L_base prior + 100 * (L_aug + regularizer) -> PointSearch, GaussianSearch
Departures: the paper draws p_reg; its release draws too and then overwrites the draw with the mean, which its numbers came from
and the default here; ``pull = "drawn"`` is the paper's, one point a picture. Its log variance holds the standard deviation;
here it is named so. Students of the release are EfficientNets with weights of ImageNet; here models of the zoo from scratch, and
any can be named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.arguments import require_choice, require_least
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.distill import Distillation, answers, distilled
from sfumato.attacks.weights.latents import GaussianSearch, PointSearch
from sfumato.attacks.weights.objectives import feature_pull, logit
from sfumato.attacks.weights.search import Term, Trial
from sfumato.data.loader import batches
from sfumato.inversion_types import ClassPictures
from sfumato.priors.base import PriorKind
from sfumato.target import BATCH
from sfumato.types import Labels


@dataclass(kw_only=True)
class LOMMA(InversionAttack):
    """KEDMI or GMI with the logit loss and students of the target beside it; white box.

    Args:
        base: "kedmi" or "gmi": whose prior is searched, and how.
        steps: of the search.
        per_class: pictures of each class: draws of KEDMI, starts of GMI.
        identity_weight: of the logit loss and its regularizer, beside a prior term of weight 1.
        regularizer: weight of the pull toward embeddings of public pictures, within the loss; 0 leaves the logit without bound.
        pull: toward their "mean", or toward points "drawn" around it.
        statistics: public pictures that these embeddings are taken of, at most.
        students: models that are distilled of the target; none leaves the logit loss alone.
        distillation: how they are trained.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> LOMMA(base="gmi", students=()).kind
        'gan'
    """

    access = "weights"
    prior = "inversion"

    base: Literal["kedmi", "gmi"] = "kedmi"
    steps: int = 2400
    identity_weight: float = 100.0
    regularizer: float = 1.0
    pull: Literal["mean", "drawn"] = "mean"
    statistics: int = 5000
    students: tuple[str, ...] = ("resnet20", "mobilenet_v2", "vgg11")
    distillation: Distillation = field(default_factory=Distillation)

    def __post_init__(self) -> None:
        require_choice("base", self.base, ("kedmi", "gmi"))
        require_choice("pull", self.pull, ("mean", "drawn"))
        require_least(1, steps=self.steps, per_class=self.per_class)
        require_least(2, statistics=self.statistics)
        require_least(0, identity_weight=self.identity_weight, regularizer=self.regularizer)
        self._students: tuple[nn.Module, ...] = ()
        self._center = self._spread = torch.zeros(1)

    @property
    def kind(self) -> PriorKind:
        """The prior of its base."""
        return "inversion" if self.base == "kedmi" else "gan"

    @torch.no_grad()
    def _measure(self, means: Means) -> None:
        """Take the mean and the standard deviation of the embeddings of public pictures."""
        some = means.public.subset(torch.arange(min(self.statistics, len(means.public))))
        parts = [means.white.classify(x).embedding for x, _ in batches(some, size=BATCH, device=means.view.device)]
        self._spread, self._center = torch.std_mean(torch.cat(parts), dim=0)

    def fit(self, means: Means) -> None:
        """Measure embeddings, and distil the students."""
        self._measure(means)
        if self.students:
            known = answers(means)
            self._students = tuple(
                distilled(means, model, known, settings=self.distillation, number=number)
                for number, model in enumerate(self.students)
            )

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        terms: list[tuple[float, Term]] = [(self.identity_weight, self._wanted)]
        if self.regularizer:
            terms.append((self.identity_weight * self.regularizer, feature_pull(self._toward)))
        search = PointSearch if self.base == "gmi" else GaussianSearch
        return search(steps=self.steps, per_class=self.per_class)(means, labels, terms)

    def _wanted(self, trial: Trial) -> Tensor:
        """Return the mean of the logit losses of the target and its students, (B,)."""
        known = [trial.answer.logits, *(student(trial.seen) for student in self._students)]
        return torch.stack([logit(logits, trial.rows.labels) for logits in known]).mean(0)

    def _toward(self, trial: Trial) -> Tensor:
        """Return where the embeddings are pulled to."""
        if self.pull == "mean":
            return self._center[None]
        return self._center + self._spread * trial.rows.normal(len(self._center), purpose="pull")
