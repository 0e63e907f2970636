# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

import sfumato as sf
from sfumato import registry
from sfumato.data.base import Reading
from sfumato.data.parquet import Parquet
from sfumato.data.reid import check_identities
from sfumato.data.reid_parquet import ReidParquet
from sfumato.errors import DataError, MissingDataError


@pytest.fixture
def write(write_parquet: Callable[..., Path]) -> Callable[..., Path]:
    return partial(write_parquet, label="identity")


Write = Callable[..., Path]


def test_files_of_all_parts(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "pets/train.parquet", ["b", "a", "b", "a"], camera=[3, 3, 1, 2])
    write(tmp_path / "pets/query.parquet", ["c", "a"], camera=[1, 1])
    write(tmp_path / "pets/gallery.parquet", ["a", "c", "d"], camera=[2, 3, 1])
    data = ReidParquet(path=tmp_path / "pets", size=None).load(Reading())
    assert (data.name, data.classes, data.shape) == ("pets", ("a", "b"), (3, 8, 8))
    assert data.part("train").labels.tolist() == [1, 0, 1, 0]
    assert data.part("train").tags["camera"].tolist() == [2, 2, 0, 1]
    assert data.part("query").labels.tolist() == [2, 0]
    assert data.part("gallery").labels.tolist() == [0, 2, 3]
    check_identities(data)


def test_one_file_and_a_file_to_test(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "a.parquet", [1, 2, 3, 4, 5] * 4, camera=["x"] * 10 + ["y"] * 10)
    data = ReidParquet(path=path, size=4).load(Reading())
    assert [len(data.part(part)) for part in ("train", "test", "query", "gallery")] == [12, 8, 4, 4]
    write(tmp_path / "b/train.parquet", [1, 1], camera=[1, 2])
    write(tmp_path / "b/test.parquet", [2, 2], camera=[1, 2])
    source = registry.create("datasets", "reid-parquet", {"path": str(tmp_path / "b"), "size": 4})
    assert isinstance(source, ReidParquet)
    assert [len(part) for part in source.load(Reading()).parts.values()] == [2, 2, 1, 1]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_columns_of_other_names_and_types(tmp_path: Path, write_parquet: Write, kind: pa.DataType) -> None:
    people, places = pa.array(["b", "a", "a"] * 2).cast(kind), pa.array([*"xxxyyy"]).cast(kind)
    write_parquet(tmp_path / "a/train.parquet", people, image="photo", label="dog", place=places)
    write_parquet(tmp_path / "a/test.parquet", people, image="photo", label="dog", place=places)
    data = ReidParquet(path=tmp_path / "a", size=None, image="photo", identity="dog", camera="place").load(Reading())
    assert data.classes == ("a", "b")
    assert data.part("train").tags["camera"].tolist() == [0, 0, 0, 1, 1, 1]


def test_by_name_only(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "a.parquet", ["a", "b"] * 4, camera=[1, 1, 2, 2] * 2, kind=[0, 0, 1, 1] * 2)
    assert sf.load_data(Parquet(path=path, label="kind")).task == "classification"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "expected a column camera, found image, identity; name yours with image= and identity= and camera="),
        ({"camera": [1.0, 2.0]}, "column camera must hold integers or strings, got double; name another with camera="),
        ({"camera": [1, None]}, "row 1: no camera; fill it in"),
        ({"camera": [1, 2], "label": "who"}, "expected a column identity, found image, who, camera"),
        ({"camera": [1, 2], "image": "photo"}, "expected a column image"),
    ],
)
def test_wrong_columns(tmp_path: Path, write: Write, columns: dict[str, object], message: str) -> None:
    path = write(tmp_path / "a.parquet", ["a", "a"], **columns)
    with pytest.raises(DataError, match=message):
        ReidParquet(path=path).load(Reading())


def test_missing_files(tmp_path: Path, write: Write) -> None:
    with pytest.raises(MissingDataError, match="nothing is there"):
        ReidParquet(path=tmp_path / "a.parquet").load(Reading())
    with pytest.raises(MissingDataError, match="looked for train.parquet in"):
        ReidParquet(path=tmp_path).load(Reading())
    write(tmp_path / "b/train.parquet", [1, 1], camera=[1, 2])
    write(tmp_path / "b/gallery.parquet", [2, 2], camera=[1, 2])
    with pytest.raises(MissingDataError, match="b: query and gallery belong together, found only gallery"):
        ReidParquet(path=tmp_path / "b").load(Reading())
