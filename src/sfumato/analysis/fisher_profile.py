# SPDX-License-Identifier: Apache-2.0
"""How the Fisher information of a task is spread over the layers of a model: shares, what the first third holds, depth.

Source: ho2024tldmi, section 4.2 and Figure 1-II; efron1979bootstrap (the intervals).
Equations: none.
Departures: the paper shows profiles and gives no number of them. Here a profile is divided by its sum, so that tasks whose losses
have other units can be compared, and has two numbers with intervals: the share of the first third of the layers, and the rank
correlation with depth. Classes are drawn anew for the intervals, each with all of its pictures, since reconstructions of one
class are no independent draws; where there is one class alone, pictures are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sfumato.metrics.interval import LEVEL, SAMPLES
from sfumato.seeds import generator
from sfumato.types import Interval, Labels


@dataclass(frozen=True)
class FisherProfile:
    """The Fisher information of a task, layer by layer.

    Args:
        task: what the loss was, for people.
        layers: names of the layers that compute with a matrix or a kernel, in the order in which they run.
        parameters: how many each has, biases included.
        before: how many of the layers run before the embedding.
        each: of each sample the mean of the squared gradient over the parameters of each layer, (N, L), float64, on the CPU.
        labels: the class of each sample, (N,), int64, on the CPU.

    Example:
        >>> each = torch.tensor([[3.0, 1.0, 0.0], [5.0, 3.0, 0.0]], dtype=torch.float64)
        >>> profile = FisherProfile("inversion", ("a", "b", "c"), (4, 4, 2), 2, each, torch.tensor([0, 1]))
        >>> [round(share.value, 3) for share in profile.shares], round(profile.first_third.value, 3)
        ([0.667, 0.333, 0.0], 0.667)
        >>> round(profile.rank_with_depth.value, 3), profile.encoder.layers
        (-1.0, ('a', 'b'))
    """

    task: str
    layers: tuple[str, ...]
    parameters: tuple[int, ...]
    before: int
    each: Tensor = field(repr=False)
    labels: Labels = field(repr=False)

    @property
    def samples(self) -> int:
        """How many pictures it is the mean of."""
        return len(self.each)

    @property
    def values(self) -> tuple[float, ...]:
        """The information of each layer: the mean over samples, at least 0, in squared units of the loss."""
        return tuple(self.each.mean(0).tolist())

    @property
    def shares(self) -> tuple[Interval, ...]:
        """What each layer has of the sum over layers, in [0, 1]; nan where no layer has any information."""
        return _intervals(_normalized(self._mean), _normalized(self._resampled))

    @property
    def first_third(self) -> Interval:
        """What the first third of the layers has of the sum, in [0, 1]; 1/3 where all have the same.

        Where the number of layers is no multiple of 3, a part of a layer counts by that part.
        """
        counted = (len(self.layers) / 3 - torch.arange(len(self.layers), dtype=torch.float64)).clamp(0, 1)
        return _intervals(*((_normalized(means) @ counted)[..., None] for means in (self._mean, self._resampled)))[0]

    @property
    def rank_with_depth(self) -> Interval:
        """Spearman's rho of information and depth, in [-1, 1]: below 0 where the first layers have most; nan of one layer."""
        return _intervals(*(_rank_with_depth(means)[..., None] for means in (self._mean, self._resampled)))[0]

    @property
    def encoder(self) -> FisherProfile:
        """The profile over the layers before the embedding alone: what comes after has no information for an inversion loss."""
        kept = self.before
        return replace(self, layers=self.layers[:kept], parameters=self.parameters[:kept], before=kept, each=self.each[:, :kept])

    @property
    def _mean(self) -> Tensor:
        return self.each.mean(0, keepdim=True)

    @cached_property
    def _resampled(self) -> Tensor:
        """The information of each layer in each of many bootstrap samples, (S, L)."""
        groups = self.labels if len(self.labels.unique()) > 1 else torch.arange(self.samples)
        _, place, counts = groups.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(counts), len(self.layers), dtype=torch.float64).index_add_(0, place, self.each)
        drawn = torch.randint(len(counts), (SAMPLES, len(counts)), generator=generator(0, "fisher", self.task))
        often = torch.zeros(SAMPLES, len(counts), dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
        means: Tensor = (often @ sums) / (often @ counts.double())[:, None]
        return means


def _normalized(means: Tensor) -> Tensor:
    """Divide rows by their sums."""
    return means / means.sum(-1, keepdim=True)


def _rank_with_depth(means: Tensor) -> Tensor:
    """Return the rank correlation of each row, (S, L), with its places, (S,); equal numbers share their mean rank."""
    below = (means[:, None, :] < means[:, :, None]).sum(-1)
    equal = (means[:, None, :] == means[:, :, None]).sum(-1)
    ranks = below.double() + equal.double() / 2
    depth = torch.arange(means.shape[1], dtype=torch.float64)
    ranks, depth = ranks - ranks.mean(-1, keepdim=True), depth - depth.mean()
    rho: Tensor = (ranks @ depth) / (ranks.norm(dim=-1) * depth.norm())
    return rho


def _intervals(value: Tensor, resampled: Tensor) -> tuple[Interval, ...]:
    """Return numbers, (1, M), with what their bootstrap samples, (S, M), span."""
    tail = (1 - LEVEL) / 2
    bounds: Sequence[list[float]] = resampled.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0).tolist()
    return tuple(Interval(*numbers) for numbers in zip(value[0].tolist(), *bounds, strict=True))
