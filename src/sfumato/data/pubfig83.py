# SPDX-License-Identifier: Apache-2.0
"""PubFig83: faces of 83 public figures.

Source: pinto2011pubfig83; the crop is that of zhang2020secret's set-up.
Departures: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.crop import Middle
from sfumato.data.people import by_folder, read_people
from sfumato.data.source import Layout, Source, locate


@dataclass(frozen=True, kw_only=True)
class PubFig83(Source):
    """PubFig83: about 13,800 faces of 83 people, 100x100; 20 % of the pictures of each are the part `test`.

    Looked for below the data root: pubfig83, with a folder for each person.

    Args:
        size: side of the square that pictures are brought to.
        crop: side of the square that is cut out of the middle first, in pixels of the 100x100; 100 keeps all.
        seed: of the split.

    Raises:
        ConfigError: crop is not from 1 to 100.
    """

    size: int = 64
    crop: int = 67
    seed: int = 0

    def __post_init__(self) -> None:
        Middle(self.crop, of=100)

    def load(self, reading: Reading) -> Data:
        """Read the faces."""
        (folder,) = locate("pubfig83", [Layout(Path(), ("pubfig83",))], reading).paths
        files = {"train": by_folder(folder)}
        return read_people("pubfig83", files, reading, size=self.size, cut=Middle(self.crop, of=100), seed=self.seed)
