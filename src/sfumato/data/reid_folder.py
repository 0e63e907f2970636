# SPDX-License-Identifier: Apache-2.0
"""Any folder with a folder for each individual and in it one for each camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import RETRIEVAL, Data, Reading
from sfumato.data.picture import is_picture, pictures_below
from sfumato.data.reid import SIZE, read_parts
from sfumato.data.retrieval import Sighting, Sightings
from sfumato.data.source import Source, require
from sfumato.errors import DataError

_FURTHER = (*RETRIEVAL, "test")


@dataclass(frozen=True, kw_only=True)
class ReidFolder(Source):
    """People, pets, parcels: pictures in IDENTITY/CAMERA/, such as path/anna/door/1.jpg.

    Args:
        path: holds the folders of individuals, or the folder train, which does, and query with gallery, or test, which is
            divided, or neither: then 20 % of the individuals are held out, two at least. Other files than pictures are passed
            over.
        size: side of the square that pictures are brought to; None keeps them.
        seed: of the splits.
    """

    path: str | Path
    size: int | None = SIZE
    seed: int = 0

    def load(self, reading: Reading) -> Data:
        """Read the pictures.

        Raises:
            MissingDataError: the folder is not there, or has queries without a gallery.
            DataError: a folder of individuals or cameras is missing, a camera has no picture, or a picture has no camera.
        """
        path = require("reid-folder", Path(self.path)).resolve()
        train = path / "train" if (path / "train").is_dir() else path
        folders = {"train": train}
        if train != path:
            folders |= {part: path / part for part in _FURTHER if (path / part).is_dir()}
        parts = {part: _sightings(folder) for part, folder in folders.items()}
        return read_parts(path.name, parts, reading, size=self.size, seed=self.seed)


def _sightings(folder: Path) -> Sightings:
    return Sightings.of(
        [
            Sighting(path, individual.name, camera.name)
            for individual in _folders(folder, "individual")
            for camera in _cameras(individual)
            for path in pictures_below(camera)
        ]
    )


def _cameras(individual: Path) -> list[Path]:
    cameras = _folders(individual, "camera")
    if loose := sorted(filter(is_picture, individual.iterdir())):
        raise DataError(f"{loose[0]}: expected pictures in a folder for each camera, found this beside them; move or remove it")
    return cameras


def _folders(folder: Path, kind: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of folders, got a file; for parquet use reid-parquet")
    found = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise DataError(f"{folder}: expected a folder for each {kind}, found none; pictures lie in IDENTITY/CAMERA/")
    return found
