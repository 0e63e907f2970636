# SPDX-License-Identifier: Apache-2.0
"""The stages of a model: convolutions that give maps of one size, and what comes before the maps get smaller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from sfumato.models.taps import Tap, taps


def stage_ends(model: nn.Module, x: Tensor) -> tuple[Tap, ...]:
    """Return the modules whose outputs end the stages of a model, in order, and where these can be caught.

    A stage begins with the first convolution that gives maps of another size than the one before, and ends where the next one
    begins: a pooling belongs to the stage whose maps it makes smaller. Of the modules that end within a stage, the last of those
    nested least is taken, so that no end lies inside a residual block where blocks have modules of their own.

    Args:
        model: any module, cut or whole; it runs twice, in eval mode and without gradients.
        x: a batch that it takes, on its device.

    Returns:
        A module a stage. The last stage ends before maps of a single place, where it has larger ones. None of a model without
        convolutions.

    Example:
        >>> import torch
        >>> blocks = [nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for _ in range(2)]
        >>> model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4, 2))
        >>> [tap.layer.name for tap in stage_ends(model, torch.zeros(1, 1, 8, 8))]
        ['0', '1']
    """
    maps = [tap for tap in taps(model, x).values() if len(tap.shape) == 4]
    convolutions = [tap for tap in maps if any(parameter.ndim == 4 for parameter in tap.layer.parameters)]
    if not convolutions:
        return ()
    changes = [after for before, after in pairwise(convolutions) if after.shape[2:] != before.shape[2:]]
    starts = [convolutions[0].layer.start, *(tap.layer.start for tap in changes)]
    last = [tap for tap in maps if tap.layer.end > starts[-1]]
    wide = [tap for tap in last if tap.shape[2:].numel() > 1]
    return (*(_end(maps, start, stop) for start, stop in pairwise(starts)), _end(wide or last, starts[-1], math.inf))


def _end(maps: Sequence[Tap], start: float, stop: float) -> Tap:
    """Return the last module, of those nested least, that ends between two ticks."""
    inside = [tap for tap in maps if start < tap.layer.end < stop]
    return min(inside, key=lambda tap: (tap.layer.name.count("."), -tap.layer.end))
