# SPDX-License-Identifier: Apache-2.0
"""Random crop, flip and rotation of a whole batch at once, on its own device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.types import Images


@dataclass(frozen=True)
class Augment:
    """Move every picture of a batch at random: crop after padding with black, then flip, then rotate.

    Without rotation pixels move and keep their values exactly; a rotation samples them bilinearly, all three moves in one go.

    Args:
        crop: pixels of padding on each side before the random crop; 0 disables it.
        flip: mirror left and right with probability one half.
        rotation: largest angle in degrees to either side, [0, 180]; 0 disables it.

    Raises:
        ConfigError: an argument is outside its range.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> Augment()(x, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
    """

    crop: int = 4
    flip: bool = True
    rotation: float = 15.0

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ConfigError(f"crop must be a number of pixels >= 0, got {self.crop}; 0 disables it")
        if not 0 <= self.rotation <= 180:
            raise ConfigError(f"rotation must be an angle in [0, 180] degrees, got {self.rotation}; 0 disables it")

    @property
    def idle(self) -> bool:
        """Whether nothing is enabled."""
        return not (self.crop or self.flip or self.rotation)

    def __call__(self, x: Images, generator: torch.Generator) -> Images:
        """Augment a batch.

        Args:
            x: (N, C, H, W), float, [0, 1].
            generator: on the device of x; the same state gives the same bits.

        Returns:
            (N, C, H, W), [0, 1], dtype and device of x; x itself where nothing is enabled.
        """
        shift = torch.randint(2 * self.crop + 1, (2, len(x)), generator=generator, device=x.device) if self.crop else None
        mirrored = torch.rand(len(x), generator=generator, device=x.device) < 0.5 if self.flip else None
        if self.rotation:
            angle = torch.rand(len(x), generator=generator, device=x.device).mul_(2).sub_(1).mul_(math.radians(self.rotation))
            return _warped(x, angle, mirrored, None if shift is None else shift - self.crop)
        if shift is not None:
            x = _cropped(x, shift, self.crop)
        return x if mirrored is None else torch.where(mirrored[:, None, None, None], x.flip(-1), x)


def _cropped(x: Images, shift: Tensor, crop: int) -> Images:
    height, width = x.shape[-2:]
    # every possible crop as a view, (N, C, 2 crop + 1, 2 crop + 1, H, W), of which one is gathered for each picture
    windows = F.pad(x, (crop,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, shift[0], shift[1]]


def _warped(x: Images, angle: Tensor, mirrored: Tensor | None, shift: Tensor | None) -> Images:
    height, width = x.shape[-2:]
    cos, sin = angle.cos(), angle.sin()
    sign = torch.ones_like(cos) if mirrored is None else 1 - 2 * mirrored.to(cos.dtype)
    down, right = torch.zeros_like(angle.expand(2, -1)) if shift is None else shift.to(cos.dtype)
    # from a place in the output to its place in the input, both in [-1, 1]: rotate, mirror, shift
    across = torch.stack([sign * cos, -sign * sin * (height / width), right * (2 / width)], dim=1)
    along = torch.stack([sin * (width / height), cos, down * (2 / height)], dim=1)
    grid = F.affine_grid(torch.stack([across, along], dim=1).to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp_(0, 1)
