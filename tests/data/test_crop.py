# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data.crop import Box, Crop, Middle
from sfumato.data.picture import Encoded, decode
from sfumato.errors import ConfigError, CorruptPictureError

ROWS = np.arange(20, dtype=np.uint8)[:, None] * 10 + np.arange(10, dtype=np.uint8)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """10 wide and 20 high; a pixel is ten times its row plus its column."""
    Image.fromarray(ROWS).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("crop", "size", "sides"),
    [
        (Middle(108, of=178), (178, 218), (35, 55, 143, 163)),  # CelebA, as released
        (Middle(88, of=128), (128, 128), (20, 20, 108, 108)),  # FFHQ, thumbnails
        (Middle(88, of=128), (1024, 1024), (160, 160, 864, 864)),
        (Middle(54, of=64), (64, 64), (5, 5, 59, 59)),  # FaceScrub
        (Middle(67, of=100), (100, 100), (16, 16, 83, 83)),  # PubFig83
        (Middle(1, of=100), (3, 3), (1, 1, 2, 2)),
        (Box(20, 40, 60, 80), (100, 100), (20, 40, 60, 80)),
        (Box(20, 40, 60, 80, grown=0.3), (100, 100), (14, 34, 66, 86)),
        (Box(0, 0, 60, 80, grown=0.5), (70, 90), (0, 0, 70, 90)),
        (Box(0, 0, 256, 512, middle=Middle(224, of=256)), (300, 600), (16, 144, 240, 368)),
    ],
)
def test_sides(crop: Crop, size: tuple[int, int], sides: tuple[float, ...]) -> None:
    assert crop.sides(*size) == pytest.approx(sides)


@pytest.mark.parametrize("crop", [Middle(6, of=10), Box(2, 7, 8, 13)])
def test_a_picture_is_cut_before_it_is_resized(picture: Path, crop: Crop) -> None:
    cut = np.asarray(decode(Encoded("a", picture, 0, crop)))
    np.testing.assert_array_equal(cut, ROWS[7:13, 2:8])
    np.testing.assert_array_equal(np.asarray(decode(Encoded("a", picture, 0, crop), size=6)), ROWS[7:13, 2:8])


@pytest.mark.parametrize("box", [Box(12, 0, 15, 5), Box(5, 5, 5, 9), Box(8, 3, 2, 9, grown=0.1, middle=Middle(1, of=2))])
def test_a_box_outside_of_the_picture(picture: Path, box: Box) -> None:
    with pytest.raises(CorruptPictureError, match=r"a: expected something to cut out of 10x20 pixels.*correct its annotation"):
        decode(Encoded("a", picture, 0, box))


@pytest.mark.parametrize("side", [0, 101])
def test_middle_out_of_range(side: int) -> None:
    with pytest.raises(ConfigError, match=f"crop must be from 1 to 100.*got {side}"):
        Middle(side, of=100)
