# SPDX-License-Identifier: Apache-2.0
"""Parquet files with an image and a label in every row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sfumato.data.base import Data, Reading
from sfumato.data.decode import EncodedPart, decode_parts
from sfumato.data.partition import split_test
from sfumato.data.picture import Encoded
from sfumato.data.source import Source, require
from sfumato.errors import DataError, MissingDataError

_NAMES = "label_name"
_BATCH_BYTES = 1 << 20
_MOST_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold what.

    Args:
        image: encoded pictures: bytes, or a struct with a field `bytes` as Hugging Face writes it.
        label: integers or strings. With integers, a column "label_name" gives the names of the classes.
    """

    image: str = "image"
    label: str = "label"


@dataclass(frozen=True, kw_only=True)
class Parquet(Source):
    """Any parquet file with an image and a label in every row.

    Args:
        path: of the file, or of a folder with train.parquet and perhaps test.parquet or val.parquet.
        test: the file of the test part; None takes the folder's, else splits 20 % of every class off.
        size: side of the square that pictures are brought to; None keeps them.
        image: the column of encoded pictures.
        label: the column of labels, integers or strings; classes are numbered in the order of their sorted values.
        seed: of the split.
    """

    path: str | Path
    test: str | Path | None = None
    size: int | None = None
    image: str = "image"
    label: str = "label"
    seed: int = 0

    def load(self, reading: Reading) -> Data:
        """Read the pictures."""
        path = require("parquet", Path(self.path))
        files = self._files(path)
        columns = Columns(image=self.image, label=self.label)
        return read_parquet(path.stem, files, reading, columns=columns, size=self.size, seed=self.seed)

    def _files(self, path: Path) -> dict[str, Path]:
        test = None if self.test is None else require("parquet", Path(self.test))
        train = path / "train.parquet" if path.is_dir() else path
        if not train.exists():
            raise MissingDataError(f"parquet: looked for train.parquet in {path}; put it there, or give the path of a file")
        if test is None and path.is_dir():
            test = next((file for file in (path / "test.parquet", path / "val.parquet") if file.exists()), None)
        return {"train": train} if test is None else {"train": train, "test": test}


def read_parquet(
    name: str, files: Mapping[str, Path], reading: Reading, *, columns: Columns, size: int | None = None, seed: int = 0
) -> Data:
    """Read a data set from parquet files, in bounded chunks.

    Args:
        name: of the data set.
        files: by part: `train`, and `test` unless that is split off.
        reading: gives the budget, and says whether bad rows are skipped.
        columns: which columns hold pictures and labels.
        size: side of the square that pictures are brought to; None keeps them.
        seed: of the split where there is no test file.

    Returns:
        Data with the parts `train` and `test`.

    Raises:
        DataError: a file is not parquet, lacks a column, has a column of another type, or a class that `train` has not.
        CorruptPictureError: a row cannot be decoded, and bad ones are not skipped.
    """
    labels = {part: _read_labels(path, columns) for part, path in files.items()}
    values = sorted(labels["train"].distinct)
    for part, path in files.items():
        if foreign := sorted(set(labels[part].distinct) - set(values)):
            raise DataError(
                f"{path}: classes that {files['train'].name} has not: {foreign[:5]}; both files must have the same classes"
            )
    parts = {part: encoded_part(path, columns.image, labels[part].numbers(values)) for part, path in files.items()}
    decoded = decode_parts(parts, size=size, reading=reading)
    pictures = decoded.parts if "test" in decoded.parts else split_test(decoded.parts["train"], seed=seed)
    return Data(name=name, classes=labels["train"].classes(values), parts=pictures, skipped=decoded.skipped)


@dataclass(frozen=True)
class _LabelColumn:
    """The labels of a file: the distinct ones, which of them each row has, and the pairs of label and name that occur."""

    distinct: list[Any]
    rows: npt.NDArray[np.int64]
    pairs: list[tuple[Any, Any]]

    def numbers(self, values: list[Any]) -> npt.NDArray[np.int64]:
        """Return the class number of each row, the place of its label among `values`."""
        return np.array([values.index(value) for value in self.distinct], dtype=np.int64)[self.rows]

    def classes(self, values: list[Any]) -> tuple[str, ...]:
        """Name the classes by the column of names, where each class has exactly one."""
        if [label for label, _ in self.pairs] == values:
            return tuple(str(name) for _, name in self.pairs)
        return tuple(str(value) for value in values)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a parquet file, but it cannot be read ({error}); write or get it again") from error
    finally:
        pa.default_memory_pool().release_unused()  # else the allocator keeps tens of MiB


def _read_labels(path: Path, columns: Columns) -> _LabelColumn:
    with _opened(path) as file:
        schema = file.schema_arrow
        _check_columns(path, schema, {"image": columns.image, "label": columns.label})
        named = _NAMES in schema.names and pa.types.is_integer(schema.field(columns.label).type)
        place: dict[Any, int] = {}
        pairs: set[tuple[Any, Any]] = set()
        rows: list[npt.NDArray[np.int64]] = []
        wanted = [columns.label, _NAMES] if named else [columns.label]
        # plain Python on one batch at a time: the first call of a compute function costs pyarrow tens of MiB
        for batch in file.iter_batches(batch_size=_MOST_ROWS, columns=wanted, use_threads=False):
            values = batch.column(columns.label).to_pylist()
            if None in values:
                raise DataError(f"{path}, row {sum(map(len, rows)) + values.index(None)}: no label; fill it in or remove the row")
            rows.append(np.array([place.setdefault(value, len(place)) for value in values], dtype=np.int64))
            pairs.update(zip(values, batch.column(_NAMES).to_pylist(), strict=True) if named else ())
    joined = np.concatenate([np.empty(0, np.int64), *rows])
    return _LabelColumn(list(place), joined, sorted(pairs, key=lambda pair: (pair[0], str(pair[1]))))


def read_values(path: Path, *, image: str, values: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Read columns of integers or strings that say something of each picture.

    Args:
        path: of the file.
        image: the column of encoded pictures, which must be there.
        values: the column of each value, by the key that a user names it with.

    Returns:
        The values of each key, row by row, as strings.

    Raises:
        DataError: the file is not parquet, lacks a column, has a column of another type, or a row without a value.
    """
    with _opened(path) as file:
        _check_columns(path, file.schema_arrow, {"image": image, **values})
        read: dict[str, list[str]] = {key: [] for key in values}
        for batch in file.iter_batches(batch_size=_MOST_ROWS, columns=[*values.values()], use_threads=False):
            for key, name in values.items():
                cells = batch.column(name).to_pylist()
                if None in cells:
                    raise DataError(f"{path}, row {len(read[key]) + cells.index(None)}: no {name}; fill it in or remove the row")
                read[key] += map(str, cells)
    return {key: tuple(cells) for key, cells in read.items()}


def _check_columns(path: Path, schema: pa.Schema, wanted: Mapping[str, str]) -> None:
    """Refuse a file without the wanted columns, by the key that a user names each with, or with others than such."""
    missing = [name for name in wanted.values() if name not in schema.names]
    if missing:
        columns, keys = " and a column ".join(missing), " and ".join(f"{key}=" for key in wanted)
        raise DataError(f"{path}: expected a column {columns}, found {', '.join(schema.names)}; name yours with {keys}")
    for key, name in wanted.items():
        kind = schema.field(name).type
        _check_image(path, name, kind) if key == "image" else _check_value(path, name, kind, key)


def _check_image(path: Path, name: str, kind: pa.DataType) -> None:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"{path}: column {name} must hold bytes, or a struct with a field bytes, got {kind}; name another with image="
        )


def _check_value(path: Path, name: str, kind: pa.DataType, key: str) -> None:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{path}: column {name} must hold integers or strings, got {kind}; name another with {key}=")


def encoded_part(path: Path, image: str, numbers: npt.NDArray[np.int64]) -> EncodedPart:
    """Return the encoded pictures of a file, with the class number of each row.

    Args:
        path: of the file.
        image: the column of encoded pictures.
        numbers: (N,), one for each row.
    """

    def pictures() -> Iterator[Encoded]:
        with _opened(path) as file:
            cells = _cells(file, image)
            for row, (cell, number) in enumerate(zip(cells, numbers.tolist(), strict=True)):
                yield Encoded(f"{path}, row {row}", cell or b"", number)

    return EncodedPart(len(numbers), pictures)


def _cells(file: pq.ParquetFile, name: str) -> Iterator[bytes | None]:
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    average = sum(group.total_byte_size for group in groups) // max(1, file.metadata.num_rows)
    rows = min(_MOST_ROWS, max(1, _BATCH_BYTES // max(1, average)))  # so that the encoded pictures in memory are bounded too
    for batch in file.iter_batches(batch_size=rows, columns=[name], use_threads=False):
        column = batch.column(0)
        if pa.types.is_struct(column.type):
            column = column.flatten()[column.type.get_field_index("bytes")]
        yield from column.to_pylist()
        pa.default_memory_pool().release_unused()
