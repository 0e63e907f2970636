# SPDX-License-Identifier: Apache-2.0
"""What a training step costs with TL-DMI, with BiDO and with both, of the same step without: the targets of model inversion.

The paper counts whole trainings: its Table 12 has 0.69 for TL-DMI and 1.55 for BiDO, of no defense. What is counted here has the
drawing of a batch and the update of the weights in it, and none of what an epoch begins or ends with.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import get_args

import torch

import sfumato as sf
from bench.row import Row
from sfumato.defenses.bido import BiDO, Measure
from sfumato.defenses.tl_dmi import TLDMI
from sfumato.parallel import torch_threads
from sfumato.target import Target
from sfumato.train import assemble, fit

CLASSES, SHAPE = 10, (3, 64, 64)
MAIN = 26  # the paper's main place to freeze its VGG-16: eight of thirteen convolutions
ROUNDS, STEPS = 4, 4  # of each round; the first of its steps warms up


def run() -> list[Row]:
    """Measure steps of VGG-16 at 64 pixels, one thread: whole with batches of 8, half as wide with batches of 32."""
    with torch_threads(1):
        return [*_freezing(), *_dependence()]


def _freezing() -> list[Row]:
    """Train at the paper's size with its first layers frozen, and whole."""
    parts = {"whole": [], "frozen": [TLDMI(MAIN)]}
    times = _seconds(parts, width=1.0, batch=8)
    return [_row("a step of TL-DMI at the paper's main place, of one of all layers", times, "frozen", "whole", 0.75)]


def _dependence() -> list[Row]:
    """Train with BiDO's penalties, with TL-DMI too, and without."""
    measures: dict[str, list[sf.Defense]] = {name: [BiDO(measure=name)] for name in get_args(Measure)}
    both = [TLDMI(MAIN), BiDO(0.03, 0.4)]  # the paper's weights where both are there
    times = _seconds({"plain": [], **measures, "both": both}, width=0.5, batch=32)
    rows = [_row(f"a step of BiDO by {name}, of a plain one", times, name, "plain", 1.25) for name in measures]
    return [*rows, _row("a step of TL-DMI and BiDO together, of a plain one", times, "both", "plain", 0.75)]


def _seconds(variants: Mapping[str, Sequence[sf.Defense]], *, width: float, batch: int) -> dict[str, list[float]]:
    """Return the CPU seconds of steps of each variant; a round trains all of them."""
    pictures = batch * STEPS * 5 // 4 + batch  # a fifth is the test part
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (pictures, *SHAPE), dtype=torch.uint8, generator=stream)
    data = sf.load_data((x, torch.arange(pictures) % CLASSES))
    model = sf.build_model("vgg16_face", classes=CLASSES, shape=SHAPE, options={"width": width})
    targets: dict[str, Target] = {name: assemble(model, data, parts, seed=0) for name, parts in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(ROUNDS):
        for name, target in targets.items():
            marks: list[float] = []
            settings = sf.Train(epochs=1, batch_size=batch)
            fit(target, data, settings, seed=number, watch=lambda done, total, marks=marks: marks.append(time.process_time()))  # type: ignore[misc]
            seconds[name] += [after - before for before, after in zip(marks, marks[1:STEPS], strict=False)]
    return seconds


def _row(measure: str, times: Mapping[str, Sequence[float]], name: str, reference: str, bound: float) -> Row:
    """Compare steps that were made in the same rounds."""
    ratio = statistics.median(ours / theirs for ours, theirs in zip(times[name], times[reference], strict=True))
    details = {"cpu_s": {key: list(times[key]) for key in (name, reference)}}
    return Row(measure, ratio, "", "<=", bound, details)
