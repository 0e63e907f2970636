# SPDX-License-Identifier: Apache-2.0
"""Membership from labels alone: how far an example is from the decision boundary, and how many views of it are named right.

A model is trained to name its members right, and so their neighbors with them.

Source: choquette2021labelonly (the gap between labels, augmentations, and the distance to the boundary by HopSkipJump);
li2021decision (the boundary attack); the search: see `sfumato.attacks.predictions.hopskipjump`.
Equations: score = |x - nearest x' with another label|_2, 0 where x itself has one -> Boundary.score;
    score = share of views whose label is right -> views_right
Departures: choquette2021labelonly trains a net on the labels of the views, on a shadow model; here they are counted, which needs
none. Its views are rotations and translations; here they are those of `sfumato.data.views`. Distances are in units of the box: a
row of a table is scaled so that each of its features ranges over [0, 1], since units of all kinds do not add up.
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

    It asks thousands of questions about an example that the target names right, and none about the others, whose score is 0. An
    audit therefore gives it some examples only.

    Args:
        queries: asked about each example, at most; at least 100.
        pictures: how many examples an audit gives it, half of them members.
        starts: how many of these, at most, a search may start from.

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
        """Return the distances, in units of the box; its diameter where nothing else is found."""
        told = evidence.target.logits[:, 0].argmax(-1)
        right = (told == evidence.labels).nonzero()[:, 0]
        scores = torch.zeros(len(told), dtype=torch.float64)
        if len(right):
            oracle = evidence.oracle
            assert oracle is not None  # noqa: S101 -- needs says so
            scores[right.cpu()] = self._distances(oracle, evidence, right, told).double().cpu()
        return scores

    def _distances(self, oracle: Oracle, evidence: Evidence, right: Tensor, told: Tensor) -> Tensor:
        """Return how far each example that is named right is from what is not, (M,)."""
        order = torch.randperm(len(told), generator=generator(evidence.seed, "boundary", "starts"))
        starts = order[: self.starts].sort().values.to(told.device)
        x, labels = oracle.read(right), evidence.labels[right]
        low, high = (torch.as_tensor(end, dtype=x.dtype, device=x.device).expand(x.shape[1:]) for end in oracle.box)
        width = high - low
        moves = width > 0

        def unit(some: Images) -> Images:
            return (some - low) / width.where(moves, 1)

        def other(asked: Images, place: Tensor) -> Tensor:
            return (oracle.labels(low + width * asked).to(labels.device) != labels[place.to(labels.device)]).to(asked.device)

        found = boundary_distances(
            unit(x),
            other,
            examples=unit(oracle.read(starts)),
            wrong=(told[starts] != labels[:, None]).to(x.device),
            queries=self.queries,
            generator=generator(evidence.seed, "boundary", "noise", device=x.device),
            fixed=~moves,
        )
        return found.clamp_max(int(moves.sum()) ** 0.5)


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
