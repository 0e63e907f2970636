# SPDX-License-Identifier: Apache-2.0
"""What PATROL costs in training, of an epoch without it, and what a pruned head saves, in eager PyTorch and in ONNX Runtime."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

import sfumato as sf
from bench.row import Row
from sfumato.data.base import Data, Reading
from sfumato.data.synthetic import Street
from sfumato.defenses.masks import SoftMasks, Sparsity
from sfumato.deploy.exporting.onnx_files import silence
from sfumato.deploy.sessions import session_of
from sfumato.parallel import torch_threads
from sfumato.split import Split, cost
from sfumato.train import assemble, fit
from sfumato.types import Epoch

BATCH, PICTURES, EPOCH_ROUNDS = 128, 640, 9
SIDE, CALLS, LATENCY_ROUNDS = 128, 5, 21
BUDGETS = {"4.8MB": 4.8e6, "0.6MB": 0.6e6}


class _Timed(sf.PATROL):
    """Notes what the surrogate takes."""

    surrogate_cpu_s = 0.0

    def begin_epoch(self, epoch: Epoch) -> None:
        start = time.process_time()
        super().begin_epoch(epoch)
        if epoch.number == 0:
            self.surrogate_cpu_s = time.process_time() - start


def run() -> list[Row]:
    """Measure epochs of a narrow ResNet-18 on the street, and heads of four stages of the whole one."""
    return [*_epochs(), *_latencies()]


def _epochs() -> list[Row]:
    """Measure the second epoch, which trains no surrogate, plain, with three updates and with one, in alternating rounds."""
    data = Street(identities=PICTURES // 8, test_identities=2, cameras=4, per_camera=2, size=64).load(Reading())
    data = sf.partition(data)
    rounds = []
    for _ in range(EPOCH_ROUNDS):
        plain, _ = _second_epoch(data, [])
        three, surrogate = _second_epoch(data, [_Timed()])
        fused, _ = _second_epoch(data, [_Timed(fused=True)])
        rounds.append({"plain_cpu_s": plain, "three_cpu_s": three, "fused_cpu_s": fused, "surrogate_cpu_s": surrogate})
    found = {
        name: statistics.median(one[f"{name}_cpu_s"] / one["plain_cpu_s"] for one in rounds)
        for name in ("three", "fused", "surrogate")
    }
    details = {"rounds": rounds, "pictures": PICTURES, "surrogate_epoch_of_a_plain_one": found["surrogate"]}
    told = "a training epoch with PATROL, of a plain one, ResNet-18 x 0.25"
    return [
        Row(f"{told}, three updates", found["three"], "", "<=", 5.5, details),
        Row(f"{told}, fused", found["fused"], "", "<=", 3.3),
        Row("an epoch of PATROL's surrogate, every tenth, of a plain one", found["surrogate"], "", "<=", 2.5),
    ]


def _second_epoch(data: Data, defenses: list[sf.Defense]) -> tuple[float, float]:
    """Return the CPU seconds of the second epoch, and of the surrogate before the first."""
    model = sf.build_model("resnet18", classes=len(data.classes), shape=data.shape, options={"width": 0.25, "stem": "imagenet"})
    target = assemble(sf.split(model, at="layer4"), data, defenses, seed=0)
    marks: list[float] = []
    settings = sf.Train(epochs=2, batch_size=BATCH, optimizer=sf.Optimizer(name="adam", learning_rate=3e-4))
    fit(target, data, settings, seed=0, watch=lambda done, total: marks.append(time.process_time()))
    taken = [part.surrogate_cpu_s for part in target.defense if isinstance(part, _Timed)]  # type: ignore[attr-defined]
    return marks[-1] - marks[len(marks) // 2 - 1], sum(taken)


def _latencies() -> list[Row]:
    """Measure the whole head and the pruned ones, one picture at a time, in alternating rounds."""
    x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    heads = {"whole": pruned_head(None), **{budget: pruned_head(budget) for budget in BUDGETS}}
    macs = {name: cost(head, x).macs for name, head in heads.items()}
    with tempfile.TemporaryDirectory() as folder:
        exported = {name: _export(head, x, Path(folder) / f"{name}.onnx") for name, head in heads.items()}
        sizes = {name: _weights(path) for name, path in exported.items()}
        plain = milliseconds({name: eager(head, x) for name, head in heads.items()})
        runtime = milliseconds({name: _runtime(path, x) for name, path in exported.items()})
    rows = []
    for budget, limit in BUDGETS.items():
        removed = 1 - macs[budget] / macs["whole"]
        rows.append(Row(f"weights of four stages at {budget}, exported", sizes[budget] / 1e6, "MB", "<=", limit / 1e6))
        for name, times in (("eager PyTorch", plain), ("ONNX Runtime", runtime)):
            saved = statistics.median(1 - pruned / whole for pruned, whole in zip(times[budget], times["whole"], strict=True))
            details = {"macs_removed": removed, "time_saved": saved, "ms": {key: times[key] for key in ("whole", budget)}}
            rows.append(Row(f"time saved at {budget}, of MACs saved, {name}", saved / removed, "", ">=", 0.7, details))
    return rows


def pruned_head(budget: str | None) -> torch.nn.Module:
    """Return four stages of ResNet-18, with random masks pruned down to a budget; whole where it is None."""
    model = sf.build_model("resnet18", classes=100, shape=(3, SIDE, SIDE), options={"stem": "imagenet"})
    halves: Split = sf.split(model, at="layer4").eval()
    if budget is not None:
        stream, x = torch.Generator().manual_seed(0), torch.rand(2, 3, SIDE, SIDE)
        with torch.no_grad():
            masks = SoftMasks(halves, x, kind="channel", sparsity=Sparsity(), keep=sf.Keep(memory=budget))
            for mask in masks.values:
                mask.copy_(torch.rand(mask.shape, generator=stream))
            masks.remove(halves)
    return halves.head


def _export(head: torch.nn.Module, x: Tensor, path: Path) -> Path:
    """Write a head as ONNX, in silence."""
    with silence():
        torch.onnx.export(head, (x,), str(path), dynamo=True, external_data=False)
    return path


def _weights(path: Path) -> int:
    """Return the bytes of the weights in an ONNX file."""
    return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(str(path)).graph.initializer)


def eager(head: torch.nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a call of a module in eager PyTorch."""

    def call() -> object:
        with torch.inference_mode():
            return head(x)

    return call


def _runtime(path: Path, x: Tensor) -> Callable[[], object]:
    session = session_of(path.read_bytes())
    given: dict[str, np.ndarray] = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, given)


def milliseconds(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return CPU milliseconds of a call, for each in alternating rounds, on one thread."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch_threads(1):
        for number in range(LATENCY_ROUNDS + 2):
            for name, call in calls.items():
                start = time.process_time()
                for _ in range(CALLS):
                    call()
                if number >= 2:  # the first rounds warm up
                    times[name].append(1e3 * (time.process_time() - start) / CALLS)
    return times
