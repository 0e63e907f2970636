# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data import idx
from sfumato.data.base import Reading
from sfumato.data.idx import FashionMnist, Mnist, read_idx
from sfumato.data.streamed import StreamedPictures
from sfumato.errors import DataError, MissingDataError


def encoded(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write(folder: Path, *, compressed: bool = False, train: int = 7, test: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        images = draws.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = encoded(values)
            path = folder / f"{name}-{kind}-ubyte"
            path.with_name(path.name + ".gz" * compressed).write_bytes(gzip.compress(content) if compressed else content)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
def test_round_trip(tmp_path: Path, compressed: bool) -> None:
    write(tmp_path / "mnist", compressed=compressed)
    data = Mnist().load(Reading(root=tmp_path))
    wanted = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    assert np.array_equal(data.part("train").read(torch.arange(7)).numpy()[:, 0], wanted)
    assert data.part("test").labels.tolist() == [0, 1, 2]
    streamed = Mnist().load(Reading(root=tmp_path, budget=1500, spool=tmp_path))
    assert isinstance(streamed.part("train"), StreamedPictures)
    assert streamed.part("train").fingerprint == data.part("train").fingerprint


def test_fashion_in_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "fashion-mnist")
    assert FashionMnist().load(Reading(root=tmp_path)).classes[0] == "T-shirt/top"


def test_fashion_missing_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "DEBIAN_FOLDER", tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match="dataset-fashion-mnist"):
        FashionMnist().load(Reading(root=tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got magic none"),
        (b"\x00\x00\x0d\x01", "got magic 00000d01"),
        (bytes([0, 0, 8, 3]), "got magic 00000803"),
        (bytes([0, 0, 8, 1, 0, 0]), "truncated in its header"),
        (encoded(np.zeros(5, np.uint8))[:-1], "truncated: its header says"),
        (encoded(np.zeros(5, np.uint8)) + b"x", "longer than its header"),
        (bytes([0, 0, 8, 1, 255, 255, 255, 255]), "ends in row 0"),
    ],
)
def test_faulty_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"labels: .*{message}"):
        read_idx(path, dims=1)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-12], lambda content: b"plain", lambda content: content[:-8] + bytes(8)]
)
def test_damaged_gzip(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(damage(gzip.compress(encoded(np.arange(200, dtype=np.uint8)))))  # type: ignore[operator]
    with pytest.raises(DataError, match="labels.gz: .*gzip"):
        read_idx(path, dims=1)


def test_counts_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "mnist")
    (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(encoded(np.zeros(6, np.uint8)))
    with pytest.raises(DataError, match="7 pictures, but train-labels-idx1-ubyte has 6 labels"):
        Mnist().load(Reading(root=tmp_path))


def test_label_out_of_range(tmp_path: Path) -> None:
    write(tmp_path / "mnist")
    (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(encoded(np.full(7, 10, np.uint8)))
    with pytest.raises(DataError, match="from 0 to 9, got 10"):
        Mnist().load(Reading(root=tmp_path))


def test_truncated_pictures_name_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "mnist") / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(DataError, match="train-images-idx3-ubyte: truncated.*row 5"):
        Mnist().load(Reading(root=tmp_path))


def test_official_files(shared: Path) -> None:
    data = Mnist().load(Reading(root=shared))
    assert data.part("train").labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert len(data.part("train")) == 60_000
    assert len(data.part("test")) == 10_000


def test_official_fashion_files() -> None:
    if not idx.DEBIAN_FOLDER.is_dir():
        pytest.skip("the package dataset-fashion-mnist is not on this machine")
    data = FashionMnist().load(Reading())
    assert data.part("train").labels.bincount().tolist() == [6000] * 10
