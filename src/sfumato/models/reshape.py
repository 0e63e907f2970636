# SPDX-License-Identifier: Apache-2.0
"""Between shapes of features: maps (C, H, W), tokens (T, D), vectors (D,)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def grid_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Return the map that features of a shape can be laid out as.

    Args:
        shape: of z for one picture.

    Returns:
        (C, h, w): a map as it is; (D, s, s) for T = s*s tokens, or T = s*s + 1 with a class token; None for all other features.

    Example:
        >>> grid_shape((64, 8, 4)), grid_shape((197, 192)), grid_shape((512,))
        ((64, 8, 4), (192, 14, 14), None)
    """
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    if len(shape) == 2:
        for tokens in (shape[0], shape[0] - 1):
            side = math.isqrt(tokens)
            if side > 0 and side * side == tokens:
                return (shape[1], side, side)
    return None


class Grid(nn.Module):
    """Lay features out as a map.

    Args:
        shape: of z for one picture.
        grid: (C, h, w), what `grid_shape` returns, or the map that a linear layer leads to where it returns None.

    Example:
        >>> import torch
        >>> Grid((17, 8), (8, 4, 4))(torch.zeros(2, 17, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, shape: Sequence[int], grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.tokens = len(shape) == 2 and grid_shape(shape) is not None
        linear = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), math.prod(grid)), nn.Unflatten(1, grid))
        self.project: nn.Module = nn.Identity() if grid_shape(shape) else linear

    def forward(self, z: Tensor) -> Tensor:
        """Return the map (N, C, h, w) of features (N, *shape)."""
        if self.tokens:
            count = self.grid[1] * self.grid[2]
            # (N, T, D) -> (N, D, T); a class token comes first and is left out
            return z[:, -count:].transpose(1, 2).reshape(-1, *self.grid)
        out: Tensor = self.project(z)
        return out


class Resample(nn.Module):
    """Bring features to a shape with another count of elements by repeating or dropping the nearest ones; nothing is learned.

    Args:
        shape: of the result for one picture.

    Example:
        >>> import torch
        >>> Resample((4,))(torch.tensor([[1.0, 2.0]])).tolist()
        [[1.0, 1.0, 2.0, 2.0]]
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, z: Tensor) -> Tensor:
        """Return (N, *shape) of z (N, ...)."""
        return F.interpolate(z.flatten(1).unsqueeze(1), size=math.prod(self.shape)).reshape(-1, *self.shape)


def between(given: Sequence[int], wanted: Sequence[int]) -> nn.Module:
    """Make the layers that lead features of one shape to another: what undoes a pooling or a flattening.

    Args:
        given: shape of z for one picture.
        wanted: shape of the result.

    Returns:
        A reshaping where the count of elements is the same. For a map, the features as a map, a 1x1 convolution where the
        channels differ, and pixels repeated to the size. Otherwise the nearest elements.

    Example:
        >>> import torch
        >>> between((6, 14, 14), (6, 28, 28))(torch.zeros(2, 6, 14, 14)).shape
        torch.Size([2, 6, 28, 28])
    """
    if tuple(given) == tuple(wanted):
        return nn.Identity()
    if math.prod(given) == math.prod(wanted) and len(given) != len(wanted):
        return nn.Sequential(nn.Flatten(), nn.Unflatten(1, tuple(wanted)))
    if len(wanted) != 3:
        return Resample(wanted)
    grid = grid_shape(given) or _pooled(math.prod(given), wanted[0])
    layers: list[nn.Module] = []
    if len(given) != 3:  # a map is left as it lies in memory
        layers.append(Grid(given, grid) if len(given) == 2 else nn.Sequential(nn.Flatten(), nn.Unflatten(1, grid)))
    if grid[0] != wanted[0]:
        layers.append(nn.Conv2d(grid[0], wanted[0], 1))
    return nn.Sequential(*layers, nn.Upsample(size=tuple(wanted[1:])))


def _pooled(count: int, channels: int) -> tuple[int, int, int]:
    """Return the map that a vector was flattened from: as many channels, square; or a channel for each element."""
    side = math.isqrt(count // channels)
    return (channels, side, side) if side > 0 and channels * side * side == count else (count, 1, 1)
