# SPDX-License-Identifier: Apache-2.0
"""What the server adds to a bare echo, what micro-batching gains, MLServer beside it, and a queue that tells how long to wait."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import sfumato as sf
from bench.load import WARMING, Load, closed, opened
from bench.queueing import pollaczek_khinchine, waits
from bench.row import Row
from bench.served import Running, echo, log_of, mlserver, sfumato
from sfumato.cores import cores
from sfumato.data.base import Data
from sfumato.deploy.bundle import open_bundle
from sfumato.deploy.export import Export, export
from sfumato.deploy.protocol import request_of
from sfumato.deploy.serving.tails import load_tail
from sfumato.parallel import torch_threads
from sfumato.split import Split

ROUNDS, SECONDS, CLIENTS, CALLS = 7, 2.0, 8, 64
TAIL = "c2"
"""Where VGG-11 is cut in the papers' tables."""
LOADS = (0.3, 0.5, 0.7)
QUEUE_S = 20.0
QUANTILES = 201


def run() -> list[Row]:
    """Measure everything about the server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*_overhead(folder / "small"), *_batching(folder / "vgg11"), *_queue(folder / "queue")]


def pictures(shape: tuple[int, int, int], *, seed: int = 0) -> Data:
    """Return random pictures of ten classes, enough to export a model that nothing is learned from.

    Args:
        shape: (C, H, W).
        seed: of the pictures.
    """
    stream = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (320, *shape), generator=stream, dtype=torch.uint8)
    return sf.load_data((x, torch.arange(320) % 10))


def vgg11(cut: str) -> Split:
    """Return an untrained VGG-11 for 3x32x32 pictures, cut."""
    return sf.split(sf.build_model("vgg11", classes=10, shape=(3, 32, 32)), at=cut).eval()


def request_of_export(made: Export) -> bytes:
    """Return a serialized request for one picture: random features, of the shape and type of an export's."""
    facts = made.manifest.sent
    z = np.random.default_rng(0).random((1, *facts.shape), np.float32)
    return bytes(request_of(made.manifest.name, facts, z).SerializeToString())


def _overhead(folder: Path) -> list[Row]:
    """Compare one client of a tail that does next to nothing with one of an echo of the same 8 KiB."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(2048, 10))
    made = export(sf.split(model, at="0"), pictures((3, 16, 16)), folder, only=True)
    request = request_of_export(made)
    with echo() as bare, sfumato(folder) as ours:
        servers = {"echo": bare, "ours": ours}
        rounds = [{name: _asked(where, request, clients=1) for name, where in servers.items()} for _ in range(ROUNDS)]
    ratio = statistics.median(one["ours"]["p50_ms"] / one["echo"]["p50_ms"] for one in rounds)
    return [Row("p50 of one client, 8 KiB, of a bare echo's", ratio, "", "<=", 1.5, {"rounds": rounds})]


def _batching(folder: Path) -> list[Row]:
    """Compare eight clients of a VGG-11 tail with micro-batching, without, and at MLServer."""
    split = vgg11(TAIL)
    request = request_of_export(export(split, pictures((3, 32, 32)), folder, only=True))
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(sfumato(folder)),
            "alone": stack.enter_context(sfumato(folder, "--batch", "1")),
            "mlserver": stack.enter_context(mlserver(folder / "repository")),
        }
        rounds = [{name: _asked(where, request) for name, where in servers.items()} for _ in range(ROUNDS)]
    gain, beside = (
        statistics.median(one["ours"]["per_second"] / one[name]["per_second"] for one in rounds) for name in ("alone", "mlserver")
    )
    cpu = statistics.median(one["alone"]["cpu_ms"] / one["ours"]["cpu_ms"] for one in rounds)
    details = {"rounds": rounds, "times_less_cpu": cpu, "tail_alone_ms": _tail_alone(folder, split.tail)}
    return [
        Row(
            f"VGG-11 tail after {TAIL}, {CLIENTS} clients: answers with micro-batching, of those without",
            gain,
            "",
            ">=",
            2.5,
            details,
        ),
        Row("the same, of MLServer's", beside, "", ">=", 1.0),
    ]


def _tail_alone(folder: Path, model: nn.Module) -> dict[str, dict[str, float]]:
    """Return the milliseconds that a picture takes in the tail without a server, by runtime and by the batch that it is in."""
    bundle = open_bundle(folder, "tail")
    session = load_tail(bundle, 0)

    def eager(z: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(z))

    found: dict[str, dict[str, list[float]]] = {name: {"1": [], "8": [], "32": []} for name in ("onnxruntime", "eager")}
    with torch_threads(cores()):  # as many as the session has
        for _ in range(ROUNDS):
            for name, run in (("onnxruntime", session), ("eager", eager)):
                for size, times in found[name].items():
                    z = np.zeros((int(size), *bundle.manifest.sent.shape), np.float32)
                    run(z)
                    start = time.perf_counter()
                    for _ in range(CALLS // len(z)):
                        run(z)
                    times.append(1e3 * (time.perf_counter() - start) / (CALLS // len(z) * len(z)))
    return {name: {size: statistics.median(times) for size, times in sizes.items()} for name, sizes in found.items()}


def _asked(server: Running, request: bytes, *, clients: int = CLIENTS) -> dict[str, float]:
    """Return the answers for each second, the median time of one, and what it costs the server, in milliseconds of a core."""
    before = server.cpu_s
    found = closed(server.address, request, clients=clients, seconds=SECONDS)
    if found.errors:
        raise RuntimeError(f"expected answers, found {found.errors}")
    answers = len(found.milliseconds) * (1 + WARMING)  # as many for each second before they are timed
    cpu = 1e3 * (server.cpu_s - before) / answers
    return {"per_second": found.per_second, "p50_ms": found.quantile(0.5), "cpu_ms": cpu}


def _queue(folder: Path) -> list[Row]:
    """Ask a tail that runs one request after the other at random times, and simulate its queue from the times that runs took."""
    request = request_of_export(export(vgg11(TAIL), pictures((3, 32, 32)), folder, only=True))
    found = []
    with sfumato(folder, "--batch", "1", "--threads", "1") as server:  # the other core is for who asks
        alone = closed(server.address, request, clients=1, seconds=SECONDS).milliseconds
        for load in LOADS:
            rate = load / (statistics.mean(alone) / 1e3)
            due = np.cumsum(np.random.default_rng(0).exponential(1 / rate, int(rate * QUEUE_S)))
            before = len(requests_of(folder))
            sent = opened(server.address, request, due=due)
            found.append(_compared(sent, requests_of(folder)[before:], rate))
    worst = max(max(one["ratio"], 1 / one["ratio"]) for one in found)
    told = "time of a request at rising load without micro-batching, of an M/G/1 queue's: the worst factor"
    calm = np.array([one["run_ms"] for one in requests_of(folder)[:QUANTILES]])
    details = {"loads": found, "run_ms_quantiles": np.quantile(calm, np.linspace(0, 1, QUANTILES)).tolist()}
    return [Row(told, worst, "x", "<=", 1.5, details)]


def requests_of(bundle: Path) -> list[dict[str, float]]:
    """Return what a server wrote of the requests that it answered.

    Args:
        bundle: that it serves.
    """
    lines = [json.loads(line) for line in log_of(bundle).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.get("call") == "ModelInfer" and line["status"] == "OK"]


def _compared(sent: Load, answered: list[dict[str, float]], rate: float) -> dict[str, float]:
    """Return the mean milliseconds from the arrival to the end of the run, measured and simulated."""
    service = np.array([one["run_ms"] for one in answered]) / 1e3
    measured = statistics.mean(one["queue_ms"] + one["run_ms"] for one in answered)
    simulated = 1e3 * float(waits(service, rate=rate).mean() + service.mean())
    return {
        "rate": rate,
        "load": rate * float(service.mean()),
        "run_ms": 1e3 * float(service.mean()),
        "measured_ms": measured,
        "simulated_ms": simulated,
        "pollaczek_khinchine_ms": 1e3 * (pollaczek_khinchine(service, rate=rate) + float(service.mean())),
        "ratio": measured / simulated,
        "client_ms": statistics.mean(sent.milliseconds),
        "client_p95_ms": sent.quantile(0.95),
        "errors": sum(sent.errors.values()),
    }
