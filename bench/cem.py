# SPDX-License-Identifier: Apache-2.0
"""What CEM costs: its loss against k determinants taken one by one, and an epoch with it against the same epoch without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import sfumato as sf
from bench.row import Row
from sfumato.analysis.mixture import Mixture, Moments, entropy_loss, nearest
from sfumato.data.base import Data
from sfumato.train import assemble, fit

COMPONENTS, DIMENSIONS, BATCH, PICTURES = 30, 512, 128, 50_000
NOISE = 0.025
ROUNDS = 5
EPOCH = 20 * BATCH


def run() -> list[Row]:
    """Measure the loss at the size of the paper's CIFAR-10, and epochs of its VGG-11 cut after c2."""
    return [*_loss(), _epoch()]


def _loss() -> list[Row]:
    """Measure value and gradient of one batch, both ways in each round."""
    stream = torch.Generator().manual_seed(0)
    means = 0.3 * torch.randn(COMPONENTS, DIMENSIONS, generator=stream, dtype=torch.float64)
    mix = 0.02 * torch.randn(DIMENSIONS, DIMENSIONS, generator=stream, dtype=torch.float64)
    drawn = torch.randn(200 * COMPONENTS, DIMENSIONS, generator=stream, dtype=torch.float64)
    rows = means[torch.arange(len(drawn)) % COMPONENTS] + drawn @ mix
    moments = Moments(means)
    moments.add(rows, nearest(rows, means))
    exact = moments.mixture("full")
    mixture = Mixture(*(value.float() for value in vars(exact).values()))
    z = rows[torch.randperm(len(rows), generator=stream)[:BATCH]]
    truth = _slope(partial(_naive, exact), z)[0]
    apart = {
        str(x.dtype): ((_slope(partial(_ours, made), x)[0] - truth).abs().max() / truth.abs().max()).item()
        for made, x in ((exact, z), (mixture, z.float()))
    }
    seconds: dict[str, list[float]] = {"ours": [], "naive": []}
    _slope(partial(_naive, mixture), z.float())  # warm-up
    for _ in range(ROUNDS):
        seconds["naive"].append(_slope(partial(_naive, mixture), z.float())[1])
        seconds["ours"].append(statistics.mean(_slope(partial(_ours, mixture), z.float())[1] for _ in range(10)))
    ratios = [slow / fast for slow, fast in zip(seconds["naive"], seconds["ours"], strict=True)]
    milliseconds, size = 1e3 * statistics.median(seconds["ours"]), f"D={DIMENSIONS}, k={COMPONENTS}, batch {BATCH}"
    return [
        Row(f"CEM loss and gradient, {size}", milliseconds, "ms", "<=", 20, {"cpu_s": seconds["ours"]}),
        Row("the same with k determinants, times its time", statistics.median(ratios), "", ">=", 25, {"cpu_s": seconds["naive"]}),
        Row("their gradients differ, of the largest, by", apart["torch.float64"], "", "<=", 1e-6, apart),
    ]


def _ours(mixture: Mixture, z: Tensor) -> Tensor:
    """Return Eq. 7 by the determinant lemma."""
    component = nearest(z.detach(), mixture.means)
    return entropy_loss(mixture, z, component, noise_variance=NOISE**2, total=PICTURES)


def _naive(mixture: Mixture, z: Tensor) -> Tensor:
    """Return Eq. 7 with one determinant for each component."""
    assert mixture.vectors is not None
    component, loss = nearest(z.detach(), mixture.means), z.new_zeros(())
    noise = NOISE**2 * torch.eye(DIMENSIONS, dtype=z.dtype)
    for j in range(COMPONENTS):
        own = z[component == j] - mixture.means[j]
        pi = (mixture.weights[j] * (PICTURES - BATCH) + len(own)) / PICTURES
        sigma = (mixture.vectors[j] * mixture.values[j]) @ mixture.vectors[j].T
        if len(own):
            share = len(own) / (pi * PICTURES)
            sigma = (1 - share) * sigma + share * own.T @ own / len(own)
        loss = loss + pi * (-pi.log() + 0.5 * (torch.linalg.slogdet(sigma + noise)[1] - torch.linalg.slogdet(noise)[1]))
    return loss


def _slope(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, float]:
    """Return the gradient of a loss and the CPU seconds of value and gradient."""
    x = z.clone().requires_grad_()
    start = time.process_time()
    (slope,) = torch.autograd.grad(loss(x), x)
    return slope, time.process_time() - start


def _epoch() -> Row:
    """Measure the second epoch, which has statistics, of training with CEM and without, in alternating rounds."""
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (EPOCH * 5 // 4, 3, 32, 32), dtype=torch.uint8, generator=stream)  # a fifth is the test part
    data = sf.load_data((x, torch.arange(len(x)) % 10))
    rounds = []
    for _ in range(3):
        rounds.append({"without_cpu_s": _second_epoch(data, []), "with_cpu_s": _second_epoch(data, [sf.CEM()])})
    ratio = statistics.median(one["with_cpu_s"] / one["without_cpu_s"] for one in rounds)
    details = {"rounds": rounds, "pictures": len(data.part("private"))}
    return Row("a training epoch with CEM, of the same without, VGG-11 cut c2", ratio, "", "<=", 1.10, details)


def _second_epoch(data: Data, extra: list[sf.Defense]) -> float:
    """Return the CPU seconds of the second epoch."""
    model = sf.build_model("vgg11", classes=10, shape=data.shape)
    target = assemble(sf.split(model, at="c2"), data, [sf.Bottleneck(channels=8), sf.Noise(sigma=NOISE), *extra], seed=0)
    marks: list[float] = []
    fit(target, data, sf.Train(epochs=2, batch_size=BATCH), seed=0, watch=lambda done, total: marks.append(time.process_time()))
    return time.process_time() - marks[len(marks) // 2 - 1]
