# SPDX-License-Identifier: Apache-2.0
"""VeRi-776 in its official folders.

Source: liu2016veri.
Departures: none. The queries lie in the gallery's folder too; `test` has such a picture once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.data.base import Data, Reading
from sfumato.data.reid import SIZE, assemble
from sfumato.data.retrieval import Retrieval, Sighting, Sightings
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import DataError

_FOLDERS = ("image_train", "image_query", "image_test")
_NAME = re.compile(r"(\d+)_(c\d+)_")


@dataclass(frozen=True, kw_only=True)
class Veri(Source):
    """VeRi-776: 776 vehicles by 20 cameras; 37,778 pictures of 576 of them to train, 1,678 queries, a gallery of 11,579.

    Looked for below the data root: VeRi/{image_train,image_query,image_test}, or veri, with files 0001_c001_00016450_0.jpg:
    vehicle, camera, time, number.

    Args:
        size: side of the square that pictures are brought to.
    """

    size: int = SIZE

    def load(self, reading: Reading) -> Data:
        """Read the vehicles."""
        found = locate("veri", [Layout(Path(folder), _FOLDERS) for folder in ("VeRi", "veri")], reading)
        train, query, gallery = (_sightings(folder) for folder in found.paths)
        searched = {file.path.name for file in gallery}
        asked = {file.path.name for file in query}
        files = [*(file for file in query if file.path.name not in searched), *gallery]
        names = [file.path.name for file in files]
        masks = (np.array([name in part for name in names], dtype=np.bool_) for part in (asked, searched))
        test = Retrieval(Sightings.of(files), *masks).answerable()
        return assemble("veri", Sightings.of(train), test, reading, size=self.size)


def _sightings(folder: Path) -> list[Sighting]:
    return [_sighting(path) for path in sorted(folder.glob("*.jpg"))]


def _sighting(path: Path) -> Sighting:
    if told := _NAME.match(path.name):
        return Sighting(path, told[1], told[2])
    raise DataError(
        f"{path}: expected a name such as 0001_c001_00016450_0.jpg, vehicle and camera first; unpack the archive again"
    )
