# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from sfumato.data.base import Reading
from sfumato.data.parquet import Parquet
from sfumato.errors import CorruptPictureError, DataError, MissingDataError

Write = Callable[..., Path]
MakeBytes = Callable[..., bytes]


def test_split_of_one_file(tmp_path: Path, write_parquet: Write) -> None:
    data = Parquet(path=write_parquet(tmp_path / "pets.parquet", [0, 1] * 5)).load(Reading())
    assert (data.name, data.classes) == ("pets", ("0", "1"))
    assert data.part("train").labels.bincount().tolist() == [4, 4]


@pytest.mark.parametrize("inner", ["test", "val"])
def test_folder_of_files(tmp_path: Path, write_parquet: Write, inner: str) -> None:
    write_parquet(tmp_path / "pets/train.parquet", [0, 1, 1])
    write_parquet(tmp_path / f"pets/{inner}.parquet", [1])
    data = Parquet(path=tmp_path / "pets").load(Reading())
    assert data.part("train").labels.tolist() == [0, 1, 1]
    assert data.part("test").labels.tolist() == [1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_string_labels(tmp_path: Path, write_parquet: Write, kind: pa.DataType) -> None:
    path = write_parquet(tmp_path / "a.parquet", pa.array(["dog", "cat", "dog"]).cast(kind))
    data = Parquet(path=path, test=path).load(Reading())
    assert data.classes == ("cat", "dog")
    assert data.part("train").labels.tolist() == [1, 0, 1]


def test_integers_with_gaps_and_names(tmp_path: Path, write_parquet: Write) -> None:
    gaps = write_parquet(tmp_path / "a.parquet", [7, 3, 7])
    assert Parquet(path=gaps, test=gaps).load(Reading()).classes == ("3", "7")
    named = write_parquet(tmp_path / "b.parquet", [7, 3, 7], label_name=["z", "b", "z"])
    assert Parquet(path=named, test=named).load(Reading()).classes == ("b", "z")
    torn = write_parquet(tmp_path / "c.parquet", [7, 3, 7], label_name=["z", "b", "y"])
    assert Parquet(path=torn, test=torn).load(Reading()).classes == ("3", "7")


def test_hugging_face_form_and_column_names(tmp_path: Path, write_parquet: Write, picture_bytes: MakeBytes) -> None:
    cells = [{"bytes": picture_bytes(seed, mode="L"), "path": None} for seed in range(2)]
    path = write_parquet(tmp_path / "a.parquet", [0, 1], image="img", label="fine_label", cells=cells)
    data = Parquet(path=path, test=path, image="img", label="fine_label").load(Reading())
    assert data.shape == (1, 8, 8)


@pytest.mark.parametrize("budget", [1 << 20, 500])
def test_rows_keep_their_order_over_many_batches(
    tmp_path: Path, write_parquet: Write, picture_bytes: MakeBytes, budget: int
) -> None:
    labels = list(range(50)) * 60
    pictures = [picture_bytes(seed, width=2, height=2) for seed in range(50)]
    path = write_parquet(tmp_path / "a.parquet", labels, cells=[pictures[label] for label in labels])
    train = Parquet(path=path, test=path).load(Reading(budget=budget, spool=tmp_path)).part("train")
    assert train.labels.tolist() == labels
    first = train.read(train.labels[:50])
    for start in range(0, 3000, 500):
        assert bool((train.read(train.labels[:50] + start) == first).all())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "picture"}, "expected a column image, found picture, label"),
        ({"image": "a", "label": "b"}, "expected a column image and a column label, found a, b"),
        ({"cells": [1, 2]}, "column image must hold bytes"),
        ({"cells": [{"path": "a"}, {"path": "b"}]}, "column image must hold bytes"),
    ],
)
def test_wrong_columns(tmp_path: Path, write_parquet: Write, columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Parquet(path=write_parquet(tmp_path / "a.parquet", [0, 1], **columns)).load(Reading())


def test_wrong_labels(tmp_path: Path, write_parquet: Write) -> None:
    with pytest.raises(DataError, match="integers or strings, got double"):
        Parquet(path=write_parquet(tmp_path / "a.parquet", [0.5, 1.0])).load(Reading())
    with pytest.raises(DataError, match="a.parquet, row 1: no label"):
        Parquet(path=write_parquet(tmp_path / "a.parquet", [0, None])).load(Reading())


def test_class_that_train_has_not(tmp_path: Path, write_parquet: Write) -> None:
    train, test = write_parquet(tmp_path / "a.parquet", [0, 1]), write_parquet(tmp_path / "b.parquet", [2])
    with pytest.raises(DataError, match=r"b.parquet: classes that a.parquet has not: \[2\]"):
        Parquet(path=train, test=test).load(Reading())


@pytest.mark.parametrize("bad", [b"broken", b"", None])
def test_corrupt_row(tmp_path: Path, write_parquet: Write, picture_bytes: MakeBytes, bad: bytes | None) -> None:
    cells = [picture_bytes(seed) for seed in range(5)]
    cells[3] = bad  # type: ignore[call-overload]
    path = write_parquet(tmp_path / "a.parquet", [0, 1, 0, 1, 0], cells=cells)
    with pytest.raises(CorruptPictureError, match="a.parquet, row 3: .*--skip-bad"):
        Parquet(path=path, test=path).load(Reading())
    data = Parquet(path=path, test=path).load(Reading(skip_bad=True))
    assert data.skipped == (f"{path}, row 3",) * 2
    assert data.part("train").labels.tolist() == [0, 1, 0, 0]


def test_files_that_are_not_parquet(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1])
    content = path.read_bytes()
    for broken in (b"", b"text", content[: len(content) // 2]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="a.parquet: expected a parquet file"):
            Parquet(path=path).load(Reading())


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="nothing is there"):
        Parquet(path=tmp_path / "a.parquet").load(Reading())
    with pytest.raises(MissingDataError, match="looked for train.parquet in"):
        Parquet(path=tmp_path).load(Reading())


def test_empty_file(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "a.parquet", pa.array([], pa.int64()), cells=pa.array([], pa.binary()))
    with pytest.raises(DataError, match="at least one picture"):
        Parquet(path=path).load(Reading())
