# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.reid import check_identities
from sfumato.data.vehicle_2cam import Vehicle2Cam
from sfumato.errors import MissingDataError


def test_real_vehicles(shared: Path) -> None:
    data = Vehicle2Cam(size=16).load(Reading(root=shared))
    assert (data.name, data.shape, len(data.classes)) == ("vehicle-reid-2cam", (3, 16, 16), 405)
    assert [len(data.part(part)) for part in ("train", "test", "query", "gallery")] == [810, 120, 60, 60]
    assert data.part("train").labels.bincount().tolist() == [2] * 405
    assert data.part("query").labels.tolist() == data.part("gallery").labels.tolist() == list(range(405, 465))
    assert data.part("query").tags["camera"].unique().tolist() == [0]
    assert data.part("gallery").tags["camera"].unique().tolist() == [1]
    check_identities(data)


def test_with_the_vehicles_of_the_validation(shared: Path) -> None:
    data = Vehicle2Cam(size=8, validation=True).load(Reading(root=shared))
    assert (len(data.classes), len(data.part("train")), len(data.part("test"))) == (507, 1014, 120)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"vehicle-reid-2cam: train.parquet, test.parquet \(missing\)"):
        Vehicle2Cam().load(Reading(root=tmp_path))
    with pytest.raises(MissingDataError, match="val.parquet"):
        Vehicle2Cam(validation=True).load(Reading(root=tmp_path))
