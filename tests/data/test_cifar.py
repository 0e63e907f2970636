# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data.base import Data, Reading
from sfumato.data.cifar import Cifar10, Cifar10Lossless, Cifar100
from sfumato.data.streamed import StreamedPictures
from sfumato.errors import DataError, MissingDataError

PER_FILE = 4
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def pixels(file: int) -> np.ndarray:
    return np.random.default_rng(file).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)


def write_binary(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for file, name in enumerate([*BATCHES, "test_batch"]):
        labels = np.full((PER_FILE, 1), file, dtype=np.uint8)
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, pixels(file)]).tobytes())
    return folder


def write_python(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for file, name in enumerate([*BATCHES, "test_batch"]):
        batch = {"data": pixels(file), "labels": [file] * PER_FILE, "filenames": ["x.png"] * PER_FILE}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2 + file % 3))
    return folder


def check(data: Data) -> None:
    assert data.shape == (3, 32, 32)
    assert data.part("train").labels.tolist() == np.repeat(np.arange(5), PER_FILE).tolist()
    assert data.part("test").labels.tolist() == [5] * PER_FILE
    wanted = np.concatenate([pixels(file) for file in range(5)])
    assert np.array_equal(data.part("train").read(torch.arange(5 * PER_FILE)).numpy().reshape(-1, 3072), wanted)
    assert data.classes[5] == "dog"


@pytest.mark.parametrize("write", [write_binary, write_python])
@pytest.mark.parametrize("budget", [1 << 30, 4000])
def test_official_versions(tmp_path: Path, write: Callable[[Path], Path], budget: int) -> None:
    write(tmp_path)
    data = Cifar10().load(Reading(root=tmp_path, budget=budget, spool=tmp_path))
    check(data)
    assert isinstance(data.part("train"), StreamedPictures) == (budget == 4000)


def test_cifar100_binary(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    labels = np.array([[3, 77], [19, 0]], dtype=np.uint8)
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(np.hstack([labels, pixels(0)[:2]]).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(f"fine{number}" for number in range(100)) + "\n")
    fine, coarse = (Cifar100(coarse=coarse).load(Reading(root=tmp_path)) for coarse in (False, True))
    assert fine.part("train").labels.tolist() == [77, 0]
    assert coarse.part("train").labels.tolist() == [3, 19]
    assert fine.classes[77] == "fine77"
    assert coarse.classes == tuple(str(number) for number in range(20))


def test_cifar100_python(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        batch = {"data": pixels(0), "fine_labels": [9] * PER_FILE, "coarse_labels": [2] * PER_FILE}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = {
        f"{level}_label_names": [f"{level}{number}" for number in range(count)]
        for level, count in (("fine", 100), ("coarse", 20))
    }
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    assert Cifar100().load(Reading(root=tmp_path)).classes[9] == "fine9"
    coarse = Cifar100(coarse=True).load(Reading(root=tmp_path))
    assert (coarse.classes[2], coarse.part("test").labels.tolist()) == ("coarse2", [2] * PER_FILE)


def test_binary_of_another_length(tmp_path: Path) -> None:
    path = write_binary(tmp_path) / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2.bin: expected records of 3073 bytes"):
        Cifar10().load(Reading(root=tmp_path))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [1]}, "expected an array 'data'"),
        ({"data": pixels(0)[:, :5], "labels": [1] * PER_FILE}, "expected an array 'data'"),
        ({"data": pixels(0)}, "4 integers under 'labels'"),
        ({"data": pixels(0), "labels": [1]}, "4 integers under 'labels'"),
        ({"data": pixels(0), "labels": ["a"] * PER_FILE}, "4 integers under 'labels'"),
        ({"data": pixels(0), "labels": [10] * PER_FILE}, "from 0 to 9, got 10"),
    ],
)
def test_python_batches_of_another_form(tmp_path: Path, batch: dict[str, object], message: str) -> None:
    (write_python(tmp_path) / "data_batch_3").write_bytes(pickle.dumps(batch, protocol=4))
    with pytest.raises(DataError, match=f"data_batch_3: .*{message}"):
        Cifar10().load(Reading(root=tmp_path))


def test_missing_names_every_layout(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError) as caught:
        Cifar10().load(Reading(root=tmp_path))
    for place in ("cifar-10-batches-bin", "cifar-10-batches-py", f"{tmp_path}/cifar10: train.parquet, test.parquet"):
        assert place in str(caught.value)


def test_superclasses_are_not_in_parquet(tmp_path: Path, write_parquet: Callable[..., Path]) -> None:
    for name in ("train", "test"):
        write_parquet(tmp_path / "cifar100" / f"{name}.parquet", [0, 1])
    assert Cifar100().load(Reading(root=tmp_path)).name == "cifar100"
    with pytest.raises(MissingDataError, match="cifar-100-binary"):
        Cifar100(coarse=True).load(Reading(root=tmp_path))


def test_real_subsets(shared: Path) -> None:
    lossless, hundred = Cifar10Lossless().load(Reading(root=shared)), Cifar100().load(Reading(root=shared))
    assert lossless.part("train").labels.bincount().tolist() == [2000] * 10
    assert lossless.classes[:2] == ("airplane", "automobile")
    assert (hundred.name, len(hundred.classes), hundred.classes[0]) == ("cifar100-5k", 100, "apple")


@pytest.mark.slow
def test_all_of_cifar10_is_read_in_seconds(shared: Path) -> None:
    start = time.perf_counter()
    data = Cifar10().load(Reading(root=shared))
    assert len(data.part("train")) == 50_000
    assert time.perf_counter() - start < 20
