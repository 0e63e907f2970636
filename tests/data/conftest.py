# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

PictureBytes = Callable[..., bytes]
MakeFolder = Callable[..., Path]
WriteParquet = Callable[..., Path]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets, or a skip."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("SFUMATO_DATA") or root.parent / "shared" / "data")
    if not (folder / "cifar10").is_dir():
        pytest.skip("the shared data sets are not on this machine")
    return folder


@pytest.fixture(scope="session")
def picture_bytes() -> PictureBytes:
    """Makes an encoded picture with reproducible content."""

    def make(seed: int = 0, *, width: int = 8, height: int = 8, mode: str = "RGB", form: str = "PNG") -> bytes:
        shape = (height, width) if mode == "L" else (height, width, 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, form)
        return stream.getvalue()

    return make


@pytest.fixture
def make_folder(picture_bytes: PictureBytes) -> MakeFolder:
    """Writes class folders, each with `count` pictures."""

    def make(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 5, **form: object) -> Path:
        for number, name in enumerate(classes):
            (folder / name).mkdir(parents=True)
            for place in range(count):
                (folder / name / f"{place}.png").write_bytes(picture_bytes(100 * number + place, **form))
        return folder

    return make


@pytest.fixture
def write_parquet(picture_bytes: PictureBytes) -> WriteParquet:
    """Writes a parquet file of pictures; the columns can be replaced."""

    def write(path: Path, labels: list[object], *, image: str = "image", label: str = "label", **columns: object) -> Path:
        cells = columns.pop("cells") if "cells" in columns else [picture_bytes(place) for place in range(len(labels))]
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({image: cells, label: labels, **columns}), path)
        return path

    return write
