# SPDX-License-Identifier: Apache-2.0
"""VGGFace2: many faces of each of many people, cut out by the published boxes.

Source: cao2018vggface2, Section 5.1 (the box is grown by a factor of 0.3; with its shorter side at 256, the middle 224 is taken).
Departures: the published split has different people in train and test; here the pictures of each person of one side are split.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from sfumato.arguments import require_choice
from sfumato.data.base import Data, Reading
from sfumato.data.crop import Box, Crop, Middle
from sfumato.data.people import by_folder, read_people
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import ConfigError, DataError

People = Literal["train", "test"]
"""The two published lists of people: 8,631 and 500 of them."""

_GROWN, _MIDDLE = 0.3, Middle(224, of=256)
_HEADER = ["NAME_ID", "X", "Y", "W", "H"]


@dataclass(frozen=True, kw_only=True)
class VggFace2(Source):
    """VGGFace2: 3.1 million faces of 8,631 people, or 169,396 of 500 others; 20 % of the pictures of each are the part `test`.

    Looked for below the data root: vggface2/{train,bb_landmark/loose_bb_train.csv}, with a folder for each person, or the same
    with test for train.

    Args:
        size: side of the square that pictures are brought to.
        people: which of the two published lists of people.
        identities: the first so many of these, by name; None reads all.
        boxes: cut faces out by the published boxes; False takes pictures whole, which have been cut out already.
        seed: of the split.

    Raises:
        ConfigError: identities is below 1, or `people` is another.
    """

    size: int = 224
    people: People = "train"
    identities: int | None = None
    boxes: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("people", self.people, get_args(People))
        if self.identities is not None and self.identities < 1:
            raise ConfigError(f"vggface2: identities must be at least 1, got {self.identities}; leave it out for all")

    def load(self, reading: Reading) -> Data:
        """Read the faces.

        Raises:
            DataError: the file of boxes is not one, or lacks a picture.
        """
        table = f"bb_landmark/loose_bb_{self.people}.csv"
        found = locate("vggface2", [Layout(Path("vggface2"), (self.people, *[table] * self.boxes))], reading).paths
        files = dict(islice(by_folder(found[0]).items(), self.identities))
        known = _boxes(found[1], set(files)) if self.boxes else {}

        def cut(path: Path) -> Crop | None:
            if not self.boxes:
                return None
            if box := known.get(f"{path.parent.name}/{path.stem}"):
                return box
            raise DataError(f"{path}: expected its box in {found[1]}, found none; get the file again, or give boxes = false")

        return read_people("vggface2", {"train": files}, reading, size=self.size, cut=cut, seed=self.seed)


def _boxes(path: Path, people: set[str]) -> dict[str, Box]:
    """Read the boxes of some people, by "person/picture"."""
    boxes = {}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        if (header := next(rows, [])) != _HEADER:
            raise DataError(f"{path}: expected the columns {', '.join(_HEADER)}, got {', '.join(header)}; get the file again")
        for line, row in enumerate(rows, start=2):
            try:
                name, (left, top, width, height) = row[0], (int(value) for value in row[1:])
            except (ValueError, IndexError):
                raise DataError(f"{path}, line {line}: expected a name and four numbers, got {row}; get the file again") from None
            if name.partition("/")[0] in people:
                boxes[name] = Box(left, top, left + width, top + height, grown=_GROWN, middle=_MIDDLE)
    return boxes
