# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.cars import StanfordCars
from sfumato.errors import MissingDataError


def test_real_cars(shared: Path) -> None:
    data = StanfordCars(size=16).load(Reading(root=shared))
    assert (data.name, data.shape, data.task) == ("stanford-cars-96c", (3, 16, 16), "classification")
    assert len(data.classes) == 96
    assert "Acura Integra Type R 2001" in data.classes
    assert [len(part) for part in data.parts.values()] == [3226, 811]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"train.parquet, test.parquet \(missing\)"):
        StanfordCars().load(Reading(root=tmp_path))
