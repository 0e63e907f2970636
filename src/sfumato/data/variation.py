# SPDX-License-Identifier: Apache-2.0
"""Random variations of pictures, with gradient to them: what an attack shows the target so that no picture fools it alone.

A variation crops, resizes, rotates, jitters and mirrors every picture of a batch at once, on its own device. Its random numbers
are given: those of the rows of a search, so that a picture is varied the same way whichever others are in its batch.

Source: struppek2022ppa, section 3.3 (crops); an2022mirror, section IV (flips); yuan2023plg, section 4.2 (and jitter, rotation).
Departures: a crop has its exact place and size, not one in whole pixels, and is sampled bilinearly in one go with the rotation. A
crop that would be wider or higher than the picture is clipped to it, where the releases draw another. Beyond the border its
pixels are repeated, where the releases put black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.types import Images

DRAWS = 8
"""Random numbers that a variation takes for each picture."""
_GRAY = (0.299, 0.587, 0.114)


class Draws(Protocol):
    """Whoever has random numbers for every picture of a batch, such as the rows of a search."""

    def uniform(self, *size: int, purpose: str) -> Tensor:
        """Return numbers in [0, 1), (B, *size), on the device of the pictures."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Vary every picture at random. Without arguments it leaves them as they are.

    Args:
        scale: least and largest share of the picture's area that a crop has, (0, 1]; the crop is resized to the picture's size.
        ratio: least and largest width of a crop over its height, above 0, drawn evenly in the logarithm.
        rotation: largest angle in degrees to either side, [0, 180].
        jitter: brightness, then contrast, is multiplied by a factor in [1 - jitter, 1 + jitter], [0, 1].
        flip: probability of mirroring left and right, [0, 1].

    Raises:
        ConfigError: an argument is outside its range.

    Example:
        >>> Variation(scale=(0.5, 0.9), flip=0.5).vary(torch.rand(2, 3, 8, 8), torch.rand(2, DRAWS)).shape
        torch.Size([2, 3, 8, 8])
    """

    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    jitter: float = 0.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"scale must be two shares of the area in (0, 1], the lesser first, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ConfigError(f"ratio must be two numbers above 0, the lesser first, got {self.ratio}")
        if not 0 <= self.rotation <= 180:
            raise ConfigError(f"rotation must be an angle in [0, 180] degrees, got {self.rotation}; 0 disables it")
        if not (0 <= self.jitter <= 1 and 0 <= self.flip <= 1):
            raise ConfigError(f"jitter and flip must be in [0, 1], got {self.jitter} and {self.flip}; 0 disables them")

    def __call__(self, x: Images, rows: Draws, purpose: str = "variation") -> Images:
        """Vary the pictures of rows.

        Args:
            x: (B, C, H, W), [0, 1], on the device of the rows.
            rows: which these are, with their random numbers.
            purpose: names the random numbers, where a step varies its pictures more than once.

        Returns:
            (B, C, H, W), [0, 1], with gradient to x.
        """
        return self.vary(x, rows.uniform(DRAWS, purpose=purpose))

    def vary(self, x: Images, draws: Tensor) -> Images:
        """Vary pictures by random numbers.

        Args:
            x: (B, C, H, W), [0, 1].
            draws: (B, `DRAWS`), [0, 1), on the device of x.
        """
        draws = draws.to(x.dtype)
        if self.scale != (1.0, 1.0) or self.ratio != (1.0, 1.0) or self.rotation:
            x = self._moved(x, draws[:, :5])
        if self.jitter:
            x = _jittered(x, 1 + self.jitter * (2 * draws[:, 5:7] - 1))
        if self.flip:
            x = torch.where((draws[:, 7] < self.flip)[:, None, None, None], x.flip(-1), x)
        return x

    def _moved(self, x: Images, draws: Tensor) -> Images:
        """Crop, resize and rotate by five random numbers a picture."""
        height, width = x.shape[-2:]
        area, shape, right, down, turn = draws.unbind(1)
        share = self.scale[0] + (self.scale[1] - self.scale[0]) * area
        low, high = map(math.log, self.ratio)
        aspect = torch.exp(low + (high - low) * shape) * (height / width)  # in shares of the sides, not in pixels
        wide, tall = (share * aspect).sqrt().clamp_max(1), (share / aspect).sqrt().clamp_max(1)
        angle = math.radians(self.rotation) * (2 * turn - 1)
        cos, sin = angle.cos(), angle.sin()
        # From a place in the output to its place in the input, both in [-1, 1]: turn in pixels, shrink to the crop, shift.
        across = torch.stack([wide * cos, -wide * sin * (height / width), (1 - wide) * (2 * right - 1)], 1)
        along = torch.stack([tall * sin * (width / height), tall * cos, (1 - tall) * (2 * down - 1)], 1)
        grid = F.affine_grid(torch.stack([across, along], 1), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _jittered(x: Images, factors: Tensor) -> Images:
    """Multiply the brightness, then the contrast, of each picture by factors, (B, 2)."""
    bright, contrast = factors[:, :, None, None, None].unbind(1)
    x = (x * bright).clamp(0, 1)
    weights = x.new_tensor(_GRAY if x.shape[1] == 3 else [1 / x.shape[1]] * x.shape[1])
    gray = torch.einsum("bchw,c->bhw", x, weights).mean((1, 2))[:, None, None, None]
    return (gray + contrast * (x - gray)).clamp(0, 1)


def center(x: Images, share: float) -> Images:
    """Cut out the center of pictures and resize it to their size, with antialiasing.

    Args:
        x: (N, C, H, W), [0, 1].
        share: of each side that is kept, (0, 1]; 1 returns x itself.

    Returns:
        (N, C, H, W), [0, 1], with gradient to x.

    Example:
        >>> center(torch.eye(4)[None, None], 0.5)[0, 0, 0, 0].item()
        1.0
    """
    if share == 1:
        return x
    height, width = x.shape[-2:]
    tall, wide = max(1, round(share * height)), max(1, round(share * width))
    top, left = (height - tall) // 2, (width - wide) // 2
    cut = x[..., top : top + tall, left : left + wide]
    return F.interpolate(cut, size=(height, width), mode="bilinear", antialias=True).clamp(0, 1)
