# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose weights a style scales, and the blur that goes with doubling: the parts that style generators are made of.

Source: karras2020stylegan2, section 2.2 (modulation) and appendix B (filters).
Equations: w''_ijk = s_i w_ijk / sqrt(sum s_i^2 w_ijk^2 + 1e-8) -> modulated
Departures: none; features are scaled in place of the weights, which is the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-8


def filtered(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """Blur pictures or features, (N, C, H, W), with one kernel, (k, k), after padding both axes with zeros."""
    channels = x.shape[1]
    padded = F.pad(x, (before, after, before, after))
    return F.conv2d(padded, kernel.flip(0, 1).expand(channels, 1, -1, -1), groups=channels)


def doubled(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the height and width of pictures, (N, C, H, W): zeros between the pixels, then a blur of four times the gain.

    Example:
        >>> doubled(torch.ones(1, 1, 4, 4), torch.ones(4, 4) / 16).shape
        torch.Size([1, 1, 8, 8])
    """
    spread = x.new_zeros(*x.shape[:2], x.shape[2], 2, x.shape[3], 2)
    spread[:, :, :, 0, :, 0] = x
    return filtered(spread.flatten(4).flatten(2, 3), 4 * kernel, (len(kernel) + 1) // 2, (len(kernel) - 2) // 2)


def modulated(x: Tensor, weight: Tensor, styles: Tensor, *, kernel: Tensor | None = None, norm: bool = True) -> Tensor:
    """Convolve features with weights whose inputs a style scales.

    Args:
        x: (N, I, H, W).
        weight: (O, I, k, k), k odd.
        styles: (N, I).
        kernel: of the blur where height and width are doubled; None keeps them.
        norm: divide the weights of each output by their length.

    Returns:
        (N, O, H, W), or (N, O, 2 H, 2 W).
    """
    # Scaling x in place of the weights, and the outcome in place of their lengths, is one convolution for the whole batch.
    x = x * styles[:, :, None, None]
    if kernel is None:
        x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
    else:
        x = filtered(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), 4 * kernel, 1, 1)
    if norm:
        x = x * torch.rsqrt(styles.square() @ weight.square().sum((2, 3)).T + _TINY)[:, :, None, None]
    return x
