# SPDX-License-Identifier: Apache-2.0
"""What scoring costs: RMIA by one sort against its matrix, LiRA in one pass against a loop over examples; and their memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.row import Row
from sfumato.attacks.predictions.lira import lira_scores
from sfumato.attacks.predictions.rmia import rmia_scores

ASKED, OTHERS = 5_000, 5_000
MODELS, EXAMPLES = 64, 50_000
GAMMA = 2.0
ROUNDS = 5

_PEAK = """
import json, resource, sys
from pathlib import Path
import torch
from bench import membership_scoring as bench
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
score = getattr(bench, sys.argv[1])
score(*bench.inputs(sys.argv[1], 64))  # what the libraries themselves take
given = bench.inputs(sys.argv[1], int(sys.argv[2]))
before = resident()
Path("/proc/self/clear_refs").write_text("5")
score(*given)
print(json.dumps(peak() - before))
"""


def run() -> list[Row]:
    """Measure both attacks, and what each takes beyond its input in a process of its own."""
    return [*_rmia(), *_lira()]


def _rmia() -> list[Row]:
    """Measure the share of examples that each dominates."""
    ours, naive = _seconds(sorted_rmia, inputs("sorted_rmia", ASKED)), _seconds(matrix_rmia, inputs("matrix_rmia", ASKED))
    x, z = inputs("sorted_rmia", ASKED)
    apart = (sorted_rmia(x, z) - matrix_rmia(x, z)).abs().max().item()
    memory = {"ours": _peak("sorted_rmia", ASKED), "naive": _peak("matrix_rmia", ASKED)}
    size = f"{ASKED} x {OTHERS}"
    return [
        Row(f"RMIA scores, {size}", 1e3 * statistics.median(ours), "ms", "<=", 20, {"cpu_s": ours}),
        Row("the same by an N x Z matrix, times its time", _ratio(naive, ours), "", ">=", 20, {"cpu_s": naive}),
        Row("its peak memory, of that of the matrix", memory["ours"] / memory["naive"], "", "<=", 0.1, memory),
        Row("their scores differ by", apart, "", "<=", 0, {}),
    ]


def _lira() -> list[Row]:
    """Measure the likelihood ratio from given log odds, with each example's own variance as the loop has it."""
    given = inputs("pass_lira", EXAMPLES)
    ours, naive = _seconds(pass_lira, given), _seconds(loop_lira, given, rounds=1)
    apart = (pass_lira(*given) - loop_lira(*given)).abs().max().item()
    default = _seconds(default_lira, given)
    half = EXAMPLES // 2
    memory = {"whole": _peak("default_lira", EXAMPLES), "half": _peak("default_lira", half)}
    memory["input"] = MODELS * EXAMPLES * (given[1].element_size() + 1)
    size = f"K={MODELS}, N={EXAMPLES}"
    return [
        Row(f"LiRA scores, {size}", statistics.median(default), "s", "<=", 1, {"cpu_s": default}),
        Row(
            "the same by a loop over examples, times its time", _ratio(naive, ours), "", ">=", 10, {"ours": ours, "naive": naive}
        ),
        Row("their scores differ by", apart, "", "<=", 1e-6, {}),
        Row("LiRA, peak memory beyond its input, of the input", memory["whole"] / memory["input"], "", "<=", 1, memory),
        Row("the same for each example", memory["whole"] / EXAMPLES, "bytes", "<=", 400, memory),
    ]


def inputs(name: str, count: int) -> tuple[Tensor, ...]:
    """Return what a function of this name scores: log ratios of examples and of others, or log odds and a keep matrix."""
    stream = torch.Generator().manual_seed(0)
    if name.endswith("rmia"):
        return tuple(torch.randn(size, generator=stream, dtype=torch.float64) for size in (count, OTHERS))
    keep = torch.rand(MODELS, count, generator=stream).argsort(0) < MODELS // 2
    references = torch.empty(MODELS, count, 1, dtype=torch.float64)
    for row, kept in zip(references, keep, strict=True):  # the draws of all at once would be part of the peak
        row.copy_(torch.randn(count, 1, generator=stream) + kept[:, None])
    return torch.randn(count, 1, generator=stream, dtype=torch.float64), references, keep


def sorted_rmia(x: Tensor, z: Tensor) -> Tensor:
    """Return the share of z that each x dominates, by one sort."""
    return rmia_scores(x, z, GAMMA)


def matrix_rmia(x: Tensor, z: Tensor) -> Tensor:
    """Return the same by comparing every x with every z."""
    ratios = x.exp()[:, None] / z.exp()[None]
    return (ratios > GAMMA).double().mean(1)


def default_lira(phi: Tensor, references: Tensor, keep: Tensor) -> Tensor:
    """Return the likelihood ratio as `LiRA` does."""
    return lira_scores(phi, references, keep)


def pass_lira(phi: Tensor, references: Tensor, keep: Tensor) -> Tensor:
    """Return the likelihood ratio with each example's own variance."""
    return lira_scores(phi, references, keep, variance="example")


def loop_lira(phi: Tensor, references: Tensor, keep: Tensor) -> Tensor:
    """Return the same in a loop over examples, as research code has it."""
    target, values, kept = phi[:, 0].numpy(), references[..., 0].numpy(), keep.numpy()
    scores = np.empty(len(target))
    for place, own in enumerate(target):
        inside, outside = values[kept[:, place], place], values[~kept[:, place], place]
        scores[place] = _log_density(own, inside) - _log_density(own, outside)
    return torch.from_numpy(scores)


def _log_density(own: float, group: npt.NDArray[np.float64]) -> float:
    """Return the log density of a Gaussian with the moments of a group."""
    spread = group.std(ddof=1)
    return float(-((own - group.mean()) ** 2) / (2 * spread**2) - np.log(spread))


def _seconds(score: Callable[..., Tensor], given: tuple[Tensor, ...], *, rounds: int = ROUNDS) -> list[float]:
    """Return the CPU seconds of some calls, after one that is not counted."""
    found = []
    for _ in range(rounds + 1):
        start = time.process_time()
        score(*given)
        found.append(time.process_time() - start)
    return found[1:]


def _ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(slow) / statistics.median(fast)


def _peak(name: str, count: int) -> int:
    """Return how many bytes a function takes beyond its input at most, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _PEAK, name, str(count)], check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout))
