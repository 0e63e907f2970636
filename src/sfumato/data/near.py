# SPDX-License-Identifier: Apache-2.0
"""Near-duplicates of pictures: what a camera makes of a scene that does not change, each different by some gray levels.

Source: none. A device that repeats its random numbers for a byte-identical picture draws anew for each of these.
"""

from __future__ import annotations

import torch

from sfumato.errors import ConfigError
from sfumato.types import Pixels


def near_duplicates(pixels: Pixels, gray_levels: int, generator: torch.Generator) -> Pixels:
    """Move every pixel by a whole number of gray levels, each number from -gray_levels to gray_levels as likely as the others.

    A pixel that would leave 0 to 255 stops there. Two near-duplicates of a picture of p pixels are equal with a chance of at most
    (5/9)^p, and one is the picture itself with at most (2/3)^p: below 1e-11 for 64 pixels.

    Args:
        pixels: (N, C, H, W), uint8.
        gray_levels: how far a pixel moves at most, of 255; at least 1.
        generator: the stream of the numbers.

    Returns:
        (N, C, H, W), uint8, on the device of the generator.

    Raises:
        ConfigError: the pictures are not stored as uint8, so that they have no gray levels.

    Example:
        >>> near = near_duplicates(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 1, torch.Generator().manual_seed(0))
        >>> near.unique()
        tensor([0, 1], dtype=torch.uint8)
    """
    if pixels.dtype != torch.uint8:
        raise ConfigError(f"near-duplicates are made of pictures stored as uint8, found {pixels.dtype}; set gray_levels to 0")
    # int16: a uint8 that goes below 0 comes back as 255
    shift = torch.randint(
        -gray_levels, gray_levels + 1, pixels.shape, generator=generator, device=generator.device, dtype=torch.int16
    )
    return shift.add_(pixels.to(shift.device)).clamp_(0, 255).to(torch.uint8)
