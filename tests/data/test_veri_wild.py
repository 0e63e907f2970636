# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import sfumato as sf
from sfumato import registry
from sfumato.data.base import Reading
from sfumato.data.reid import check_identities
from sfumato.data.veri_wild import VeriWild
from sfumato.errors import ConfigError, DataError, MissingDataError

TRAIN = ["00001/000001", "00001/000002", "00003/000010", "00003/000011"]
QUERY = ["30672/000100", "30673/000110"]
GALLERY = ["30672/000101", "30672/000102", "30673/000111"]
CAMERAS = [73, 81, 73, 9, 73, 73, 73, 9, 81]


@pytest.fixture
def root(tmp_path: Path, picture_bytes: Callable[..., bytes]) -> Path:
    folder = tmp_path / "VERI-Wild"
    (folder / "train_test_split").mkdir(parents=True)
    info = ["id/image;Camera ID;Time;Model;Type;Color"]
    for number, (name, camera) in enumerate(zip([*TRAIN, *QUERY, *GALLERY], CAMERAS, strict=True)):
        path = folder / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes(number, height=10 + number, form="JPEG"))
        info.append(f"{name};{camera};2018-03-01 10:00:00;Volkswagen;Sedan;white")
    (folder / "train_test_split/vehicle_info.txt").write_text("\n".join(info))
    return folder


def write_lists(folder: Path, *, vehicles: int, fields: bool, train: str = "train_list.txt") -> None:
    """Write the lists as one or the other release has them."""
    mark = "_id" if fields else ""
    lists = {train: TRAIN, f"test_{vehicles}{mark}_query.txt": QUERY, f"test_{vehicles}{mark}.txt": GALLERY}
    for name, pictures in lists.items():
        lines = [f"{picture}.jpg {int(picture[:5])} 1" if fields else picture for picture in pictures]
        (folder / "train_test_split" / name).write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("fields", "train"), [(True, "train_list.txt"), (True, "train_list_start0.txt"), (False, "train_list.txt")]
)
def test_official_lists(root: Path, fields: bool, train: str) -> None:
    write_lists(root, vehicles=3000, fields=fields, train=train)
    data = VeriWild(size=8).load(Reading(root=root.parent))
    assert (data.name, data.classes, data.shape) == ("veri-wild-small", ("00001", "00003"), (3, 8, 8))
    assert data.part("train").labels.tolist() == [0, 0, 1, 1]
    assert data.part("train").tags["camera"].tolist() == [0, 1, 0, 2]  # in the order of their names: 73, 81, 9
    assert data.part("query").labels.tolist() == [2, 3]
    assert data.part("gallery").labels.tolist() == [2, 2, 3]
    assert data.part("gallery").tags["camera"].tolist() == [0, 2, 1]
    check_identities(data)


def test_queries_that_the_gallery_lists_too(root: Path) -> None:
    write_lists(root, vehicles=3000, fields=True)
    listed = root / "train_test_split/test_3000_id.txt"
    listed.write_text(listed.read_text() + f"{QUERY[0]}.jpg 30672 73\n")
    data = VeriWild(size=8).load(Reading(root=root.parent))
    assert [len(data.part(part)) for part in ("query", "gallery", "test")] == [2, 3, 5]


def test_a_query_that_nothing_answers_is_not_asked(root: Path) -> None:
    write_lists(root, vehicles=3000, fields=True)
    (root / "train_test_split/test_3000_id.txt").write_text(f"{GALLERY[0]}.jpg 30672 73\n{GALLERY[2]}.jpg 30673 81\n")
    data = VeriWild(size=8).load(Reading(root=root.parent))
    assert data.part("query").labels.tolist() == [3]
    assert data.part("test").labels.tolist() == [2, 3, 2, 3]


@pytest.mark.parametrize(("test", "vehicles"), [("medium", 5000), ("large", 10000)])
def test_the_other_tests(root: Path, test: str, vehicles: int) -> None:
    with pytest.raises(MissingDataError, match=rf"vehicle_info.txt.*test_{vehicles}_id.txt \(missing only"):
        sf.load_data(VeriWild(size=8), test=test, root=root.parent)
    write_lists(root, vehicles=vehicles, fields=True)
    source = registry.create("datasets", "veri-wild", {"test": test, "size": 8})
    assert isinstance(source, VeriWild)
    assert source.load(Reading(root=root.parent)).name == f"veri-wild-{test}"


def test_a_picture_without_a_camera(root: Path) -> None:
    write_lists(root, vehicles=3000, fields=True)
    (root / "train_test_split/train_list.txt").write_text("00001/000001.jpg 1 73\n00009/000001.jpg 9 73\n")
    with pytest.raises(DataError, match="train_list.txt, line 2: expected a picture of vehicle_info.txt, got '00009"):
        VeriWild().load(Reading(root=root.parent))


def test_another_test() -> None:
    with pytest.raises(ConfigError, match=r"test must be one of small, medium, large, got 'smal' \(did you mean 'small'"):
        VeriWild(test="smal")  # type: ignore[arg-type]
