# SPDX-License-Identifier: Apache-2.0
"""How fast the synthetic street is drawn, in CPU time."""

from __future__ import annotations

import statistics
import time

from bench.row import Row
from sfumato.data.base import Reading
from sfumato.data.synthetic import Street

ROUNDS = 5


def run() -> list[Row]:
    """Measure the street as it is by default, after one round that warms up."""
    rates = [_rate() for _ in range(ROUNDS + 1)][1:]
    return [Row("synthetic street, 64x64", statistics.median(rates), "pictures/CPU-s", ">=", 500, {"rates": rates})]


def _rate() -> float:
    start = time.process_time()
    data = Street().load(Reading())
    return (len(data.part("train")) + len(data.part("test"))) / (time.process_time() - start)
