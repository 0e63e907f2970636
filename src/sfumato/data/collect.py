# SPDX-License-Identifier: Apache-2.0
"""Decoded chunks in, pictures out: in memory where they fit the budget, else in a spool on the disk. Every source ends here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from sfumato.data.base import Pictures, Reading
from sfumato.data.resident import ResidentPictures
from sfumato.data.streamed import Spool, StreamedPictures
from sfumato.errors import DataError

Chunk = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Pixels, uint8 (n, C, H, W), and their labels, int64 (n,)."""

_CHUNK_BYTES = 1 << 20


def collect(chunks: Iterable[Chunk], *, count: int, shape: tuple[int, int, int], reading: Reading) -> Pictures:
    """Gather chunks into pictures.

    Args:
        chunks: in order; together at most `count` pictures.
        count: how many pictures there are at most; fewer come where some were skipped.
        shape: (C, H, W) of every picture.
        reading: gives the budget and the folder of the spool.

    Returns:
        Resident pictures where `count` of them fit the budget, else streamed ones.

    Raises:
        DataError: no picture came.
        StorageError: the disk has not enough space for the spool.

    Example:
        >>> chunk = np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1])
        >>> len(collect([chunk], count=2, shape=(1, 4, 4), reading=Reading()))
        2
    """
    build = _resident if count * _row_bytes(shape) <= reading.budget else _streamed
    pictures = build(chunks, count, shape, reading)
    if not len(pictures):
        raise DataError(f"expected at least one picture, but none of {count} could be used")
    return pictures


def remaining(reading: Reading, pictures: Pictures) -> Reading:
    """Return how to read the next part, once `pictures` have taken their share of the budget."""
    if isinstance(pictures, StreamedPictures):
        return reading
    return replace(reading, budget=max(1, reading.budget - pictures.nbytes))


def chunk_length(shape: tuple[int, int, int], reading: Reading) -> int:
    """Return how many pictures a chunk should hold: about 1 MiB, and less under a small budget."""
    return max(1, min(_CHUNK_BYTES, reading.budget // 64) // _row_bytes(shape))


def array_chunks(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Iterator[Chunk]:
    """Yield arrays that are in memory already as one chunk."""
    yield np.ascontiguousarray(pixels), labels


def _row_bytes(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


def _resident(chunks: Iterable[Chunk], count: int, shape: tuple[int, int, int], _: Reading) -> Pictures:
    pixels, labels = np.empty((count, *shape), dtype=np.uint8), np.empty(count, dtype=np.int64)
    filled = 0
    for chunk, numbers in chunks:
        pixels[filled : filled + len(chunk)] = chunk
        labels[filled : filled + len(chunk)] = numbers
        filled += len(chunk)
    return ResidentPictures(torch.from_numpy(pixels[:filled]), torch.from_numpy(labels[:filled]))


def _streamed(chunks: Iterable[Chunk], count: int, shape: tuple[int, int, int], reading: Reading) -> Pictures:
    spool = Spool(_row_bytes(shape), count, reading.spool)
    labels = []
    try:
        for chunk, numbers in chunks:
            spool.append(chunk)
            labels.append(numbers)
    except BaseException:  # an interrupted or failed reading gives its disk space back at once
        spool.close()
        raise
    joined = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *labels]))
    return StreamedPictures(spool, joined, shape, torch.arange(len(joined)))
