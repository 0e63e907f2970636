# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from sfumato.data.base import Reading
from sfumato.data.reid import check_identities
from sfumato.data.veri import Veri
from sfumato.errors import ConfigError, DataError, MissingDataError

TRAIN = ["0001_c001_00016450_0.jpg", "0001_c002_00016455_0.jpg", "0005_c001_00026450_0.jpg", "0005_c020_00026450_1.jpg"]
QUERY = ["0002_c002_00030600_0.jpg", "0006_c003_00030610_0.jpg"]
GALLERY = [*QUERY, "0002_c003_00030605_0.jpg", "0006_c003_00030615_0.jpg"]


@pytest.fixture
def root(tmp_path: Path, picture_bytes: Callable[..., bytes]) -> Path:
    def write(folder: str, names: Sequence[str]) -> None:
        (tmp_path / "VeRi" / folder).mkdir(parents=True)
        for name in names:
            content = picture_bytes(int(name[:4]), width=12, form="JPEG")
            (tmp_path / "VeRi" / folder / name).write_bytes(content)

    write("image_train", TRAIN)
    write("image_query", QUERY)
    write("image_test", GALLERY)
    (tmp_path / "VeRi/name_train.txt").write_text("\n".join(TRAIN))
    (tmp_path / "VeRi/image_test/Thumbs.db").touch()
    return tmp_path


def test_official_folders(root: Path) -> None:
    data = Veri(size=8).load(Reading(root=root))
    assert (data.name, data.classes, data.shape) == ("veri", ("0001", "0005"), (3, 8, 8))
    assert data.part("train").labels.tolist() == [0, 0, 1, 1]
    assert data.part("train").tags["camera"].tolist() == [0, 1, 0, 3]
    # the queries are in the gallery too; nothing answers the second
    assert data.part("query").labels.tolist() == [2]
    assert data.part("gallery").labels.tolist() == [2, 2, 3, 3]
    assert len(data.part("test")) == 4
    assert torch.equal(data.part("query").read(torch.tensor([0])), data.part("gallery").read(torch.tensor([0])))
    check_identities(data)


def test_a_gallery_without_the_queries(root: Path) -> None:
    for name in QUERY:
        (root / "VeRi/image_test" / name).unlink()
    data = Veri(size=8).load(Reading(root=root))
    assert [len(data.part(part)) for part in ("test", "query", "gallery")] == [4, 1, 2]


def test_a_name_that_says_nothing(root: Path) -> None:
    (root / "VeRi/image_train/car.jpg").touch()
    with pytest.raises(DataError, match="image_train/car.jpg: expected a name such as 0001_c001"):
        Veri().load(Reading(root=root))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="VeRi: image_train, image_query, image_test"):
        Veri().load(Reading(root=tmp_path))


def test_size(root: Path) -> None:
    assert Veri().load(Reading(root=root)).shape == (3, 256, 256)
    with pytest.raises(ConfigError, match="size must be at least 1"):
        Veri(size=0).load(Reading(root=root))
