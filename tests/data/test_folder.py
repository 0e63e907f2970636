# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.folder import Folder
from sfumato.errors import CorruptPictureError, DataError, MissingDataError

MakeFolder = Callable[..., Path]


def test_classes_and_split(tmp_path: Path, make_folder: MakeFolder) -> None:
    data = Folder(path=make_folder(tmp_path / "pets")).load(Reading())
    assert (data.name, data.classes, data.shape) == ("pets", ("cat", "dog"), (3, 8, 8))
    assert data.part("train").labels.bincount().tolist() == [4, 4]
    assert data.part("test").labels.bincount().tolist() == [1, 1]


@pytest.mark.parametrize("inner", ["test", "val"])
def test_train_and_test_below_the_path(tmp_path: Path, make_folder: MakeFolder, inner: str) -> None:
    make_folder(tmp_path / "pets/train")
    make_folder(tmp_path / "pets" / inner, count=2)
    data = Folder(path=str(tmp_path / "pets")).load(Reading())
    assert data.name == "pets"
    assert [len(part) for part in data.parts.values()] == [10, 4]


def test_given_test(tmp_path: Path, make_folder: MakeFolder) -> None:
    data = Folder(path=make_folder(tmp_path / "a"), test=make_folder(tmp_path / "b", count=3)).load(Reading())
    assert [len(part) for part in data.parts.values()] == [10, 6]


def test_seed_chooses_the_split(tmp_path: Path, make_folder: MakeFolder) -> None:
    path = make_folder(tmp_path / "pets", count=20)
    prints = [Folder(path=path, seed=seed).load(Reading()).part("test").fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_other_files_are_passed_over(tmp_path: Path, make_folder: MakeFolder) -> None:
    path = make_folder(tmp_path / "pets")
    for name in ("notes.txt", ".hidden.png", "cat/Thumbs.db", "cat/.DS_Store", "dog/._1.png"):
        (path / name).write_bytes(b"no picture")
    (path / ".git").mkdir()
    assert len(Folder(path=path).load(Reading()).part("train")) == 8


def test_deeper_pictures_and_upper_case(tmp_path: Path, make_folder: MakeFolder, picture_bytes: Callable[..., bytes]) -> None:
    path = make_folder(tmp_path / "pets")
    (path / "cat/old").mkdir()
    (path / "cat/old/9.JPG").write_bytes(picture_bytes(form="JPEG"))
    data = Folder(path=path).load(Reading())
    assert sum(len(part) for part in data.parts.values()) == 11


def test_other_classes_in_test(tmp_path: Path, make_folder: MakeFolder) -> None:
    train, test = make_folder(tmp_path / "a"), make_folder(tmp_path / "b", ("cat", "cow"))
    with pytest.raises(DataError, match=r"lacks \['dog'\] and has \['cow'\] more"):
        Folder(path=train, test=test).load(Reading())


def test_corrupt_picture(tmp_path: Path, make_folder: MakeFolder) -> None:
    path = make_folder(tmp_path / "pets")
    (path / "dog/3.png").write_bytes(b"\x89PNG")
    with pytest.raises(CorruptPictureError, match=r"dog/3.png: .*--skip-bad"):
        Folder(path=path).load(Reading())
    data = Folder(path=path).load(Reading(skip_bad=True))
    assert data.skipped == (str(path.resolve() / "dog/3.png"),)
    assert sum(len(part) for part in data.parts.values()) == 9


def test_unequal_sizes(tmp_path: Path, make_folder: MakeFolder, picture_bytes: Callable[..., bytes]) -> None:
    path = make_folder(tmp_path / "pets")
    (path / "cat/1.png").write_bytes(picture_bytes(width=12))
    with pytest.raises(DataError, match=r"cat/0.png is 8x8 and .*cat/1.png is 12x8.*give size="):
        Folder(path=path).load(Reading())
    assert Folder(path=path, size=6).load(Reading()).shape == (3, 6, 6)


def test_paths_that_are_wrong(tmp_path: Path, make_folder: MakeFolder) -> None:
    with pytest.raises(MissingDataError, match="nowhere"):
        Folder(path=tmp_path / "nowhere").load(Reading())
    with pytest.raises(DataError, match="a folder for each class, found none"):
        Folder(path=tmp_path).load(Reading())
    (tmp_path / "file.txt").touch()
    with pytest.raises(DataError, match="got a file"):
        Folder(path=tmp_path / "file.txt").load(Reading())
    path = make_folder(tmp_path / "pets")
    (path / "cow").mkdir()
    with pytest.raises(DataError, match="cow: expected pictures"):
        Folder(path=path).load(Reading())
