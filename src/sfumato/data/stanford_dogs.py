# SPDX-License-Identifier: Apache-2.0
"""Stanford Dogs: 120 breeds, each picture with a box around the dog.

Source: khosla2011dogs; struppek2022ppa attacks classifiers of the whole pictures.
Departures: the published lists are MATLAB files and are not read; 20 % of the pictures of each breed are the part `test`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.crop import Box, Crop
from sfumato.data.people import by_folder, read_people
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import DataError

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class StanfordDogs(Source):
    """Stanford Dogs: 20,580 pictures of dogs of 120 breeds.

    Looked for below the data root: stanford-dogs/{Images,Annotation}, or stanford_dogs, each with a folder for each breed, such
    as n02085620-Chihuahua.

    Args:
        size: side of the square that pictures are brought to.
        boxes: cut the dog out by its box, of several the first; False takes the middle of the whole picture.
        seed: of the split.
    """

    size: int = 224
    boxes: bool = False
    seed: int = 0

    def load(self, reading: Reading) -> Data:
        """Read the dogs.

        Raises:
            DataError: a picture's box is asked for and cannot be read.
        """
        needed = ("Images", *["Annotation"] * self.boxes)
        layouts = [Layout(Path(folder), needed) for folder in ("stanford-dogs", "stanford_dogs")]
        images, *annotations = locate("stanford-dogs", layouts, reading).paths

        def cut(path: Path) -> Crop | None:
            return _box(annotations[0] / path.parent.name / path.stem) if annotations else None

        files = by_folder(images, named=lambda folder: folder.partition("-")[2] or folder)
        return read_people("stanford-dogs", {"train": files}, reading, size=self.size, cut=cut, seed=self.seed)


def _box(path: Path) -> Box:
    """Read the first box of an annotation, an XML file of which no more is needed than four numbers."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    sides = [re.search(rf"<{side}>\s*(\d+)\s*</{side}>", text) for side in _SIDES]
    left, top, right, bottom = (int(side[1]) if side else -1 for side in sides)
    if min(left, top, right, bottom) < 0:
        raise DataError(
            f"{path}: expected an annotation with {', '.join(_SIDES)}; unpack the archive again, or give boxes = false"
        )
    return Box(left, top, right, bottom)
