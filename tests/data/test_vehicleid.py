# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.reid import check_identities
from sfumato.data.vehicleid import VehicleId
from sfumato.errors import ConfigError, DataError, MissingDataError


@pytest.fixture
def root(tmp_path: Path, picture_bytes: Callable[..., bytes]) -> Path:
    folder = tmp_path / "VehicleID_V1.0"
    (folder / "image").mkdir(parents=True)
    (folder / "train_test_split").mkdir()
    lists = {"train_list": [7, 7, 12, 12], "test_list_800": [40] * 10 + [41] * 10 + [42]}
    number = 0
    for name, vehicles in lists.items():
        lines = []
        for vehicle in vehicles:
            number += 1
            (folder / "image" / f"{number:07d}.jpg").write_bytes(picture_bytes(number, width=9, form="JPEG"))
            lines.append(f"{number:07d} {vehicle}\n")
        (folder / "train_test_split" / f"{name}.txt").write_text("".join(lines))
    return tmp_path


def test_official_lists(root: Path) -> None:
    data = VehicleId(size=8).load(Reading(root=root))
    assert (data.name, data.classes, data.shape) == ("vehicleid-small", ("12", "7"), (3, 8, 8))
    assert data.part("gallery").labels.tolist() == [2, 3, 4]  # one picture of each
    assert data.part("query").labels.bincount().tolist() == [0, 0, 9, 9]
    check_identities(data)


def test_no_picture_is_passed_over_for_its_camera(root: Path) -> None:
    data = VehicleId(size=8).load(Reading(root=root))
    cameras = [number for part in ("train", "test") for number in data.part(part).tags["camera"].tolist()]
    assert sorted(cameras) == list(range(25))


def test_the_seed_draws_the_gallery(root: Path) -> None:
    cameras = [
        VehicleId(size=8, seed=seed).load(Reading(root=root)).part("gallery").tags["camera"].tolist() for seed in (0, 0, 1)
    ]
    assert cameras[0] == cameras[1] != cameras[2]


def test_what_is_wrong(root: Path) -> None:
    with pytest.raises(MissingDataError, match=r"missing only train_test_split/test_list_1600.txt"):
        VehicleId(test="medium").load(Reading(root=root))
    with pytest.raises(ConfigError, match="small, medium, large, got '800'"):
        VehicleId(test="800")  # type: ignore[arg-type]
    (root / "VehicleID_V1.0/train_test_split/train_list.txt").write_text("0000001 7\n0000002\n")
    with pytest.raises(DataError, match="train_list.txt, line 2: expected a picture and a vehicle, got '0000002'"):
        VehicleId().load(Reading(root=root))
