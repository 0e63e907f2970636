# SPDX-License-Identifier: Apache-2.0
"""FFHQ: faces of people that nobody named: public pictures only.

Source: karras2019stylegan; the crop is that of the 64-pixel set-up of zhang2020secret and its followers.
Departures: pictures are brought to their size bicubically, as everywhere here, where the released code does so bilinearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.crop import Middle
from sfumato.data.people import read_people
from sfumato.data.picture import pictures_below
from sfumato.data.source import Layout, Source, locate

_THUMBNAILS, _IMAGES = (Layout(Path("ffhq"), (folder,)) for folder in ("thumbnails128x128", "images1024x1024"))


@dataclass(frozen=True, kw_only=True)
class Ffhq(Source):
    """FFHQ: 70,000 faces of people unknown, so that all are of one class, "face": they are public pictures, not to train on.

    Looked for below the data root: ffhq/thumbnails128x128 or ffhq/images1024x1024, the one that has enough pixels first.

    Args:
        size: side of the square that pictures are brought to.
        crop: side of the square that is cut out of the middle first, in 128ths of the side; 128 keeps all.
        seed: of the split into `train` and `test`.

    Raises:
        ConfigError: crop is not from 1 to 128.
    """

    size: int = 64
    crop: int = 88
    seed: int = 0

    def __post_init__(self) -> None:
        Middle(self.crop, of=128)

    def load(self, reading: Reading) -> Data:
        """Read the faces."""
        layouts = [_THUMBNAILS, _IMAGES] if self.size <= self.crop else [_IMAGES, _THUMBNAILS]
        (folder,) = locate("ffhq", layouts, reading).paths
        files = {"train": {"face": pictures_below(folder)}}
        return read_people("ffhq", files, reading, size=self.size, cut=Middle(self.crop, of=128), seed=self.seed)
