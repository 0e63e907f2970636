# SPDX-License-Identifier: Apache-2.0
"""Nets that several tests use."""

from __future__ import annotations

import torch
from torch import nn


def small_net(classes: int = 2) -> nn.Sequential:
    """A head of two convolutions and a linear tail, for 1x8x8 pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(256, classes),
        )


def net(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """The small net as a recipe asks for it."""
    del shape
    return small_net(classes)
