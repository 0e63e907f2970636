# SPDX-License-Identifier: Apache-2.0
"""What every data set of the registry keeps; one whose files are not on the machine is skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import sfumato as sf
from sfumato import registry
from sfumato.data.base import PARTS, RETRIEVAL, Reading
from sfumato.data.source import Source
from sfumato.errors import MissingDataError

OPTIONS: Mapping[str, Mapping[str, object]] = {
    **{name: {"size": 24} for name in ("lfw-gray", "celeb21", "vehicle-reid-2cam", "stanford-cars-96c")},
    **{name: {"size": 8} for name in ("reid-folder", "reid-parquet")},
    "street": {"identities": 8, "test_identities": 4, "size": 16},
    "portraits": {"identities": 6, "per_identity": 10, "size": 16},
}


@pytest.fixture(params=registry.TABLE["datasets"])
def load(
    request: pytest.FixtureRequest, make_folder: Callable[..., Path], write_parquet: Callable[..., Path], tmp_path: Path
) -> Callable[[], sf.Data]:
    name = request.param
    options = dict(OPTIONS.get(name, {}))
    if name == "folder":
        options["path"] = str(make_folder(tmp_path / "pictures", count=10))
    elif name == "parquet":
        options["path"] = str(write_parquet(tmp_path / "pictures.parquet", [0, 1] * 10))
    elif name == "table":
        np.savez(tmp_path / "table.npz", x=np.random.default_rng(0).normal(size=(20, 7)), y=np.arange(20) % 2)
        options["path"] = str(tmp_path / "table.npz")
    elif name == "reid-folder":
        for individual in ("a", "b", "c", "d"):
            make_folder(tmp_path / "pictures" / individual, ("front", "rear"))
        options["path"] = str(tmp_path / "pictures")
    elif name == "reid-parquet":
        options["path"] = str(write_parquet(tmp_path / "a.parquet", [*"abcde"] * 4, label="identity", camera=[1] * 10 + [2] * 10))
    root = None if "path" in options or name in ("digits", "street", "portraits") else request.getfixturevalue("shared")

    def loaded() -> sf.Data:
        source = registry.create("datasets", name, options)
        assert isinstance(source, Source)
        try:
            return sf.partition(source.load(Reading(root=root)), public=0.3, auxiliary="public", seed=1)
        except MissingDataError as error:
            pytest.skip(str(error))

    return loaded


def test_every_data_set_keeps_the_contract(load: Callable[[], sf.Data]) -> None:
    data = load()
    assert set(PARTS) <= set(data.parts)
    for name in PARTS:
        part = data.part(name)
        assert part.shape == data.shape
        assert part.labels.dtype == torch.int64
        assert len(part.labels) == len(part) > 0
        assert part.labels.min() >= 0
        assert part.labels.max() < len(data.classes) or data.task == "reidentification"
        some = part.read(torch.arange(min(3, len(part))))
        assert some.dtype == (torch.float32 if data.name == "table" else torch.uint8)
        assert tuple(some.shape[1:]) == data.shape
    assert len(data.part("private")) + len(data.part("public")) == len(data.part("train"))
    assert set(data.part("train").labels.tolist()) == set(range(len(data.classes)))
    if data.task == "reidentification":
        assert set(RETRIEVAL) <= set(data.parts)
        assert all("camera" in part.tags for part in data.parts.values())


def test_the_same_seed_gives_the_same_parts(load: Callable[[], sf.Data]) -> None:
    first, second = load(), load()
    for name in PARTS:
        assert first.part(name).fingerprint == second.part(name).fingerprint
