# SPDX-License-Identifier: Apache-2.0
"""The idx format of MNIST and Fashion-MNIST, plain or compressed.

An idx file is two zero bytes, a byte for the type (8 is uint8), a byte for the number of dimensions, each dimension as a
big-endian uint32, and the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from sfumato.data.base import Data, Pictures, Reading
from sfumato.data.collect import Chunk, chunk_length, collect, remaining
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package dataset-fashion-mnist puts its files."""

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_UINT8 = 8
_BLOCK = 1 << 16


def read_idx(path: Path, *, dims: int) -> npt.NDArray[np.uint8]:
    """Read a whole idx file.

    Args:
        path: plain, or compressed if it ends in .gz.
        dims: how many dimensions are expected.

    Returns:
        uint8, in the shape of the header.

    Raises:
        DataError: the file is not idx, not uint8, of other dimensions, damaged, or its length is not what its header says.
    """
    with _opened(path) as stream:
        shape = _header(stream, path, dims)
        rows = list(_rows(stream, path, shape, _BLOCK))
    return np.concatenate([np.empty((0, *shape[1:]), np.uint8), *rows])


@dataclass(frozen=True, kw_only=True)
class Mnist(Source):
    """MNIST: 60,000 digits to train and 10,000 to test, 28x28 gray, from the four official idx files below the data root."""

    def load(self, reading: Reading) -> Data:
        """Read the digits."""
        layouts = [Layout(Path(folder), _FILES, compressed=True) for folder in ("mnist", "MNIST/raw")]
        paths = locate("mnist", layouts, reading).paths
        return Data(name="mnist", classes=tuple("0123456789"), parts=_parts(paths, 10, reading))


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Source):
    """Fashion-MNIST: 60,000 garments to train and 10,000 to test, 28x28 gray, from the four official idx files.

    They are looked for below the data root, then where the Debian package dataset-fashion-mnist puts them.
    """

    def load(self, reading: Reading) -> Data:
        """Read the garments."""
        folders = (Path("fashion-mnist"), Path("FashionMNIST/raw"), DEBIAN_FOLDER)
        layouts = [Layout(folder, _FILES, compressed=True) for folder in folders]
        hint = "On Debian and Ubuntu: apt install dataset-fashion-mnist."
        paths = locate("fashion-mnist", layouts, reading, hint=hint).paths
        return Data(name="fashion-mnist", classes=_GARMENTS, parts=_parts(paths, len(_GARMENTS), reading))


def _parts(paths: tuple[Path, ...], classes: int, reading: Reading) -> dict[str, Pictures]:
    train = _pictures(paths[0], paths[1], classes, reading)
    test = _pictures(paths[2], paths[3], classes, remaining(reading, train))
    if train.shape != test.shape:
        raise DataError(f"{paths[2]}: expected pictures of shape {train.shape} as in {paths[0].name}, got {test.shape}")
    return {"train": train, "test": test}


def _pictures(images: Path, labels: Path, classes: int, reading: Reading) -> Pictures:
    numbers = read_idx(labels, dims=1).astype(np.int64)
    if len(numbers) and numbers.max() >= classes:
        raise DataError(f"{labels}: expected labels from 0 to {classes - 1}, got {numbers.max()}; get the official file again")
    with _opened(images) as stream:
        count, height, width = _header(stream, images, 3)
        if count != len(numbers):
            raise DataError(f"{images}: {count} pictures, but {labels.name} has {len(numbers)} labels; get both files again")
        shape = (1, height, width)
        rows = _rows(stream, images, (count, height, width), chunk_length(shape, reading))
        return collect(_labeled(rows, numbers), count=count, shape=shape, reading=reading)


def _labeled(rows: Iterator[npt.NDArray[np.uint8]], numbers: npt.NDArray[np.int64]) -> Iterator[Chunk]:
    done = 0
    for chunk in rows:
        yield chunk[:, None], numbers[done : done + len(chunk)]
        done += len(chunk)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: a truncated or damaged gzip file ({error}); get it again") from error


def _header(stream: IO[bytes], path: Path, dims: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if magic != bytes([0, 0, _UINT8, dims]):
        wanted = bytes([0, 0, _UINT8, dims]).hex()
        raise DataError(
            f"{path}: expected an idx file of {dims}-dimensional uint8 (magic {wanted}), got magic {magic.hex() or 'none'}"
        )
    sizes = stream.read(4 * dims)
    if len(sizes) < 4 * dims:
        raise DataError(f"{path}: truncated in its header; get it again")
    return struct.unpack(f">{dims}I", sizes)


def _rows(stream: IO[bytes], path: Path, shape: tuple[int, ...], length: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the values, at most `length` rows at a time."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64))
    for start in range(0, shape[0], length):
        rows = min(length, shape[0] - start)
        block = stream.read(rows * row_bytes)
        if len(block) < rows * row_bytes:
            raise DataError(
                f"{path}: truncated: its header says {shape}, but it ends in row {start + len(block) // max(1, row_bytes)}"
            )
        yield np.frombuffer(block, dtype=np.uint8).reshape(rows, *shape[1:])
    if stream.read(1):
        raise DataError(f"{path}: longer than its header says, {shape}; get it again")
