# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.tiny_imagenet import TinyImageNet
from sfumato.errors import CorruptPictureError, DataError, MissingDataError


@pytest.fixture
def root(tmp_path: Path, picture_bytes: Callable[..., bytes]) -> Path:
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val/images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n02\nn01\n")
    lines = []
    for number, name in enumerate(("n02", "n01")):
        (folder / "train" / name / "images").mkdir(parents=True)
        for place in range(3):
            content = picture_bytes(place, form="JPEG", mode="L" if place == 1 else "RGB")
            (folder / "train" / name / "images" / f"{name}_{place}.JPEG").write_bytes(content)
        (folder / "val/images" / f"val_{number}.JPEG").write_bytes(picture_bytes(number, form="JPEG"))
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t7\t7\n")
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    return tmp_path


def test_official_folders(root: Path) -> None:
    data = TinyImageNet().load(Reading(root=root))
    assert data.classes == ("n02", "n01")
    assert data.shape == (3, 8, 8)
    assert data.part("train").labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.part("test").labels.tolist() == [0, 1]


def test_annotation_of_an_unknown_class(root: Path) -> None:
    (root / "tiny-imagenet-200/val/val_annotations.txt").write_text("val_0.JPEG\tn99\t0\t0\t7\t7\n")
    with pytest.raises(DataError, match="val_annotations.txt, line 1"):
        TinyImageNet().load(Reading(root=root))


def test_picture_that_is_not_there(root: Path) -> None:
    (root / "tiny-imagenet-200/val/images/val_1.JPEG").unlink()
    with pytest.raises(CorruptPictureError, match="val_1.JPEG"):
        TinyImageNet().load(Reading(root=root))


def test_class_without_pictures(root: Path) -> None:
    for path in (root / "tiny-imagenet-200/train/n01/images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="class n01, found none"):
        TinyImageNet().load(Reading(root=root))


def test_missing_names_both_layouts(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="(?s)wnids.txt.*val.parquet"):
        TinyImageNet().load(Reading(root=tmp_path))


def test_real_subset(shared: Path) -> None:
    data = TinyImageNet().load(Reading(root=shared))
    assert (data.name, data.shape, len(data.classes)) == ("tiny-imagenet-50c", (3, 64, 64), 50)
    assert data.part("test").labels.bincount().tolist() == [50] * 50
