# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.soak [SECONDS]`: ask a VGG-11 tail at 70 % of what it can, ten minutes if not told, and watch its memory."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil

from bench.load import closed, opened
from bench.served import Running, sfumato
from bench.serving import CLIENTS, TAIL, pictures, request_of_export, vgg11
from sfumato.deploy.export import export

LOAD, WARM_S = 0.7, 60


class _Memory(threading.Thread):
    """Notes the resident bytes of a server every second."""

    def __init__(self, server: Running) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(server.process.pid)
        self._over = threading.Event()
        self.resident: list[int] = []

    def run(self) -> None:
        while not self._over.wait(1):
            self.resident.append(self._process.memory_info().rss)

    def stop(self) -> None:
        self._over.set()
        self.join()


def main(seconds: float) -> int:
    """Ask, print what came of it as JSON, and return 1 where an answer was missing or memory grew by more than 5 %."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "vgg11"
        request = request_of_export(export(vgg11(TAIL), pictures((3, 32, 32)), folder, only=True))
        with sfumato(folder) as server:
            most = closed(server.address, request, clients=CLIENTS, seconds=10).per_second
            rate = LOAD * most
            due = np.cumsum(np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)))
            memory = _Memory(server)
            memory.start()
            found = opened(server.address, request, due=due)
            memory.stop()
    grown = memory.resident[-1] / memory.resident[min(WARM_S, len(memory.resident) // 2)] - 1
    told = {
        "seconds": found.seconds,
        "most_per_second": most,
        "asked_per_second": rate,
        "answers": len(found.milliseconds),
        "errors": found.errors,
        "p50_ms": found.quantile(0.5),
        "p99_ms": found.quantile(0.99),
        "resident_mb_after_a_minute": memory.resident[min(WARM_S, len(memory.resident) // 2)] / 1e6,
        "resident_mb_at_the_end": memory.resident[-1] / 1e6,
        "resident_mb_most": max(memory.resident) / 1e6,
        "grown": grown,
    }
    print(json.dumps(told, indent=2))
    return 0 if not found.errors and grown <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0))
