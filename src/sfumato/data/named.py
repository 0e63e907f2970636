# SPDX-License-Identifier: Apache-2.0
"""Data sets that lie below the data root as a folder with train.parquet and test.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.parquet import Columns, read_parquet
from sfumato.data.source import Found, Layout, locate

FILES = ("train.parquet", "test.parquet")
"""The files of such a folder."""


def load_named(name: str, folders: Sequence[str], reading: Reading, *, size: int | None = None) -> Data:
    """Read the first complete one of some folders below the data root.

    Args:
        name: of the data set, for the message where nothing is found.
        folders: below the root; each holds train.parquet and test.parquet.
        reading: how to read.
        size: side of the square that pictures are brought to; None keeps them.

    Returns:
        Data named as its folder.

    Raises:
        MissingDataError: no folder is complete.
    """
    return load_found(locate(name, [Layout(Path(folder), FILES) for folder in folders], reading), reading, size=size)


def load_found(found: Found, reading: Reading, *, size: int | None = None) -> Data:
    """Read a layout of two parquet files, train and test, that was found."""
    train, test = found.paths
    return read_parquet(found.layout.folder.name, {"train": train, "test": test}, reading, columns=Columns(), size=size)
