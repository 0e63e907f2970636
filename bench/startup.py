# SPDX-License-Identifier: Apache-2.0
"""How long `sfumato --help` takes, as a user waits for it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.row import Row

RUNS = 7


def run() -> list[Row]:
    """Measure whole processes, after one that warms the disk's cache."""
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sfumato", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return [Row("sfumato --help", statistics.median(seconds[1:]), "s", "<=", 0.5, {"seconds": seconds[1:]})]
