# SPDX-License-Identifier: Apache-2.0
"""FISTA on soft masks: a proximal gradient step for l1 and l2 sparsity, with momentum.

Source: beck2009fista, section 4; ding2024patrol, Eq. 1 (the objective).
Equations: argmin_{m >= 0} |m - v|^2 / 2 + step (l1 |m|_1 + l2 |m|_2) -> shrink; m_k = prox(y_k - step grad L(y_k)),
    t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2, y_{k+1} = m_k + (t_k - 1) / t_{k+1} (m_k - m_{k-1}) -> Fista.step
Departures: masks stay at or above 0. PATROL removes what is at most 0, so that a large negative mask, which matters as much as a
large positive one, would go; with the bound nothing below 0 is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor


def shrink(v: Tensor, *, step: float, l1: float, l2: float) -> Tensor:
    """Return the proximal point of l1 |m|_1 + l2 |m|_2 over m >= 0.

    Args:
        v: (n,), float.
        step: of the gradient step before.
        l1: weight of the l1 norm.
        l2: weight of the l2 norm, which is not squared.

    Returns:
        (n,), at least 0.

    Example:
        >>> import torch
        >>> shrink(torch.tensor([3.0, 0.5, -1.0]), step=1.0, l1=1.0, l2=1.0)
        tensor([1., 0., 0.])
    """
    soft = (v - step * l1).clamp_min(0)
    norm = soft.norm()
    return soft * (1 - step * l2 / norm).clamp_min(0) if norm > 0 else soft


class Fista:
    """The state of FISTA on one vector.

    Args:
        m: (n,), float, at least 0: where it starts.
        rate: step size, > 0.
        l1: weight of the l1 norm.
        l2: weight of the l2 norm.
        project: what is made of each proximal point; None leaves it.

    Attributes:
        m: the last proximal point.
    """

    def __init__(
        self, m: Tensor, *, rate: float, l1: float, l2: float, project: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.m = m
        self._rate, self._l1, self._l2, self._project = rate, l1, l2, project
        self._t = 1.0

    def step(self, y: Tensor, gradient: Tensor) -> Tensor:
        """Make a step.

        Args:
            y: (n,): where the gradient was taken.
            gradient: (n,), of the smooth part of the objective.

        Returns:
            (n,), at least 0: where to take the next gradient.
        """
        m = shrink(y - self._rate * gradient, step=self._rate, l1=self._l1, l2=self._l2)
        m = m if self._project is None else self._project(m)
        t = (1 + math.sqrt(1 + 4 * self._t**2)) / 2
        ahead = m + (self._t - 1) / t * (m - self.m)
        self.m, self._t = m, t
        return ahead.clamp_min(0)
