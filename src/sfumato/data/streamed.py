# SPDX-License-Identifier: Apache-2.0
"""Pictures that are too many for memory: decoded once into a temporary file, read back row by row.

Rows are read with `pread` and not through a memory map, whose pages would count as memory of the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.data.fingerprint import fingerprint_of
from sfumato.errors import StorageError
from sfumato.types import Labels, Pixels


class Spool:
    """A temporary file of rows of equal length. It has no name on the disk, so it is gone when the process is, however that ends.

    Args:
        row_bytes: length of a row.
        rows: how many rows are going to be written at most.
        folder: where the file lies, or None for the system's temporary folder.

    Raises:
        StorageError: the folder cannot be written, or has not enough space.

    Example:
        >>> spool = Spool(4, 2)
        >>> spool.append(np.arange(8, dtype=np.uint8))
        >>> spool.read(np.array([1])).tolist()
        [[4, 5, 6, 7]]
    """

    def __init__(self, row_bytes: int, rows: int, folder: Path | None = None) -> None:
        self._row_bytes = row_bytes
        self._needed = row_bytes * rows
        self._written = 0
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        try:
            free = shutil.disk_usage(self._folder).free
            if free < self._needed:
                raise self._refusal(f"it has {free} bytes free")
            self._file, name = tempfile.mkstemp(prefix="sfumato-", suffix=".spool", dir=self._folder)
            self._finalizer = weakref.finalize(self, os.close, self._file)
            os.unlink(name)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise self._refusal(str(error)) from error

    def _refusal(self, reason: str) -> StorageError:
        return StorageError(
            f"the decoded pictures need {self._needed} bytes in {self._folder}, but {reason}; "
            "free some space, choose another folder with TMPDIR (Reading.spool in Python), or raise the memory budget"
        )

    def append(self, rows: npt.NDArray[np.uint8]) -> None:
        """Write rows after those that are there.

        Args:
            rows: uint8, C-contiguous, a whole number of rows.

        Raises:
            StorageError: the disk is full, or fails; the file is removed.
        """
        left = rows.reshape(-1).data
        while left:
            try:
                count = os.pwrite(self._file, left, self._written)
            except OSError as error:
                self.close()
                raise self._refusal(f"writing stopped after {self._written}: {error.strerror}") from error
            self._written += count
            left = left[count:]

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read rows by number.

        Args:
            rows: (n,), int64, in any order.

        Returns:
            (n, row_bytes), uint8.

        Raises:
            StorageError: the disk fails.
        """
        out = np.empty((len(rows), self._row_bytes), dtype=np.uint8)
        if not len(rows):
            return out
        # rows that follow each other on the disk are one call to the system
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._read_into(out[start:stop].reshape(-1).data, int(rows[start]) * self._row_bytes)
        return out

    def _read_into(self, left: memoryview, offset: int) -> None:
        while left:
            try:
                count = os.preadv(self._file, [left], offset)
            except OSError as error:
                raise StorageError(f"the decoded pictures in {self._folder} cannot be read back: {error.strerror}") from error
            if count == 0:
                raise StorageError(f"the decoded pictures in {self._folder} end after {offset} bytes; start again")
            left, offset = left[count:], offset + count

    def close(self) -> None:
        """Give the space on the disk back; a spool that nothing refers to does so by itself."""
        self._finalizer()


class StreamedPictures(Pictures):
    """Pictures in a spool. Subsets share its file, and only the pictures that are asked for are in memory.

    Args:
        spool: its rows are pictures, uint8 C x H x W.
        labels: (N,), int64, on the CPU.
        shape: (C, H, W).
        rows: (N,), int64, on the CPU: the row of the spool of each picture.
        tags: what else is known of each picture, by name, each (N,), int64, on the CPU.

    Example:
        >>> spool = Spool(4, 2)
        >>> spool.append(np.arange(8, dtype=np.uint8))
        >>> StreamedPictures(spool, torch.tensor([3, 5]), (1, 2, 2), torch.arange(2)).read(torch.tensor([1])).flatten()
        tensor([4, 5, 6, 7], dtype=torch.uint8)
    """

    def __init__(
        self,
        spool: Spool,
        labels: Labels,
        shape: tuple[int, int, int],
        rows: Tensor,
        tags: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.labels = labels
        self.tags = tags or {}
        self.shape = shape
        self._spool = spool
        self._rows = rows

    def read(self, index: Tensor) -> Pixels:
        """Read the pictures at `index`, (n,) int64, from the disk as uint8 (n, C, H, W) on the CPU."""
        rows = self._rows[index.cpu()].numpy()
        return torch.from_numpy(self._spool.read(rows)).view(len(rows), *self.shape)

    def subset(self, index: Tensor) -> StreamedPictures:
        """Return the pictures at `index`, in that order; the file is shared."""
        index = index.cpu()
        tags = {name: values[index] for name, values in self.tags.items()}
        return StreamedPictures(self._spool, self.labels[index], self.shape, self._rows[index], tags)

    def relabeled(self, labels: Labels, tags: Mapping[str, Tensor]) -> StreamedPictures:
        """Return the same pictures with other labels and tags; the file is shared."""
        return StreamedPictures(self._spool, labels, self.shape, self._rows, tags)

    def to(self, device: torch.device | str) -> StreamedPictures:
        """Return itself: streamed pictures move batch by batch."""
        return self

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels, labels and tags, hexadecimal."""
        return fingerprint_of(self)
