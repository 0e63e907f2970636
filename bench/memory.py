# SPDX-License-Identifier: Apache-2.0
"""Peak memory of streaming a parquet data set ten times the budget: reading it and one shuffled epoch over it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.row import Row

BUDGET = 48 << 20
SIDE = 64

_STREAM = """
import json, resource, sys
from pathlib import Path
import torch
from sfumato.data.base import Reading
from sfumato.data.loader import batches, shuffled
from sfumato.data.parquet import Parquet
path, small, budget = sys.argv[1], sys.argv[2], int(sys.argv[3])
# What the libraries themselves take is there before the budget counts: read a few pictures once.
for x, y in batches(Parquet(path=Path(small)).load(Reading()).part("train"), size=128, device="cpu"):
    pass
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
before = resident()
Path("/proc/self/clear_refs").write_text("5")
data = Parquet(path=Path(path)).load(Reading(budget=budget))
pictures = data.part("train")
seen = 0
for x, y in batches(pictures, size=128, device="cpu", order=shuffled(len(pictures), torch.Generator().manual_seed(0))):
    seen += len(x)
print(json.dumps({"peak": peak() - before, "pictures": seen, "kind": type(pictures).__name__, "bytes": pictures.nbytes}))
"""


def run() -> list[Row]:
    """Measure in a process of its own."""
    count = -(-10 * BUDGET // (3 * SIDE * SIDE))
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large.parquet", Path(folder) / "small.parquet"
        _write(large, count)
        _write(small, 300)
        command = [sys.executable, "-c", _STREAM, str(large), str(small), str(BUDGET)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return [Row("streaming ten times the budget, peak memory / budget", found["peak"] / BUDGET, "", "<=", 1.3, found)]


def _write(path: Path, count: int) -> None:
    """Write a parquet file of noisy pictures, in row groups as the usual tools make them."""
    random = np.random.default_rng(0)
    schema = pa.schema([("image", pa.binary()), ("label", pa.int16())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, 5000):
            number = min(5000, count - start)
            pictures = [_jpeg(random) for _ in range(number)]
            writer.write_table(
                pa.table({"image": pictures, "label": pa.array(np.arange(number) % 10, pa.int16())}, schema=schema)
            )


def _jpeg(random: np.random.Generator) -> bytes:
    coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((SIDE, SIDE)).save(stream, "JPEG")
    return stream.getvalue()
