# SPDX-License-Identifier: Apache-2.0
"""PKU VehicleID in its official folders.

Source: liu2016vehicleid.
Departures: the gallery is drawn once, from the seed; published numbers are often means over several draws. The set does not say
which camera took a picture and its protocol passes none over, so each picture has a camera of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from sfumato import seeds
from sfumato.arguments import require_choice
from sfumato.data.base import Data, Reading
from sfumato.data.reid import SIZE, assemble
from sfumato.data.retrieval import Retrieval, Sighting, Sightings
from sfumato.data.source import Layout, Source, locate
from sfumato.data.veri_wild import TestSet
from sfumato.errors import DataError

_VEHICLES = {"small": 800, "medium": 1600, "large": 2400}


@dataclass(frozen=True, kw_only=True)
class VehicleId(Source):
    """VehicleID: 26,267 vehicles from the front or the rear; 13,164 of them to train.

    Looked for below the data root: VehicleID_V1.0, or vehicleid, with image/NAME.jpg and train_test_split/train_list.txt and
    test_list_800.txt, test_list_1600.txt, test_list_2400.txt, whose lines are a name and a vehicle.

    Args:
        test: "small" has 800 vehicles, "medium" 1,600, "large" 2,400: one picture of each, at random, is in the gallery, and all
            others are queries.
        size: side of the square that pictures are brought to.
        seed: of the gallery.

    Raises:
        ConfigError: another test.
    """

    test: TestSet = "small"
    size: int = SIZE
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("test", self.test, get_args(TestSet))

    def load(self, reading: Reading) -> Data:
        """Read the vehicles."""
        files = ("image", "train_test_split/train_list.txt", f"train_test_split/test_list_{_VEHICLES[self.test]}.txt")
        layouts = [Layout(Path(folder), files) for folder in ("VehicleID_V1.0", "vehicleid")]
        images, train, test = locate("vehicleid", layouts, reading).paths
        retrieval = _retrieval(_sightings(test, images), self.seed).answerable()
        return assemble(f"vehicleid-{self.test}", _sightings(train, images), retrieval, reading, size=self.size)


def _retrieval(test: Sightings, seed: int) -> Retrieval:
    order = torch.randperm(len(test), generator=seeds.generator(seed, "split", "gallery")).numpy()
    _, first = np.unique(np.array(test.identities, dtype=np.str_)[order], return_index=True)
    gallery = np.isin(np.arange(len(test)), order[first])
    return Retrieval(test, ~gallery, gallery)


def _sightings(path: Path, images: Path) -> Sightings:
    files = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, vehicle = line.strip().partition(" ")
        if not vehicle:
            raise DataError(f"{path}, line {number}: expected a picture and a vehicle, got '{line}'; get the file again")
        files.append(Sighting(images / f"{name}.jpg", vehicle, name))
    return Sightings.of(files)
