# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.capacity [RECORD]`: print the tables of docs/scaling.md from what results/bench.json has of the server.

Cores are counted from the processor time of an answer, and how busy they may be from a simulated M/G/k queue: k replicas that run
one request after the other, Poisson arrivals, service times as measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.queueing import waits
from sfumato.quantity import show_bytes

RECORD = Path("results") / "bench.json"
REPLICAS, LOADS = (1, 2, 4, 8, 16, 64), (0.5, 0.7, 0.8, 0.9)
DEVICES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
BUSY = 0.6
"""Of a core: what is left is for bursts and for a replica that fails."""
FORMATS = {"float32, 128x8x8": 32_768, "uint8 behind a bottleneck of 8 channels, 8x8x8": 512}
"""Bytes of z of VGG-11 after c2."""


def main(record: Path) -> None:
    """Print the tables."""
    rows = {row["measure"]: row for row in json.loads(record.read_text(encoding="utf-8"))["rows"]}
    batching, queue, wire = (_found(rows, part) for part in ("with micro-batching", "of an M/G/1 queue's", "bytes on the wire"))
    cost = {name: _median([one[name]["cpu_ms"] for one in batching["rounds"]]) for name in ("ours", "alone", "mlserver")}
    beside = wire["there"] - wire["tensor"] + wire["back"]
    service = np.array(queue["run_ms_quantiles"]) / 1e3
    tables = (
        _costs(cost),
        _alone(batching["tail_alone_ms"]),
        _queues(service),
        _checked(queue["loads"]),
        _fleets(cost["ours"] / 1e3, beside),
    )
    print("\n\n".join("\n".join(table) for table in tables))
    small = _found(rows, "of a bare echo's")
    transport = {name: _median([one[name]["cpu_ms"] for one in small["rounds"]]) for name in ("echo", "ours")}
    print(f"\nprotocol alone, CPU ms: {transport}; bytes beside the tensor: {beside:.0f}")


def _found(rows: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the details of the benchmark whose name has a part."""
    details: dict[str, Any] = next(row["details"] for name, row in rows.items() if part in name)
    return details


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _costs(cost: dict[str, float]) -> Iterator[str]:
    yield "| server | CPU ms of an answer | answers of a core, each second |"
    yield "| --- | --- | --- |"
    names = {"ours": "`sfumato serve`", "alone": "`sfumato serve --batch 1`", "mlserver": "MLServer"}
    for key, name in names.items():
        yield f"| {name} | {cost[key]:.2f} | {1e3 / cost[key]:,.0f} |"


def _alone(milliseconds: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield what a picture takes in the tail without a server."""
    yield "| batch | ms of a picture in ONNX Runtime, two threads | in eager PyTorch, two threads |"
    yield "| --- | --- | --- |"
    for batch, one in milliseconds["onnxruntime"].items():
        yield f"| {batch} | {one:.2f} | {milliseconds['eager'][batch]:.2f} |"


def _checked(loads: Sequence[dict[str, float]]) -> Iterator[str]:
    """Yield how long requests took on the measured server, and in the simulated queue."""
    yield "| busy | requests each second | run, ms | in the server, ms | simulated, ms | Pollaczek-Khinchine, ms |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in loads:
        times = " | ".join(f"{one[name]:.2f}" for name in ("run_ms", "measured_ms", "simulated_ms", "pollaczek_khinchine_ms"))
        yield f"| {one['load']:.0%} | {one['rate']:.0f} | {times} |"


def _queues(service: np.ndarray) -> Iterator[str]:
    """Yield the time that 95 of 100 requests wait at most, in service times."""
    yield "| replicas | " + " | ".join(f"{load:.0%} busy" for load in LOADS) + " |"
    yield "| --- |" + " --- |" * len(LOADS)
    for servers in REPLICAS:
        found = [np.quantile(waits(service, rate=load * servers / service.mean(), servers=servers), 0.95) for load in LOADS]
        yield f"| {servers} | " + " | ".join(f"{one / service.mean():.1f}" for one in found) + " |"


def _fleets(seconds: float, beside: float) -> Iterator[str]:
    """Yield cores and bytes for devices that send a picture each minute."""
    yield "| devices | requests each second | cores | " + " | ".join(f"bytes a day, {name}" for name in FORMATS) + " |"
    yield "| --- | --- | --- |" + " --- |" * len(FORMATS)
    for devices in DEVICES:
        rate = devices / 60
        sent = " | ".join(show_bytes(devices * 1440 * (size + beside)) for size in FORMATS.values())
        yield f"| {devices:,} | {rate:,.0f} | {max(1, int(np.ceil(rate * seconds / BUSY))):,} | {sent} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD)
