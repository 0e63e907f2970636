# SPDX-License-Identifier: Apache-2.0
"""A small set of vehicles that two cameras saw from behind, once each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.reid import SIZE, read_parts
from sfumato.data.reid_parquet import read_sightings
from sfumato.data.source import Layout, Source, locate

_FILES = ("train.parquet", "test.parquet")
_VALIDATION = "val.parquet"


@dataclass(frozen=True, kw_only=True)
class Vehicle2Cam(Source):
    """Vehicles by two cameras: 405 to train and 60 to test, a picture by each camera; those by the first are the queries.

    Looked for below the data root: vehicle-reid-2cam/{train,test}.parquet.

    Args:
        validation: train on the 102 vehicles of val.parquet too.
        size: side of the square that pictures are brought to.
    """

    validation: bool = False
    size: int = SIZE

    def load(self, reading: Reading) -> Data:
        """Read the vehicles."""
        layout = Layout(Path("vehicle-reid-2cam"), (*_FILES, *[_VALIDATION] * self.validation))
        train, test, *more = (read_sightings(path) for path in locate("vehicle-reid-2cam", [layout], reading).paths)
        parts = {"train": sum(more, train), "test": test}
        return read_parts("vehicle-reid-2cam", parts, reading, size=self.size, seed=0)
