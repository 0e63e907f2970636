# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

import sfumato as sf
from sfumato.data.base import Data

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def blobs() -> Data:
    """Two classes of 8x8 pictures that a small net learns in an epoch or two: a bright square, left or right, over noise."""
    stream = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 2
    x = torch.rand(240, 1, 8, 8, generator=stream) * 0.3
    for row, label in enumerate(y):
        x[row, 0, 2:6, (0 if label == 0 else 4) : (4 if label == 0 else 8)] += 0.6
    return sf.load_data((x, y))


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


@pytest.fixture
def small_split() -> sf.Split:
    return sf.split(small_net(), at="2")
