# SPDX-License-Identifier: Apache-2.0
"""The data sets of model inversion, each in a tiny tree of its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.afhq import Afhq
from sfumato.data.base import Data, Reading
from sfumato.data.celeba import CelebA
from sfumato.data.facescrub import FaceScrub
from sfumato.data.ffhq import Ffhq
from sfumato.data.people import read_people
from sfumato.data.pubfig83 import PubFig83
from sfumato.data.source import Source
from sfumato.data.stanford_dogs import StanfordDogs
from sfumato.data.vggface2 import VggFace2
from sfumato.errors import ConfigError, CorruptPictureError, DataError, MissingDataError

TARGET, FRAME = 200, 10
ALL = (CelebA(), FaceScrub(), PubFig83(), Ffhq(), VggFace2(), StanfordDogs(), Afhq())


def framed(path: Path, size: tuple[int, int], inner: tuple[int, int, int, int], *, tone: int = TARGET) -> None:
    """Write a picture that is of one tone inside and of another around: a right crop shows the first only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), FRAME, dtype=np.uint8)
    left, top, right, bottom = inner
    pixels[top:bottom, left:right] = tone
    Image.fromarray(pixels).save(path, "PNG")  # whatever the ending says; the content decides


def tones(data: Data) -> set[int]:
    """Every value of every pixel of all pictures."""
    return {int(value) for part in data.parts.values() for value in part.read(torch.arange(len(part))).unique()}


def celeba(root: Path, table: str = "celeba/identity_CelebA.txt", folder: str = "celeba/img_align_celeba") -> Path:
    lines = []
    for number, who in enumerate([7, 7, 10, 7, 10, 2, 2, 10], start=1):
        framed(root / folder / f"{number:06}.jpg", (178, 218), (35, 55, 143, 163))
        lines.append(f"{number:06}.jpg {who}\n")
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("".join(lines))
    return root


@pytest.mark.parametrize(
    "places", [(), ("CelebA/Anno/identity_CelebA.txt", "CelebA/Img/img_align_celeba")], ids=["celeba", "official"]
)
def test_celeba(tmp_path: Path, places: tuple[str, ...]) -> None:
    data = CelebA(size=16).load(Reading(root=celeba(tmp_path, *places)))
    assert (data.name, data.classes, data.shape) == ("celeba", ("2", "7", "10"), (3, 16, 16))
    assert [part.labels.bincount().tolist() for part in data.parts.values()] == [[1, 2, 2], [1, 1, 1]]
    assert tones(data) == {TARGET}
    assert FRAME in tones(CelebA(size=16, crop=178).load(Reading(root=tmp_path)))


def test_a_line_of_celeba_that_is_none(tmp_path: Path) -> None:
    (celeba(tmp_path) / "celeba/identity_CelebA.txt").write_text("000001.jpg 7\n000002.jpg\n")
    with pytest.raises(DataError, match="identity_CelebA.txt, line 2: expected a file and a number, got '000002.jpg'"):
        CelebA().load(Reading(root=tmp_path))


def test_a_picture_of_celeba_that_is_not_there(tmp_path: Path) -> None:
    (celeba(tmp_path) / "celeba/img_align_celeba/000003.jpg").unlink()
    with pytest.raises(CorruptPictureError, match=r"000003.jpg.*--skip-bad"):
        CelebA(size=16).load(Reading(root=tmp_path))
    assert len(CelebA(size=16).load(Reading(root=tmp_path, skip_bad=True)).skipped) == 1


def test_facescrub(tmp_path: Path) -> None:
    for group, people in (("actors", ("Bo Diaz", "Al Fox")), ("actresses", ("Ann Lee",))):
        for who in people:
            for number in range(5):
                framed(tmp_path / f"facescrub/{group}/faces/{who}/{number}.jpeg", (64, 64), (5, 5, 59, 59))
    data = FaceScrub(size=16).load(Reading(root=tmp_path))
    assert (data.classes, [len(part) for part in data.parts.values()]) == (("Al Fox", "Ann Lee", "Bo Diaz"), [12, 3])
    assert tones(data) == {TARGET}
    assert FRAME in tones(FaceScrub(size=64, crop=64).load(Reading(root=tmp_path)))


def test_pubfig83(tmp_path: Path) -> None:
    for who in ("Ann Lee", "Bo Diaz"):
        for number in range(5):
            framed(tmp_path / f"pubfig83/{who}/{number}.jpg", (100, 100), (16, 16, 83, 83))
    data = PubFig83(size=16).load(Reading(root=tmp_path))
    assert (data.name, data.classes, len(data.part("train"))) == ("pubfig83", ("Ann Lee", "Bo Diaz"), 8)
    assert tones(data) == {TARGET}


def test_ffhq_takes_the_folder_with_enough_pixels(tmp_path: Path) -> None:
    for number in range(5):
        framed(tmp_path / f"ffhq/thumbnails128x128/00000/{number:05}.png", (128, 128), (20, 20, 108, 108))
        framed(tmp_path / f"ffhq/images1024x1024/00000/{number:05}.png", (256, 256), (40, 40, 216, 216), tone=TARGET + 1)
    small, large = (Ffhq(size=size).load(Reading(root=tmp_path)) for size in (64, 96))
    assert (small.classes, [len(part) for part in small.parts.values()]) == (("face",), [4, 1])
    assert (tones(small), tones(large)) == ({TARGET}, {TARGET + 1})


@pytest.fixture
def vggface2(tmp_path: Path) -> Path:
    """Faces of 100x200 at 30, 40 that grow to 130x260 by 0.3, and of which the middle 113x113 is taken."""
    rows = ["NAME_ID,X,Y,W,H"]
    for who in ("n000001", "n000002", "n000003"):
        for number in range(5):
            framed(tmp_path / f"vggface2/train/{who}/{number:04}_01.jpg", (220, 320), (22, 82, 138, 198))
            rows.append(f"{who}/{number:04}_01,30,40,100,200")
    (tmp_path / "vggface2/bb_landmark").mkdir()
    (tmp_path / "vggface2/bb_landmark/loose_bb_train.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_vggface2(vggface2: Path) -> None:
    data = VggFace2(size=16).load(Reading(root=vggface2))
    assert (data.classes, len(data.part("train"))) == (("n000001", "n000002", "n000003"), 12)
    assert tones(data) == {TARGET}
    assert VggFace2(size=16, identities=2).load(Reading(root=vggface2)).classes == ("n000001", "n000002")
    (vggface2 / "vggface2/bb_landmark/loose_bb_train.csv").unlink()
    assert FRAME in tones(VggFace2(size=16, boxes=False).load(Reading(root=vggface2)))
    with pytest.raises(MissingDataError, match="loose_bb_train.csv"):
        VggFace2(size=16).load(Reading(root=vggface2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NAME,X\n", "expected the columns NAME_ID, X, Y, W, H, got NAME, X"),
        ("NAME_ID,X,Y,W,H\nn000001/0000_01,1,2,3\n", "line 2: expected a name and four numbers"),
        ("NAME_ID,X,Y,W,H\nn000001/0000_01,1,2,3,wide\n", "line 2: expected a name and four numbers"),
        ("NAME_ID,X,Y,W,H\nn000002/0000_01,1,2,30,40\n", "0000_01.jpg: expected its box in .*boxes = false"),
    ],
)
def test_boxes_of_vggface2_that_are_none(vggface2: Path, text: str, message: str) -> None:
    (vggface2 / "vggface2/bb_landmark/loose_bb_train.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        VggFace2(size=16, identities=1).load(Reading(root=vggface2))


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    sides = "<xmin>10</xmin>\n<ymin>20</ymin>\n<xmax>50</xmax>\n<ymax>60</ymax>"
    for breed in ("n02085620-Chihuahua", "n02085782-Japanese_spaniel"):
        for number in range(5):
            name = f"{breed}/{breed.split('-')[0]}_{number}"
            framed(tmp_path / f"stanford-dogs/Images/{name}.jpg", (80, 100), (10, 20, 50, 60))
            annotation = tmp_path / f"stanford-dogs/Annotation/{name}"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(f"<annotation><object><bndbox>{sides}</bndbox></object></annotation>")
    return tmp_path


def test_stanford_dogs(dogs: Path) -> None:
    data = StanfordDogs(size=16, boxes=True).load(Reading(root=dogs))
    assert (data.classes, len(data.part("test"))) == (("Chihuahua", "Japanese_spaniel"), 2)
    assert tones(data) == {TARGET}
    assert FRAME in tones(StanfordDogs(size=16).load(Reading(root=dogs)))


@pytest.mark.parametrize("text", [None, "<xmin>10</xmin><ymin>20</ymin><xmax>50</xmax>"])
def test_a_dog_without_a_box(dogs: Path, text: str | None) -> None:
    annotation = dogs / "stanford-dogs/Annotation/n02085620-Chihuahua/n02085620_3"
    annotation.unlink()
    if text is not None:
        annotation.write_text(text)
    with pytest.raises(DataError, match=r"n02085620_3: expected an annotation with xmin, ymin, xmax, ymax"):
        StanfordDogs(size=16, boxes=True).load(Reading(root=dogs))


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_afhq(tmp_path: Path, held_out: str) -> None:
    for tone, animal in enumerate(("cat", "dog", "wild"), start=100):
        for part, count in (("train", 3), (held_out, 1)):
            for number in range(count):
                framed(tmp_path / f"afhq/{part}/{animal}/{number}.png", (32, 32), (0, 0, 32, 32), tone=tone)
    every, dogs = Afhq(size=8).load(Reading(root=tmp_path)), Afhq(size=8, animal="dog").load(Reading(root=tmp_path))
    assert (every.classes, [len(part) for part in every.parts.values()]) == (("cat", "dog", "wild"), [9, 3])
    assert (dogs.classes, [len(part) for part in dogs.parts.values()]) == (("dog",), [3, 1])
    assert tones(dogs) == {101}
    (tmp_path / f"afhq/{held_out}/wild/0.png").unlink()
    (tmp_path / f"afhq/{held_out}/wild").rmdir()
    with pytest.raises(DataError, match="found no wild"):
        Afhq().load(Reading(root=tmp_path))


@pytest.mark.parametrize("source", ALL, ids=lambda source: type(source).__name__)
def test_missing(source: Source, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"its files are not there. Looked for(.|\n)*\(missing\)"):
        source.load(Reading(root=tmp_path))


@pytest.mark.parametrize("make", [CelebA, FaceScrub, PubFig83, Ffhq])
@pytest.mark.parametrize("crop", [0, 500])
def test_crop_out_of_range(make: Callable[..., Source], crop: int) -> None:
    with pytest.raises(ConfigError, match=f"crop must be from 1 to .*got {crop}"):
        make(crop=crop)


def test_arguments_out_of_range() -> None:
    with pytest.raises(ConfigError, match="did you mean .dog."):
        Afhq(animal="dogs")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean .train."):
        VggFace2(people="trian")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="identities must be at least 1"):
        VggFace2(identities=0)


def test_somebody_who_is_tested_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected pictures of \('ann',\) in test, found \['bo'\]"):
        read_people("a", {"train": {"ann": [tmp_path]}, "test": {"bo": [tmp_path]}}, Reading(), size=8)
    with pytest.raises(DataError, match="expected pictures of somebody in train, found nobody"):
        read_people("a", {"train": {}}, Reading(), size=8)
