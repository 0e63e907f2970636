# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from sfumato.data.pickled import read_pickled
from sfumato.errors import DataError

DATA = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)


def text(value: bytes) -> bytes:
    """A short string as Python 2 writes it."""
    return b"U" + bytes([len(value)]) + value


def python2_batch() -> bytes:
    """What Python 2 wrote with protocol 2 for the official batches, put together by hand."""
    dtype = (
        b"cnumpy\ndtype\nq\x05"
        + text(b"u1")
        + b"K\x00K\x01\x87Rq\x06(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85" + text(b"b") + b"\x87Rq\x04"
    state = b"(K\x01K\x03M\x00\x0c\x86" + dtype + b"\x89T" + struct.pack("<i", DATA.size) + DATA.tobytes() + b"tb"
    labels = text(b"labels") + b"q\x08]q\x09(K\x01K\x00M\x02\x00e"
    return (
        b"\x80\x02}q\x01(" + text(b"data") + array + state + labels + text(b"batch_label") + text(b"testing batch 1 of 1") + b"u."
    )


def write(folder: Path, content: bytes) -> Path:
    path = folder / "data_batch_1"
    path.write_bytes(content)
    return path


def test_python_2_protocol_2(tmp_path: Path) -> None:
    batch = read_pickled(write(tmp_path, python2_batch()))
    assert np.array_equal(batch["data"], DATA)
    assert batch["labels"] == [1, 0, 2]
    assert batch["batch_label"] == b"testing batch 1 of 1"


def test_the_hand_made_batch_is_what_pickle_reads() -> None:
    batch = pickle.loads(python2_batch(), encoding="bytes")
    assert np.array_equal(batch[b"data"], DATA)
    assert batch[b"labels"] == [1, 0, 2]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("array", [DATA, np.asfortranarray(DATA), DATA.astype(np.int64), np.arange(4, dtype=np.int32)])
def test_python_3(tmp_path: Path, protocol: int, array: np.ndarray) -> None:
    batch = {
        "data": array,
        "fine_labels": [3, 70_000, -1],
        "filenames": ["a.png", "bü.png"],
        "none": None,
        "yes": True,
        "one": ("a",),
    }
    found = read_pickled(write(tmp_path, pickle.dumps(batch, protocol=protocol)))
    assert np.array_equal(found.pop("data"), array)
    assert found == {name: value for name, value in batch.items() if name != "data"}


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "owned"
    path = write(tmp_path, pickle.dumps({"data": Malicious(target)}, protocol=protocol))
    with pytest.raises(DataError, match="data_batch_1: expected plain values.*nothing in it was run"):
        read_pickled(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        python2_batch()[:-10],
        python2_batch()[:200],
        b"\x80\x02.",
        b"\x80\x02K\x01.",
        b"\x80\x02}q\x01(K\x01u.",
        b"\x80\x02h\x05.",
        b"\x80\x02(e.",
        pickle.dumps({1: 2}),
        pickle.dumps({"data": DATA.astype(np.float32)}, protocol=4),
        pickle.dumps({"data": DATA.astype(">i4")}, protocol=4),
        pickle.dumps({"data": OrderedDict(a=1)}),
        pickle.dumps({"data": np.array(["a", {}], dtype=object)}, protocol=4),
        python2_batch().replace(b"K\x03M\x00\x0c\x86", b"K\x04M\x00\x0c\x86"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="data_batch_1: .*official file"):
        read_pickled(write(tmp_path, content))


def test_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    good, draws = python2_batch(), np.random.default_rng(0)
    start = good.index(b"T" + struct.pack("<i", DATA.size))
    for _ in range(300):
        damaged = bytearray(good)
        place = int(draws.integers(0, start))
        damaged[place] = int(draws.integers(0, 256))
        try:
            read_pickled(write(tmp_path, bytes(damaged)))
        except DataError:
            continue
