# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.collect import chunk_length

BUDGET = 16 << 20
COUNT = 10 * BUDGET // 4096

STREAM = """
import sys, torch
from pathlib import Path
from sfumato.data.base import Reading
from sfumato.data.idx import Mnist
from sfumato.data.loader import batches, shuffled

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024

root = Path(sys.argv[1])
warm = torch.zeros(1).div_(2)
Path("/proc/self/clear_refs").write_text("5")
start = resident("VmRSS")
train = Mnist().load(Reading(root=root, budget=int(sys.argv[2]), spool=root)).part("train")
order = shuffled(len(train), torch.Generator().manual_seed(0))
seen = sum(len(y) for x, y in batches(train, size=128, device="cpu", order=order))
print(type(train).__name__, train.nbytes, seen, resident("VmHWM") - start)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of resident memory")
def test_ten_times_the_budget_stays_within_the_budget(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, count in (("train", COUNT), ("t10k", 1)):
        with (folder / f"{name}-images-idx3-ubyte").open("wb") as stream:
            stream.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 64, 64))
            stream.truncate(16 + count * 4096)  # black pictures, without a byte on the disk
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", count) + bytes(count))
    command = [sys.executable, "-c", STREAM, str(tmp_path), str(BUDGET)]
    kind, size, seen, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert (kind, int(size), int(seen)) == ("StreamedPictures", 10 * BUDGET, COUNT)
    assert int(peak) <= 1.3 * BUDGET


def test_chunks_are_small_beside_the_budget() -> None:
    assert chunk_length((3, 32, 32), Reading()) == (1 << 20) // 3072
    assert chunk_length((3, 32, 32), Reading(budget=1 << 20)) == (1 << 14) // 3072
    assert chunk_length((3, 2000, 2000), Reading()) == 1
