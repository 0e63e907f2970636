# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100: the official binary and python versions, and parquet files.

A record of the binary version is one label (CIFAR-100: the coarse, then the fine one) and 3,072 pixels, as bytes. The python
version is read without unpickling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.data.base import Data, Pictures, Reading
from sfumato.data.collect import Chunk, chunk_length, collect, remaining
from sfumato.data.named import FILES, load_found, load_named
from sfumato.data.pickled import read_pickled
from sfumato.data.source import Found, Layout, Source, locate
from sfumato.errors import DataError

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BINARY_10 = Layout(Path("cifar-10-batches-bin"), (*(f"{name}.bin" for name in _BATCHES), "test_batch.bin"))
_PYTHON_10 = Layout(Path("cifar-10-batches-py"), (*_BATCHES, "test_batch"))
_BINARY_100 = Layout(Path("cifar-100-binary"), ("train.bin", "test.bin"))
_PYTHON_100 = Layout(Path("cifar-100-python"), ("train", "test", "meta"))

_Chunks = Callable[[Path, int], Iterator[Chunk]]
"""Goes through the pictures of a file, at most so many at a time."""


@dataclass(frozen=True, kw_only=True)
class Cifar10(Source):
    """CIFAR-10: 50,000 pictures to train and 10,000 to test, 32x32 RGB.

    Looked for below the data root: cifar-10-batches-bin, cifar-10-batches-py, cifar10/{train,test}.parquet.
    """

    def load(self, reading: Reading) -> Data:
        """Read the pictures."""
        found = locate("cifar10", [_BINARY_10, _PYTHON_10, Layout(Path("cifar10"), FILES)], reading)
        if found.layout.files == FILES:
            return load_found(found, reading)
        chunks = _binary(1, 0) if found.layout == _BINARY_10 else _python("labels")
        parts = _parts(found, chunks, len(_CLASSES), reading)
        return Data(name="cifar10", classes=_CLASSES, parts=parts)


@dataclass(frozen=True, kw_only=True)
class Cifar10Lossless(Source):
    """20,000 + 4,000 pictures of CIFAR-10 with their original pixels, from cifar10-20k-lossless/{train,test}.parquet."""

    def load(self, reading: Reading) -> Data:
        """Read the pictures."""
        return load_named("cifar10-20k-lossless", ("cifar10-20k-lossless",), reading)


@dataclass(frozen=True, kw_only=True)
class Cifar100(Source):
    """CIFAR-100: 50,000 pictures to train and 10,000 to test, 32x32 RGB.

    Looked for below the data root: cifar-100-binary, cifar-100-python, then {train,test}.parquet in cifar100 and in cifar100-5k,
    a subset of 4,000 + 1,000 pictures; `Data.name` says which was found.

    Args:
        coarse: take the 20 superclasses, which only the official versions have, for labels.
    """

    coarse: bool = False

    def load(self, reading: Reading) -> Data:
        """Read the pictures."""
        parquet = [] if self.coarse else [Layout(Path(folder), FILES) for folder in ("cifar100", "cifar100-5k")]
        found = locate("cifar100", [_BINARY_100, _PYTHON_100, *parquet], reading)
        if found.layout.files == FILES:
            return load_found(found, reading)
        level = "coarse" if self.coarse else "fine"
        if found.layout == _BINARY_100:
            chunks, classes = _binary(2, 0 if self.coarse else 1), _listed(found.paths[0].with_name(f"{level}_label_names.txt"))
        else:
            chunks, classes = _python(f"{level}_labels"), _names(found.paths[2], f"{level}_label_names")
        count = 20 if self.coarse else 100
        names = classes if len(classes) == count else tuple(str(number) for number in range(count))
        return Data(name="cifar100", classes=names, parts=_parts(found, chunks, count, reading))


def _parts(found: Found, chunks: _Chunks, classes: int, reading: Reading) -> dict[str, Pictures]:
    """Collect the files of an official version: the last one is the test part, but for the names of the classes."""
    *train, test = [path for path in found.paths if path.name != "meta"]
    pictures = _collected(train, chunks, classes, reading)
    return {"train": pictures, "test": _collected([test], chunks, classes, remaining(reading, pictures))}


def _collected(paths: list[Path], chunks: _Chunks, classes: int, reading: Reading) -> Pictures:
    def checked() -> Iterator[Chunk]:
        for path in paths:
            for pixels, labels in chunks(path, chunk_length(_SHAPE, reading)):
                if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
                    raise DataError(
                        f"{path}: expected labels from 0 to {classes - 1}, got {labels.max()}; get the official file again"
                    )
                yield pixels, labels

    # no version takes less than a byte for each pixel, so the lengths of the files bound the count before anything is read
    count = sum(path.stat().st_size for path in paths) // _PIXELS
    return collect(checked(), count=count, shape=_SHAPE, reading=reading)


def _binary(labels: int, which: int) -> _Chunks:
    """Read the binary version, whose records start with this many labels, of which one is taken."""
    record = labels + _PIXELS

    def chunks(path: Path, length: int) -> Iterator[Chunk]:
        if path.stat().st_size % record:
            raise DataError(
                f"{path}: expected records of {record} bytes, got {path.stat().st_size} bytes in all; get the file again"
            )
        with path.open("rb") as stream:
            while block := stream.read(length * record):
                rows = np.frombuffer(block, dtype=np.uint8).reshape(-1, record)
                pixels = np.ascontiguousarray(rows[:, labels:]).reshape(-1, *_SHAPE)
                yield pixels, rows[:, which].astype(np.int64)

    return chunks


def _python(key: str) -> _Chunks:
    """Read the python version, one file in memory at a time, with the labels under `key`."""

    def chunks(path: Path, length: int) -> Iterator[Chunk]:
        batch = read_pickled(path)
        pixels, labels = batch.get("data"), batch.get(key)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
            raise DataError(f"{path}: expected an array 'data' of uint8 (N, {_PIXELS}); get the official file again")
        numbers = np.asarray([] if labels is None else labels)
        if numbers.dtype.kind not in "iu" or numbers.shape != (len(pixels),):
            raise DataError(f"{path}: expected {len(pixels)} integers under '{key}'; get the official file again")
        for start in range(0, len(pixels), length):
            rows = np.ascontiguousarray(pixels[start : start + length])
            yield rows.reshape(-1, *_SHAPE), numbers[start : start + length].astype(np.int64)

    return chunks


def _listed(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8").split()) if path.exists() else ()


def _names(path: Path, key: str) -> tuple[str, ...]:
    return tuple(name.decode("latin-1") if isinstance(name, bytes) else str(name) for name in read_pickled(path).get(key, ()))
