# SPDX-License-Identifier: Apache-2.0
"""Membership from labels alone: how far an example is from the decision boundary, and how many views of it are named right.

A model is trained to name its members right, and so their neighbors with them.

Source: choquette2021labelonly (the gap between labels, augmentations, and the distance to the boundary by HopSkipJump);
li2021decision (the boundary attack); the search: see `sfumato.attacks.predictions.hopskipjump`.
Equations: score = |x - nearest x' with another label|_2, 0 where x itself has one -> Boundary.score;
    score = share of views whose label is right -> views_right
Departures: choquette2021labelonly trains a net on the labels of the views, on a shadow model; here they are counted, which needs
none. Its views are rotations and translations; here they are those of `sfumato.data.views`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.attacks.predictions.base import Evidence, MembershipAttack, Oracle
from sfumato.attacks.predictions.hopskipjump import FEWEST, boundary_distances
from sfumato.errors import ConfigError
from sfumato.seeds import generator
from sfumato.types import Images


@dataclass(kw_only=True)
class Boundary(MembershipAttack):
    """Measure how far each example is from what the target calls something else, asking for labels.

    It asks thousands of questions about an example, and therefore about some of them only: an audit gives it no more. Where it is
    given more, what is not asked about is scored by its label: 0 where it is wrong, as for all others, and the median distance
    where it is right. Such scores tell members from non-members as the gap attack does, and no better.

    Args:
        queries: asked about each example, at most; at least 100.
        pictures: how many examples are asked about: a random choice of those that the target names right, among those that the
            adversary does not know if it knows some.
        starts: how many examples, at most, a search may start from.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> Boundary()
        Boundary(queries=2500, pictures=500, starts=200)
    """

    access = "labels"
    needs = frozenset({"oracle"})

    queries: int = 2500
    pictures: int = 500
    starts: int = 200

    @property
    def limit(self) -> int:
        """How many examples an audit asks about."""
        return self.pictures

    def __post_init__(self) -> None:
        if self.queries < FEWEST:
            raise ConfigError(f"queries must be at least {FEWEST}, got {self.queries}; to find a start takes half of them")
        if self.pictures < 1 or self.starts < 0:
            raise ConfigError(f"pictures must be at least 1 and starts at least 0, got {self.pictures} and {self.starts}")

    def score(self, evidence: Evidence) -> Tensor:
        """Return the distances, in units of x."""
        told = evidence.target.logits[:, 0].argmax(-1)
        right = told == evidence.labels
        scores = torch.zeros(len(right), dtype=torch.float64)
        chosen = self._choose(evidence, right)
        if len(chosen):
            oracle = evidence.oracle
            assert oracle is not None  # noqa: S101 -- needs says so
            found = self._distances(oracle, evidence, chosen, told).double().cpu()
            scores[right.cpu()] = found.median()
            scores[chosen.cpu()] = found
        return scores

    def _choose(self, evidence: Evidence, right: Tensor) -> Tensor:
        """Return the places of the examples to ask about, (M,), int64, in order."""
        asked = right if evidence.known is None else right & (evidence.known.to(right.device) < 0)
        places = asked.nonzero()[:, 0].cpu()
        order = torch.randperm(len(places), generator=generator(evidence.seed, "boundary", "pictures"))
        return places[order[: self.pictures].sort().values].to(right.device)

    def _distances(self, oracle: Oracle, evidence: Evidence, chosen: Tensor, told: Tensor) -> Tensor:
        """Return how far each chosen example is, (M,): the diameter of [0, 1]^d where nothing else is found."""
        order = torch.randperm(len(told), generator=generator(evidence.seed, "boundary", "starts"))
        starts = order[: self.starts].sort().values.to(told.device)
        x, labels = oracle.read(chosen), evidence.labels[chosen]

        def other(asked: Images, place: Tensor) -> Tensor:
            return (oracle.labels(asked).to(labels.device) != labels[place.to(labels.device)]).to(asked.device)

        found = boundary_distances(
            x,
            other,
            examples=oracle.read(starts),
            wrong=(told[starts] != labels[:, None]).to(x.device),
            queries=self.queries,
            generator=generator(evidence.seed, "boundary", "noise", device=x.device),
        )
        return found.clamp_max(x[0].numel() ** 0.5)


@dataclass(kw_only=True)
class Augmentation(MembershipAttack):
    """Count the views of an example that the target names right. With one view it is the gap attack.

    Example:
        >>> Augmentation().access
        'labels'
    """

    access = "labels"

    def score(self, evidence: Evidence) -> Tensor:
        """Return the share of views whose label is right."""
        return views_right(evidence.target.logits.argmax(-1), evidence.labels)


def views_right(told: Tensor, labels: Tensor) -> Tensor:
    """Return the share of views whose label is right.

    Args:
        told: (N, V), int64: the label of each view.
        labels: (N,), int64: the classes of the examples.

    Returns:
        (N,), float64, in [0, 1].

    Example:
        >>> views_right(torch.tensor([[1, 1], [1, 0]]), torch.tensor([1, 1]))
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    return (told == labels[:, None]).double().mean(1)
