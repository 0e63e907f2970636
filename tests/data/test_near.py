# SPDX-License-Identifier: Apache-2.0
"""Near-duplicates are pictures of their own, as near as they are said to be."""

from __future__ import annotations

import pytest
import torch

from sfumato.data.near import near_duplicates
from sfumato.errors import ConfigError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("gray", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("gray_levels", [1, 3, 255])
def test_each_differs_from_the_picture_and_from_each_other(gray: int, gray_levels: int) -> None:
    picture, one = torch.full((1, 1, 8, 8), gray, dtype=torch.uint8), stream()
    near = torch.cat([near_duplicates(picture, gray_levels, one) for _ in range(64)])
    assert near.dtype == torch.uint8
    assert len({bytes(row.flatten().tolist()) for row in (*picture, *near)}) == 65
    moved = near.int() - gray
    assert moved.abs().max() <= gray_levels
    assert moved.min() == max(-gray_levels, -gray) or gray_levels == 255
    assert moved.max() == min(gray_levels, 255 - gray) or gray_levels == 255


def test_every_step_is_as_likely_as_the_others() -> None:
    picture = torch.full((1, 1, 100, 100), 100, dtype=torch.uint8)
    counts = (near_duplicates(picture, 2, stream()).flatten().long() - 98).bincount(minlength=5)
    assert counts.tolist() == pytest.approx([2000] * 5, rel=0.1)


def test_the_same_seed_gives_the_same_bits_and_the_picture_stays() -> None:
    pictures = torch.randint(0, 256, (3, 1, 8, 8), generator=stream(1), dtype=torch.uint8)
    before = pictures.clone()
    first, again, other = (near_duplicates(pictures, 1, stream(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(pictures, before)


def test_what_has_no_gray_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stored as uint8, found torch.float32; set gray_levels to 0"):
        near_duplicates(torch.rand(1, 1, 8, 8), 1, stream())
