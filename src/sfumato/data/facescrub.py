# SPDX-License-Identifier: Apache-2.0
"""FaceScrub: faces of actors and actresses, cut out by its own boxes.

Source: ng2014facescrub; the crop is that of the set-up of nguyen2023lomma.
Departures: none; struppek2022ppa keeps the whole face picture, which is crop = 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.crop import Middle
from sfumato.data.people import by_folder, read_people
from sfumato.data.source import Layout, Source, locate

_LAYOUT = Layout(Path("facescrub"), ("actors/faces", "actresses/faces"))


@dataclass(frozen=True, kw_only=True)
class FaceScrub(Source):
    """FaceScrub: 530 people; how many of its 106,863 faces there are depends on when its links were followed.

    20 % of the pictures of each person are the part `test`. Looked for below the data root: facescrub/{actors,actresses}/faces,
    each with a folder for each person.

    Args:
        size: side of the square that pictures are brought to.
        crop: side of the square that is cut out of the middle first, in 64ths of the shorter side; 64 keeps all of it.
        seed: of the split.

    Raises:
        ConfigError: crop is not from 1 to 64.
    """

    size: int = 64
    crop: int = 54
    seed: int = 0

    def __post_init__(self) -> None:
        Middle(self.crop, of=64)

    def load(self, reading: Reading) -> Data:
        """Read the faces."""
        files = by_folder(*locate("facescrub", [_LAYOUT], reading).paths)
        return read_people("facescrub", {"train": files}, reading, size=self.size, cut=Middle(self.crop, of=64), seed=self.seed)
