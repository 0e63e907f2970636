# SPDX-License-Identifier: Apache-2.0
"""Where a search keeps its variables: styles in a box of P space, changes of activations in an L1 ball.

The last layer of a mapping network is a leaky ReLU, so that styles w are skewed: undone, they are nearly Gaussian, and that is P
space. A style more than so many standard deviations from the mean there is one that the generator never saw.

Source: an2022mirror, section IV-B (P space); qiu2024ifgmi, section 3.3, after duchi2008projections, figure 1 (the ball).
Equations: p = LeakyReLU_5(w), w = LeakyReLU_0.2(p), box mean +- deviations * std -> PSpace;
    argmin_v |v - x|_2 with |v|_1 <= r -> l1_ball
Departures: none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.errors import DataError

_SLOPE = 0.2


def to_p(w: Tensor) -> Tensor:
    """Undo the leaky ReLU that styles end in.

    Args:
        w: (..., D), float.

    Example:
        >>> to_p(torch.tensor([-0.2, 1.0]))
        tensor([-1.,  1.])
    """
    return F.leaky_relu(w, 1 / _SLOPE)


def to_w(p: Tensor) -> Tensor:
    """Return the styles of points in P space.

    Args:
        p: (..., D), float.

    Example:
        >>> to_w(torch.tensor([-1.0, 1.0]))
        tensor([-0.2000,  1.0000])
    """
    return F.leaky_relu(p, _SLOPE)


@dataclass(frozen=True)
class PSpace:
    """The box of P space in which a generator's styles lie.

    Args:
        mean: of the styles in P space, (D,).
        std: likewise, of each dimension.
        deviations: half the side of the box, in standard deviations.

    Example:
        >>> space = PSpace.of([torch.randn(100, 4)], 1.0)
        >>> w = [torch.full((2, 4), 9.0)]
        >>> space.clip(w)
        >>> bool((to_p(w[0]) <= space.high + 1e-6).all())
        True
    """

    mean: Tensor
    std: Tensor
    deviations: float

    @classmethod
    def of(cls, styles: Iterable[Tensor], deviations: float) -> PSpace:
        """Measure the box.

        Args:
            styles: batches of styles, (n, D) each; they are read once, and none is kept.
            deviations: half the side of the box.

        Raises:
            DataError: there are no styles.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for w in styles:
            p = to_p(w).double()  # so that the difference of large sums keeps its digits
            count, total, squares = count + len(p), total.to(p) + p.sum(0), squares.to(p) + p.square().sum(0)
        if not count:
            raise DataError("a box of P space is measured on styles, found none; draw some")
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        return cls(mean.float(), std.float(), deviations)

    @property
    def low(self) -> Tensor:
        """The least of each dimension, in P space, (D,)."""
        return self.mean - self.deviations * self.std

    @property
    def high(self) -> Tensor:
        """The largest of each dimension, in P space, (D,)."""
        return self.mean + self.deviations * self.std

    def clip(self, variables: Sequence[Tensor]) -> None:
        """Bring styles into the box, in place.

        Args:
            variables: styles, (..., D) each.
        """
        low, high = to_w(self.low), to_w(self.high)  # the way there is monotone, so the box is one in W too
        for w in variables:
            w.copy_(w.clamp(low.to(w), high.to(w)))


def l1_ball(x: Tensor, radius: float) -> Tensor:
    """Project every row on the L1 ball around 0: the point of the ball that is nearest to it.

    Args:
        x: (B, ...), float.
        radius: of the ball, above 0.

    Returns:
        (B, ...); rows inside of the ball are returned as they are.

    Example:
        >>> l1_ball(torch.tensor([[3.0, -2.0], [0.5, 0.25]]), 2.0)
        tensor([[ 1.5000, -0.5000],
                [ 0.5000,  0.2500]])
    """
    size = x.flatten(1).abs()
    falling = size.sort(1, descending=True).values
    excess = falling.cumsum(1) - radius
    rank = torch.arange(1, size.shape[1] + 1, device=x.device)
    last = (falling * rank > excess).sum(1, keepdim=True).clamp_min(1) - 1  # the smallest entry that is not cut to 0
    cut = excess.gather(1, last) / (last + 1)
    shrunk = (size - cut).clamp_min(0).view_as(x) * x.sign()
    inside = (size.sum(1) <= radius).view(-1, *[1] * (x.ndim - 1))
    return torch.where(inside, x, shrunk)
