# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

import sfumato as sf
from clock import Clock
from nets import small_net
from sfumato.data.base import Data

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that take minutes where each worker starts: two workers begin at the start and in the middle."""
    long = [item for item in items if item.get_closest_marker("timeout")]
    others = [item for item in items if not item.get_closest_marker("timeout")]
    items[:] = [*long[::2], *others[: len(others) // 2], *long[1::2], *others[len(others) // 2 :]]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Give what a test draws, and the layers that it makes, the same numbers whichever tests its worker ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def blobs() -> Data:
    """Two classes of 8x8 pictures that a small net learns in an epoch or two: a bright square, left or right, over noise."""
    stream = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 2
    x = torch.rand(240, 1, 8, 8, generator=stream) * 0.3
    for row, label in enumerate(y):
        x[row, 0, 2:6, (0 if label == 0 else 4) : (4 if label == 0 else 8)] += 0.6
    return sf.load_data((x, y))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def small_split() -> sf.Split:
    return sf.split(small_net(), at="2")
