# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data.base import Reading
from sfumato.data.collect import collect
from sfumato.data.resident import ResidentPictures
from sfumato.data.streamed import Spool, StreamedPictures
from sfumato.errors import DataError, StorageError

SHAPE = (3, 4, 5)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.int64) % 3


def chunks() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(PIXELS[:7], LABELS[:7]), (PIXELS[7:], LABELS[7:])]


def streamed(folder: Path) -> StreamedPictures:
    pictures = collect(chunks(), count=20, shape=SHAPE, reading=Reading(budget=100, spool=folder))
    assert isinstance(pictures, StreamedPictures)
    return pictures


def resident() -> ResidentPictures:
    pictures = collect(chunks(), count=20, shape=SHAPE, reading=Reading())
    assert isinstance(pictures, ResidentPictures)
    return pictures


@pytest.mark.parametrize("index", [[0], [3, 4, 5], [19, 0, 0, 7, 8, 6], list(range(20)), []])
def test_reads_what_was_written(tmp_path: Path, index: list[int]) -> None:
    read = streamed(tmp_path).read(torch.tensor(index, dtype=torch.int64))
    assert read.dtype == torch.uint8
    assert np.array_equal(read.numpy(), PIXELS[index])


def test_equal_content_has_equal_fingerprint(tmp_path: Path) -> None:
    index = torch.tensor([4, 2, 9])
    assert streamed(tmp_path).fingerprint == resident().fingerprint
    assert streamed(tmp_path).subset(index).fingerprint == resident().subset(index).fingerprint


def test_subset_shares_the_file(tmp_path: Path) -> None:
    pictures = streamed(tmp_path)
    subset = pictures.subset(torch.tensor([5, 3, 1])).subset(torch.tensor([1]))
    del pictures
    assert subset.labels.tolist() == [0]
    assert np.array_equal(subset.read(torch.tensor([0])).numpy(), PIXELS[[3]])


def test_stays_on_the_disk(tmp_path: Path) -> None:
    pictures = streamed(tmp_path)
    assert pictures.to("cpu") is pictures


def test_file_has_no_name(tmp_path: Path) -> None:
    pictures = streamed(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(pictures) == 20


def test_file_is_closed_with_its_last_pictures(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pictures = streamed(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del pictures
    assert len(os.listdir("/proc/self/fd")) == before


def test_skipped_pictures_leave_no_gap(tmp_path: Path) -> None:
    for budget in (100, 1 << 20):
        pictures = collect(chunks(), count=30, shape=SHAPE, reading=Reading(budget=budget, spool=tmp_path))
        assert len(pictures) == 20
        assert pictures.fingerprint == resident().fingerprint


def test_no_picture_at_all(tmp_path: Path) -> None:
    for budget in (100, 1 << 20):
        with pytest.raises(DataError, match="none of 20"):
            collect([], count=20, shape=SHAPE, reading=Reading(budget=budget, spool=tmp_path))


def test_too_little_space(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"need {10**18} bytes in {tmp_path}.*bytes free.*TMPDIR"):
        Spool(10**9, 10**9, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_disk_fills_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="need 1200 bytes in .*No space left on device.*TMPDIR"):
        streamed(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_reading_that_fails_closes_the_file(tmp_path: Path) -> None:
    def failing() -> object:
        yield PIXELS, LABELS
        raise DataError("broken")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DataError, match="broken"):
        collect(failing(), count=20, shape=SHAPE, reading=Reading(budget=100, spool=tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere.*No such file"):
        Spool(4, 1, tmp_path / "nowhere")


def test_file_cut_off(tmp_path: Path) -> None:
    spool = Spool(4, 2, tmp_path)
    spool.append(np.zeros(4, np.uint8))
    with pytest.raises(StorageError, match="end after 4 bytes"):
        spool.read(np.array([1]))
