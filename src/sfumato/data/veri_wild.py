# SPDX-License-Identifier: Apache-2.0
"""VERI-Wild in its official folders.

Source: lou2019veriwild.
Departures: none. The lists were released twice, under other names; both are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfumato.arguments import require_choice
from sfumato.data.base import Data, Reading
from sfumato.data.reid import SIZE, assemble
from sfumato.data.retrieval import Sighting, Sightings, posed
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import DataError

TestSet = Literal["small", "medium", "large"]
"""The published test sets."""

_VEHICLES = {"small": 3000, "medium": 5000, "large": 10000}
_RELEASES = (("train_list_start0.txt", "_id"), ("train_list.txt", "_id"), ("train_list.txt", ""))
"""Name of the training list, and the mark in the names of the test lists."""


@dataclass(frozen=True, kw_only=True)
class VeriWild(Source):
    """VERI-Wild: 40,671 vehicles by 174 cameras; 277,797 pictures of 30,671 of them to train.

    Looked for below the data root: VERI-Wild/images/VEHICLE/NAME.jpg and VERI-Wild/train_test_split with train_list.txt
    (or train_list_start0.txt), test_3000_id.txt and test_3000_id_query.txt (or test_3000.txt and test_3000_query.txt), and
    vehicle_info.txt, which has the cameras.

    Args:
        test: "small" has 3,000 vehicles, "medium" 5,000, "large" 10,000: a query of each, and 38,861, 64,389 or 128,517 pictures.
        size: side of the square that pictures are brought to.

    Raises:
        ConfigError: another test.
    """

    test: TestSet = "small"
    size: int = SIZE

    def __post_init__(self) -> None:
        require_choice("test", self.test, get_args(TestSet))

    def load(self, reading: Reading) -> Data:
        """Read the vehicles."""
        images, info, *lists = locate("veri-wild", _layouts(_VEHICLES[self.test]), reading).paths
        cameras = _cameras(info)
        train, query, gallery = (_sightings(path, images, cameras) for path in lists)
        asked = {file.path for file in query}
        searched = [file for file in gallery if file.path not in asked]
        test = posed(Sightings.of(query), Sightings.of(searched)).answerable()
        return assemble(f"veri-wild-{self.test}", Sightings.of(train), test, reading, size=self.size)


def _layouts(vehicles: int) -> list[Layout]:
    return [
        Layout(
            Path("VERI-Wild"),
            (
                "images",
                "train_test_split/vehicle_info.txt",
                f"train_test_split/{train}",
                f"train_test_split/test_{vehicles}{mark}_query.txt",
                f"train_test_split/test_{vehicles}{mark}.txt",
            ),
        )
        for train, mark in _RELEASES
    ]


def _cameras(info: Path) -> dict[str, str]:
    """Read which camera took each picture: lines such as 00001/000001;73;... after a header."""
    lines = (line.split(";") for line in info.read_text(encoding="utf-8").splitlines())
    return {fields[0].removesuffix(".jpg"): fields[1] for fields in lines if len(fields) > 1}


def _sightings(path: Path, images: Path, cameras: dict[str, str]) -> list[Sighting]:
    """Read a list: lines such as 00001/000001.jpg, with or without the ending and further fields."""
    files = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        picture = line.split(" ")[0].strip().removesuffix(".jpg")
        if picture not in cameras:
            raise DataError(f"{path}, line {number}: expected a picture of vehicle_info.txt, got '{line}'; get the file again")
        files.append(Sighting(images / f"{picture}.jpg", picture.split("/")[0], cameras[picture]))
    return files
