# SPDX-License-Identifier: Apache-2.0
"""Views of pictures that an adversary asks about beside the pictures themselves: mirrored, and moved by a pixel.

Source: carlini2022lira, Section VI-C (queries are the augmentations of training; 18 of them: 9 shifts, each mirrored too).
Departures: the views are the same for every model and every run, in a fixed order, since a statistic over models must compare
like with like; a moved picture repeats its border, where the released code pads by reflection.
"""

from __future__ import annotations

import torch.nn.functional as F

from sfumato.errors import ConfigError
from sfumato.types import Images

_SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
MOST = 2 * len(_SHIFTS)
"""How many views there are."""


def view(x: Images, number: int) -> Images:
    """Return one view of pictures.

    Args:
        x: (N, C, H, W), float, any range.
        number: 0 is the picture as it is, 1 its mirror image; then come shifts by a pixel, each with its mirror image.

    Raises:
        ConfigError: there is no such view, or the pictures are rows of a table, which have no neighbors.

    Example:
        >>> import torch
        >>> view(torch.arange(3.0).view(1, 1, 1, 3), 1).flatten()
        tensor([2., 1., 0.])
    """
    check_views(number + 1, tuple(x.shape[1:]))
    down, right = _SHIFTS[number // 2]
    moved = (
        x
        if number < 2
        else F.pad(x, (1, 1, 1, 1), mode="replicate")[..., 1 - down :, 1 - right :][..., : x.shape[-2], : x.shape[-1]]
    )
    return moved.flip(-1) if number % 2 else moved


def check_views(views: int, shape: tuple[int, ...]) -> None:
    """Raise unless pictures of a shape have so many views.

    Raises:
        ConfigError: they have not.
    """
    if not 1 <= views <= MOST:
        raise ConfigError(f"views must be 1 to {MOST}, got {views}; 2 asks about the mirror image too")
    if views > 1 and shape[-1] == 1:
        raise ConfigError(f"views must be 1 for rows of a table, which cannot be mirrored or moved, got {views}")
