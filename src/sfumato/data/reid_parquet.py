# SPDX-License-Identifier: Apache-2.0
"""Parquet files with an image, an identity and a camera in every row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.data.base import RETRIEVAL, Data, Reading
from sfumato.data.parquet import encoded_part, read_values
from sfumato.data.reid import SIZE, read_parts
from sfumato.data.retrieval import Sightings
from sfumato.data.source import Source, require
from sfumato.errors import MissingDataError

_FURTHER = (*RETRIEVAL, "test")


@dataclass(frozen=True, kw_only=True)
class ReidParquet(Source):
    """People, pets, parcels: any parquet file that says of every picture who is on it and which camera took it.

    Args:
        path: of the file, or of a folder with train.parquet and query.parquet with gallery.parquet, or test.parquet, which is
            divided, or neither: then 20 % of the individuals are held out, as of a single file.
        size: side of the square that pictures are brought to; None keeps them.
        image: the column of encoded pictures.
        identity: the column of individuals, integers or strings.
        camera: the column of cameras, integers or strings.
        seed: of the splits.
    """

    path: str | Path
    size: int | None = SIZE
    image: str = "image"
    identity: str = "identity"
    camera: str = "camera"
    seed: int = 0

    def load(self, reading: Reading) -> Data:
        """Read the pictures."""
        path = require("reid-parquet", Path(self.path))
        columns = {"identity": self.identity, "camera": self.camera}
        parts = {part: read_sightings(file, image=self.image, **columns) for part, file in _files(path).items()}
        return read_parts(path.stem, parts, reading, size=self.size, seed=self.seed)


def read_sightings(path: Path, *, image: str = "image", identity: str = "identity", camera: str = "camera") -> Sightings:
    """Read who is on the pictures of a file and which camera took them; the pictures themselves are not read yet.

    Args:
        path: of the file.
        image: the column of encoded pictures.
        identity: the column of individuals.
        camera: the column of cameras.

    Raises:
        DataError: the file is not parquet, lacks a column, has a column of another type, or a row without a value.
    """
    values = read_values(path, image=image, values={"identity": identity, "camera": camera})
    part = encoded_part(path, image, np.zeros(len(values["identity"]), dtype=np.int64))
    return Sightings(values["identity"], values["camera"], part.pictures)


def _files(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"train": path}
    train = path / "train.parquet"
    if not train.exists():
        raise MissingDataError(f"reid-parquet: looked for train.parquet in {path}; put it there, or give the path of a file")
    return {"train": train} | {part: file for part in _FURTHER if (file := path / f"{part}.parquet").exists()}
