# SPDX-License-Identifier: Apache-2.0
"""Identities attacked at once against one at a time, and what the memory of a search grows with."""

from __future__ import annotations

import statistics
import time

import torch

from bench.row import Row
from sfumato.attacks.weights.assembly import drawn
from sfumato.attacks.weights.base import MEMORY, Means
from sfumato.attacks.weights.budget import held, rows_within
from sfumato.attacks.weights.gmi import GMI
from sfumato.attacks.weights.latents import PointSearch
from sfumato.attacks.weights.objectives import cross_entropy, identity
from sfumato.data.resident import ResidentPictures
from sfumato.defenses.compose import Compose
from sfumato.models.critic import Critic
from sfumato.models.generator import Generator
from sfumato.models.resolve import build_model
from sfumato.parallel import torch_threads
from sfumato.priors.base import Prior
from sfumato.seeds import ambient, generator
from sfumato.split import whole
from sfumato.target import Target, WeightsView

IDENTITIES, STEPS, ROUNDS = 20, 10, 5
SHAPE, LATENT, WIDTH = (3, 32, 32), 100, 32


def run() -> list[Row]:
    """Measure a search of plain GAN latents, 32x32 pictures, one thread."""
    with torch_threads(1):
        return [_together(), *_memory()]


def _means() -> Means:
    """An adversary of a classifier that was not trained: what a step costs does not depend on the weights."""
    with ambient(0, "bench"):
        prior = Prior(
            "gan", Generator(SHAPE, latent=LATENT, width=WIDTH), Critic(SHAPE, channels=WIDTH), latent=LATENT, image_shape=SHAPE
        )
    model = build_model("resnet20", classes=IDENTITIES, shape=SHAPE)
    view = Target(whole(model), Compose()).eval().view("weights", generator(0, "view"))
    assert isinstance(view, WeightsView)
    public = ResidentPictures(torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    return Means(view, prior.eval().requires_grad_(False), public, IDENTITIES, 0, MEMORY, lambda done, total: None)


def _together() -> Row:
    """Attack all identities in one batch and one after the other, in turns."""
    means, attack = _means(), GMI(steps=STEPS, per_class=1)
    labels = torch.arange(IDENTITIES)
    attack.invert(means, labels[:1])  # warm up
    seconds: dict[str, list[float]] = {"at once": [], "one at a time": []}
    for _ in range(ROUNDS):
        for name, groups in (("at once", [labels]), ("one at a time", list(labels.split(1)))):
            start = time.process_time()
            for group in groups:
                attack.invert(means, group)
            seconds[name].append(time.process_time() - start)
    ratio = statistics.median(alone / once for once, alone in zip(seconds["at once"], seconds["one at a time"], strict=True))
    return Row(f"{IDENTITIES} identities one at a time, times the time of all at once", ratio, "", ">=", 2.5, {"cpu_s": seconds})


def _memory() -> list[Row]:
    """Count what the graph of a step holds, by its rows, and how many rows a budget gives."""
    means, attack = _means(), PointSearch(steps=STEPS, per_class=1)
    parts, labels = attack.parts(means, [(1.0, identity(cross_entropy))]), torch.arange(IDENTITIES)
    start = [drawn(means, labels, 1)]
    taken = {rows: held(parts, start, labels, rows) for rows in (1, 2, 4, 8, 16)}
    each = taken[2] - taken[1]
    budget = taken[1] + 9 * each
    details = {"bytes": {str(rows): count for rows, count in taken.items()}}
    return [
        Row(
            "memory of each further row of a search, of the second's",
            (taken[16] - taken[2]) / (14 * each),
            "",
            "<=",
            1.01,
            details,
        ),
        Row("the same, at least", (taken[16] - taken[2]) / (14 * each), "", ">=", 0.99, details),
        Row("rows that fit the memory of 10", rows_within(budget, parts, start, labels), "", ">=", 10, {"budget": budget}),
    ]
