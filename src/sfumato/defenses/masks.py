# SPDX-License-Identifier: Apache-2.0
"""The soft masks of PATROL: put on a head, moved by FISTA, narrowed down to a budget, and removed with what they close.

Source: ding2024patrol, section III-B1, Eq. 1, and Algorithm 1, lines 1 and 25 to 29.
Equations: min_m L(theta, m) + l1 |m|_1 + l2 |m|_2, Eq. 1 -> SoftMasks.step; what stays under a budget -> SoftMasks.narrow
Departures: the paper's numbers cannot all be meant literally. At its step size of 1e-6 a mask moves by 0.05 in the whole
training, so that masks drawn from N(0, 1) are pruned at random; `Sparsity` starts them all at 1, takes larger steps, and divides
both norms by the number of masks (`patrol.literal` has the paper's numbers). Batch norm undoes what all masks have in common, so
that the norms would draw every mask to 0 at no loss: the weights take over the common factor at each step. With a budget, what
goes follows from the budget and not from a threshold: after each epoch the smallest masks are closed, more with every epoch,
until the head fits when half of the epochs are done; the other half trains what is left, without the norms. Until they are
closed, masks stay at or above 0.01, so that the norms close no more than the budget does. What is closed at the end of an epoch
stays closed. Channels that are added to each other share a mask, since they can only go together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.arguments import require_choice
from sfumato.defenses.fista import Fista
from sfumato.errors import ConfigError
from sfumato.pruning import blocks, channels, gate
from sfumato.pruning.footprint import Footprint, Keep
from sfumato.pruning.tensors import resize
from sfumato.split import Split

Kind = Literal["channel", "block"]

_RAMP = 0.5
_FLOOR = 0.01


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """How soft masks are drawn to zero.

    Args:
        l1: lambda_1, weight of the masks' l1 norm.
        l2: lambda_2, weight of their l2 norm.
        average: divide both norms by the number of masks, and keep the mean of the open ones at 1 by scaling the weights.
        rate: step size of FISTA.
        start: all masks 1 ("ones"), or drawn from N(0, 1) with negative ones 0 ("normal").
        threshold: without a budget, masks at or below it are removed.
        least: share of the channels of each layer that stays in any case; at least one does.

    Raises:
        ConfigError: a value is out of its range.
    """

    l1: float = 1.0
    l2: float = 10.0
    average: bool = True
    rate: float = 0.1
    start: Literal["ones", "normal"] = "ones"
    threshold: float = 0.0
    least: float = 0.05

    def __post_init__(self) -> None:
        require_choice("start", self.start, ("ones", "normal"))
        if not (0 <= self.l1 < math.inf and 0 <= self.l2 < math.inf and 0 <= self.threshold < math.inf):
            raise ConfigError(
                f"l1, l2 and threshold must be >= 0, got {self.l1}, {self.l2} and {self.threshold}; the paper's are 1, 10, 0"
            )
        if not (0 < self.rate < math.inf and 0 <= self.least <= 1):
            raise ConfigError(f"rate must be > 0 and least a share in [0, 1], got {self.rate} and {self.least}")


class SoftMasks(nn.Module):
    """One mask for each unit of a head: a vector for its channels, or one number for a residual branch.

    Args:
        model: the split model; gates are put on its modules.
        x: pictures, (N, C, H, W), on its device; N >= 2.
        kind: what is masked: channels, or the branches of residual blocks.
        sparsity: how masks are drawn to zero.
        keep: the budget, or None.

    Raises:
        ModelError: the head has nothing to prune, or layers that pruning does not know.
        ConfigError: no pruning reaches the budget.
    """

    def __init__(self, model: Split, x: Tensor, *, kind: Kind, sparsity: Sparsity, keep: Keep | None) -> None:
        super().__init__()
        self._sparsity, self._x = sparsity, x
        self._channels = channels.find(model, x) if kind == "channel" else ()
        self._branches = blocks.find(model) if kind == "block" else ()
        self.plan = (
            channels.plan(model, self._channels, x, sparsity.least) if self._channels else blocks.plan(model, self._branches, x)
        )
        self.whole = self.plan.footprint(self.plan.sizes)
        self._limit = None if keep is None else keep.limit(self.whole)
        if self._limit is not None:
            self.plan.require(self._limit)
        sizes, normal = self.plan.sizes, sparsity.start == "normal"
        drawn = (torch.randn(size).clamp_min_(0) if normal else torch.ones(size) for size in sizes)
        self.values = nn.ParameterList(nn.Parameter(mask.to(x.device)) for mask in drawn)
        # Modules and not names: a defense that is prepared later may wrap the head. In a list, which is no registration.
        self._roots = [model.get_submodule(unit.root) for unit in self._channels]
        gated = [unit.gated for unit in self._channels] + [(branch.root,) for branch in self._branches]
        self._gated = [model.get_submodule(name) for names in gated for name in names]
        for names, mask in zip(gated, self.values, strict=True):
            for name in names:
                gate.attach(model.get_submodule(name), mask)
        self._floor = 0.0 if self._limit is None else _FLOOR
        self.begin_epoch()

    @property
    def saving(self) -> Footprint:
        """What `remove` takes off the head, at least: what the budget does not let stay."""
        if self._limit is None:
            return Footprint()
        parameters = max(0.0, self.whole.parameters - self._limit.parameters)
        memory = max(parameters * self._x.element_size(), self.whole.memory - self._limit.memory)  # parameters hold memory
        return Footprint(parameters, memory, max(0.0, self.whole.macs - self._limit.macs))

    def begin_epoch(self) -> None:
        """Start FISTA anew from where the masks are: a momentum that tends to 1 would gather the noise of batches."""
        start = self._vector()
        self._open = (start > 0).to(start)
        share = 1 / len(start) if self._sparsity.average else 1.0
        if self._limit is not None and self._kept().fits(self._limit):
            share = 0.0
        self._fista = Fista(
            start,
            rate=self._sparsity.rate,
            l1=self._sparsity.l1 * share,
            l2=self._sparsity.l2 * share,
            project=self._relieve if self._sparsity.average else None,
        )

    def clear(self) -> None:
        """Forget the gradient of an earlier update."""
        for mask in self.values:
            mask.grad = None

    @contextmanager
    def still(self) -> Iterator[None]:
        """Let what is computed within say nothing about the masks: it has no gradient to them."""
        self.values.requires_grad_(False)
        try:
            yield
        finally:
            self.values.requires_grad_(True)

    def step(self) -> None:
        """Move the masks that are open by a step of FISTA."""
        gradient = torch.cat([torch.zeros_like(mask) if mask.grad is None else mask.grad for mask in self.values])
        self._set(self._fista.step(self._vector(), gradient * self._open))

    def narrow(self, progress: float) -> None:
        """End an epoch: let the masks be the last proximal point, and close the smallest of them as the budget says.

        Args:
            progress: share of the training that is done, [0, 1].
        """
        self._set(self._fista.m)
        if self._limit is not None:
            left = max(0.0, 1 - progress / _RAMP) ** 3
            self._close(self.plan.choose(list(self.values), self._limit.towards(self.whole, left)))

    def remove(self, model: Split) -> None:
        """Fold the masks into the weights of a model, and remove what they close."""
        if self._limit is not None:
            self._close(self.plan.choose(list(self.values), self._limit))
        threshold = self._sparsity.threshold if self._limit is None else 0.0
        stays = [_open(mask, threshold, least) for mask, least in zip(self.values, self.plan.least, strict=True)]
        self._close(stays)
        gate.fold(model)
        if self._channels:
            channels.remove(model, self._roots, stays, self._x)
        else:
            blocks.remove(model, [bool(kept) for kept in stays])

    def reshape(self, model: Split, weights: Mapping[str, Tensor]) -> None:
        """Take the gates off a model, and give it the shapes of finished weights."""
        gate.detach(model)
        if self._branches:
            blocks.reshape(model, weights)
        resize(model, weights)

    def _close(self, stays: Sequence[Tensor]) -> None:
        for mask, kept in zip(self.values, stays, strict=True):
            mask.mul_(kept.to(mask))

    def _kept(self) -> Footprint:
        """Return the footprint of what is open."""
        return self.plan.footprint([int((mask > 0).sum()) for mask in self.values])

    def _relieve(self, masks: Tensor) -> Tensor:
        """Give the weights what masks have in common; return the masks without it."""
        common = masks.sum() / self._open.sum()
        common = torch.where(common > 0, common, torch.ones_like(common))
        for module in self._gated:
            gate.scale(module, common)
        return masks / common

    def _vector(self) -> Tensor:
        return torch.cat([mask.detach() for mask in self.values])

    def _set(self, vector: Tensor) -> None:
        """Set the masks that are open."""
        parts = (vector.clamp_min(self._floor) * self._open).split(list(self.plan.sizes))
        for mask, part in zip(self.values, parts, strict=True):
            mask.copy_(part)


def _open(mask: Tensor, threshold: float, least: int) -> Tensor:
    """Return which channels a mask leaves open: those above the threshold, and the largest `least`, (size,), bool, on the CPU."""
    values = mask.detach().cpu()
    stays = values > threshold
    stays[values.topk(least).indices] = True
    return stays
