# SPDX-License-Identifier: Apache-2.0
"""From what a published generator draws to the pictures that a target takes: the middle is kept, resized, and brought to [0, 1].

Source: struppek2022ppa, its release (keeps the middle 800 of 1,024 pixels, then resizes).
Departures: none.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sfumato.types import Images


def framed(picture: Tensor, crop: int | None, size: int | None) -> Images:
    """Return the middle of pictures, resized.

    Args:
        picture: (N, C, H, H), [-1, 1] and beyond, where it is clipped.
        crop: side of the middle that is kept, in pixels, at most H; None keeps all.
        size: side to resize to, bilinear with antialiasing; None leaves them.

    Returns:
        (N, C, size, size), [0, 1].

    Example:
        >>> import torch
        >>> framed(torch.full((1, 3, 16, 16), -2.0), crop=12, size=6).shape
        torch.Size([1, 3, 6, 6])
        >>> framed(torch.zeros(1, 1, 1, 1), crop=None, size=None).item()
        0.5
    """
    if crop is not None:
        edge = (picture.shape[2] - crop) // 2
        picture = picture[:, :, edge : edge + crop, edge : edge + crop]
    if size is not None and size != picture.shape[2]:
        picture = F.interpolate(picture, (size, size), mode="bilinear", antialias=True)
    return ((picture + 1) / 2).clamp(0, 1)
