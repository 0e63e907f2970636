# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import sfumato as sf
from sfumato.data.base import Reading
from sfumato.data.reid_folder import ReidFolder
from sfumato.errors import DataError, MissingDataError

MakeFolder = Callable[..., Path]


def put(make_folder: MakeFolder, folder: Path, individuals: str, cameras: tuple[str, ...] = ("door", "yard")) -> Path:
    """Write two pictures of each individual by each camera."""
    for individual in individuals:
        make_folder(folder / individual, cameras, 2)
    return folder


def test_all_parts(tmp_path: Path, make_folder: MakeFolder) -> None:
    put(make_folder, tmp_path / "pets/train", "ab")
    put(make_folder, tmp_path / "pets/query", "cd", ("door",))
    put(make_folder, tmp_path / "pets/gallery", "cde", ("yard",))
    data = ReidFolder(path=str(tmp_path / "pets"), size=None).load(Reading())
    assert (data.name, data.classes, data.shape) == ("pets", ("a", "b"), (3, 8, 8))
    assert data.part("train").labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert data.part("train").tags["camera"].tolist() == [0, 0, 1, 1] * 2
    assert data.part("query").labels.tolist() == [2, 2, 3, 3]
    assert data.part("gallery").labels.tolist() == [2, 2, 3, 3, 4, 4]
    assert data.part("gallery").tags["camera"].tolist() == [1] * 6


def test_a_test_is_divided_and_individuals_are_held_out(tmp_path: Path, make_folder: MakeFolder) -> None:
    put(make_folder, tmp_path / "a/train", "ab")
    put(make_folder, tmp_path / "a/test", "cd")
    data = ReidFolder(path=tmp_path / "a", size=4).load(Reading())
    assert [len(data.part(part)) for part in ("train", "test", "query", "gallery")] == [8, 8, 4, 4]
    put(make_folder, tmp_path / "b", "abcde")
    trained = [ReidFolder(path=tmp_path / "b", size=4, seed=seed).load(Reading()) for seed in (0, 0, 1, 2, 3)]
    assert [len(trained[0].part(part)) for part in ("train", "test", "query", "gallery")] == [12, 8, 4, 4]
    assert trained[0].classes == trained[1].classes
    assert len({data.classes for data in trained}) > 1


def test_by_name_only(tmp_path: Path, make_folder: MakeFolder) -> None:
    path = put(make_folder, tmp_path / "pets", "abcd")
    assert sf.load_data(path).task == "classification"
    assert sf.load_data(ReidFolder(path=path, size=4)).task == "reidentification"
    assert sf.load_data("reid-folder", options={"path": str(path), "size": 4}).task == "reidentification"


def test_a_camera_is_missing(tmp_path: Path, make_folder: MakeFolder) -> None:
    path = make_folder(tmp_path / "pets", ("anna", "ben"))
    with pytest.raises(DataError, match=r"pets/anna: expected a folder for each camera, found none; .*IDENTITY/CAMERA/"):
        ReidFolder(path=path).load(Reading())


def test_a_picture_without_a_camera_is_not_passed_over(tmp_path: Path, make_folder: MakeFolder) -> None:
    path = put(make_folder, tmp_path / "pets", "abcd")
    picture = next((path / "c/door").iterdir())
    picture.rename(path / "c" / picture.name)
    (path / "c/notes.txt").touch()
    with pytest.raises(DataError, match=rf"pets/c/{picture.name}: expected pictures in a folder for each camera"):
        ReidFolder(path=path).load(Reading())


def test_paths_that_are_wrong(tmp_path: Path, make_folder: MakeFolder) -> None:
    with pytest.raises(MissingDataError, match="nowhere"):
        ReidFolder(path=tmp_path / "nowhere").load(Reading())
    with pytest.raises(DataError, match="a folder for each individual, found none"):
        ReidFolder(path=tmp_path).load(Reading())
    (tmp_path / "file.parquet").touch()
    with pytest.raises(DataError, match="got a file; for parquet use reid-parquet"):
        ReidFolder(path=tmp_path / "file.parquet").load(Reading())
    put(make_folder, tmp_path / "pets/train", "ab")
    put(make_folder, tmp_path / "pets/query", "ab")
    with pytest.raises(MissingDataError, match="pets: query and gallery belong together, found only query"):
        ReidFolder(path=tmp_path / "pets").load(Reading())
    (tmp_path / "pets/train/a/attic").mkdir()
    with pytest.raises(DataError, match="a/attic: expected pictures"):
        ReidFolder(path=tmp_path / "pets").load(Reading())
