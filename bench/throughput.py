# SPDX-License-Identifier: Apache-2.0
"""Training throughput against the plainest hand-written loop, in CPU time, in alternating rounds."""

from __future__ import annotations

import copy
import statistics
import time

import torch
import torch.nn.functional as F

import sfumato as sf
from bench.row import Row
from sfumato.data.loader import as_images
from sfumato.train import assemble, fit

ROUNDS = 5
BATCH = 128


def run() -> list[Row]:
    """Measure both loops on the demonstration's model and data; a round is one epoch of each."""
    data = sf.load_data("digits")
    model = sf.build_model("vgg11", classes=10, shape=data.shape, options={"width": 0.25})
    ratios, rounds = [], []
    _ours(model, data), _plain(model, data)  # warm-up: allocations and kernels of the first call
    for _ in range(ROUNDS):
        plain, ours = _plain(model, data), _ours(model, data)
        ratios.append(plain / ours)
        rounds.append({"plain_cpu_s": plain, "sfumato_cpu_s": ours})
    return [Row("training throughput, of a plain loop's", statistics.median(ratios), "", ">=", 0.97, {"rounds": rounds})]


def _ours(model: torch.nn.Module, data: sf.Data) -> float:
    """Return CPU seconds of one epoch in Sfumato's loop."""
    target = assemble(sf.split(model, at="c2"), data, [], seed=0)
    start = time.process_time()
    fit(target, data, sf.Train(epochs=1, batch_size=BATCH), seed=0)
    return time.process_time() - start


def _plain(model: torch.nn.Module, data: sf.Data) -> float:
    """Return CPU seconds of one epoch in a loop of ten lines."""
    net = copy.deepcopy(model).train()
    pixels = data.part("private").read(torch.arange(len(data.part("private"))))
    labels = data.part("private").labels
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    start = time.process_time()
    for index in torch.randperm(len(labels)).split(BATCH):
        loss = F.cross_entropy(net(as_images(pixels[index], pixels.device)), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return time.process_time() - start
