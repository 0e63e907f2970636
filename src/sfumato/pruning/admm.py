# SPDX-License-Identifier: Apache-2.0
"""ADMM on the weights of a model: the alternating direction method of multipliers, for a number of weights that must not be zero.

Source: zhang2018admm, section 3; wang2021mcmia, section IV.
Equations: Z = argmin over S of ||Z - (W + U)||^2, MCMIA's Eq. 19 -> project; rho/2 sum ||W - Z + U||_F^2 -> Admm.penalty;
    Z_k+1 = Proj(W_k+1 + U_k) and U_k+1 = U_k + W_k+1 - Z_k+1, its Eq. 17 -> Admm.update
Departures: where weights are equally large, the first of them stay, so that their number is exact. U is the scaled dual, the
multiplier over rho: it is divided by what rho is multiplied by, which released code leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.pruning.weights import Group, Place


@dataclass(frozen=True)
class Residual:
    """How far ADMM is from its end after an update.

    Attributes:
        primal: ||W - Z||_F / ||W||_F over all weights: how much a projection would take off them.
        dual: rho ||Z_k+1 - Z_k||_F: how much the choice of weights still moves.
        rho: weight of the penalty until this update.
    """

    primal: float
    dual: float
    rho: float


def largest(values: Tensor, count: int) -> Tensor:
    """Return which of some values are the largest, exactly so many; of equal ones, the first.

    Args:
        values: (n,), no NaN.
        count: at least 1; all of them where it is n or more.

    Returns:
        (n,), bool.

    Example:
        >>> largest(torch.tensor([1.0, 3.0, 1.0, 1.0, 2.0]), 3).tolist()
        [True, True, False, False, True]
    """
    count = min(count, values.numel())
    edge = values.topk(count, sorted=False).values.min()
    above, level = values > edge, values == edge
    return above | (level & (level.cumsum(0) <= count - above.sum()))


def support(values: Sequence[Tensor], count: int, *, rows: bool) -> list[Tensor]:
    """Return what a projection leaves of the weights of a group.

    Args:
        values: one tensor, or, of rows, one for each layer, (rows, ...).
        count: how many weights or rows stay.
        rows: weights go in rows, by the norm of all of a row.

    Returns:
        For each tensor a mask of its shape, bool: a view of one number for each row where these go.
    """
    if not rows:
        return [largest(value.abs().flatten(), count).view(value.shape) for value in values]
    stays = largest(torch.stack([value.flatten(1).square().sum(1) for value in values]).sum(0), count)
    return [along(stays, value) for value in values]


def project(values: Sequence[Tensor], count: int, *, rows: bool) -> list[Tensor]:
    """Return the nearest tensors with at most so many weights or rows that are not zero, MCMIA's Eq. 19.

    Args:
        values: as for `support`.
        count: how many stay.
        rows: weights go in rows.

    Example:
        >>> project([torch.tensor([[3.0, -1.0], [2.0, 2.0]])], 1, rows=False)[0].tolist()
        [[3.0, 0.0], [0.0, 0.0]]
        >>> project([torch.tensor([[3.0, -1.0], [2.0, 2.5]])], 1, rows=True)[0].tolist()
        [[0.0, 0.0], [2.0, 2.5]]
    """
    return [value.masked_fill(~stays, 0) for value, stays in zip(values, support(values, count, rows=rows), strict=True)]


def prune(group: Group, count: int) -> None:
    """Set all weights of a group to zero, but the largest, in place; with a row, what lies beside it.

    Args:
        group: whose weights.
        count: how many of them stay.
    """
    tensors = [place.tensor for place in group.weights]
    for tensor, kept in zip(tensors, project(tensors, count, rows=group.rows), strict=True):
        tensor.copy_(kept)
    hold(closed(group))


def closed(group: Group) -> list[tuple[Place, Tensor]]:
    """Return the places of a group where weights are zero, and of rows what lies beside them, each with a mask of its shape."""
    weights = [(place, place.tensor == 0) for place in group.weights]
    if not group.rows:
        return weights
    gone = ~open_rows(group)
    return [(place, along(gone, place.tensor)) for place in (*group.weights, *group.beside)]


def open_rows(group: Group) -> Tensor:
    """Return which rows of a group are not zero throughout, (rows,), bool."""
    return torch.stack([(place.tensor != 0).flatten(1).any(1) for place in group.weights]).any(0)


def hold(places: Sequence[tuple[Place, Tensor]]) -> None:
    """Set what masks name to zero, in place."""
    for place, gone in places:
        place.tensor.masked_fill_(gone, 0)


def along(rows: Tensor, tensor: Tensor) -> Tensor:
    """Return one number for each row, (n,), as a view of the shape of a tensor, (n, ...)."""
    return rows.view(-1, *[1] * (tensor.dim() - 1)).expand_as(tensor)


class Admm:
    """The state of ADMM: Z, U and rho.

    Args:
        groups: of which weights.
        counts: how many of each group shall stay.
        rho: weight of the penalty, > 0.
    """

    def __init__(self, groups: Sequence[Group], counts: Sequence[int], *, rho: float) -> None:
        self._groups, self.rho = tuple(groups), rho
        now = [[place.tensor.detach() for place in group.weights] for group in groups]
        # Lists and not one long vector: the layout in memory of each weight stays its own.
        self.z = [project(w, count, rows=group.rows) for group, w, count in zip(groups, now, counts, strict=True)]
        self.u = [[torch.zeros_like(value) for value in w] for w in now]

    def penalty(self) -> Tensor:
        """Return rho/2 sum ||W - Z + U||_F^2, with gradient to the weights."""
        terms = [
            (place.tensor - (z - u)).square().sum()
            for group, zs, us in zip(self._groups, self.z, self.u, strict=True)
            for place, z, u in zip(group.weights, zs, us, strict=True)
        ]
        return self.rho / 2 * torch.stack(terms).sum()

    def update(self, counts: Sequence[int], *, growth: float) -> Residual:
        """Update Z, then U, then rho.

        Args:
            counts: how many of each group shall stay.
            growth: what rho is multiplied by, at least 1.
        """
        primal, dual, norm = [], [], []
        for place, (group, count) in enumerate(zip(self._groups, counts, strict=True)):
            w = [here.tensor.detach() for here in group.weights]
            z = project([a + b for a, b in zip(w, self.u[place], strict=True)], count, rows=group.rows)  # Eq. (19)
            for u, a, b in zip(self.u[place], w, z, strict=True):
                u.add_(a - b).div_(growth)  # Eq. (17); scaled, since rho grows
            primal += [(a - b).square().sum() for a, b in zip(w, z, strict=True)]
            dual += [(a - b).square().sum() for a, b in zip(z, self.z[place], strict=True)]
            norm += [a.square().sum() for a in w]
            self.z[place] = z
        sums = [torch.stack(terms).sum().item() for terms in (primal, dual, norm)]
        found = Residual(math.sqrt(sums[0] / max(sums[2], 1e-30)), self.rho * math.sqrt(sums[1]), self.rho)
        self.rho *= growth
        return found

    def memory(self) -> dict[str, Tensor]:
        """Return Z, U and rho, for a checkpoint."""
        named = {"z": self.z, "u": self.u}
        kept = {
            f"{key}.{i}.{j}": value for key, lists in named.items() for i, row in enumerate(lists) for j, value in enumerate(row)
        }
        return {**kept, "rho": torch.tensor(self.rho, dtype=torch.float64)}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take back what `memory` returned."""
        self.rho = memory["rho"].item()
        for key, lists in {"z": self.z, "u": self.u}.items():
            for i, row in enumerate(lists):
                for j, value in enumerate(row):
                    value.copy_(memory[f"{key}.{i}.{j}"])
