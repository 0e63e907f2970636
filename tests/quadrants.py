# SPDX-License-Identifier: Apache-2.0
"""Identities whose pictures can be judged by hand: each is the brightness of the four quarters of an 8x8 picture."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.court import Court
from sfumato.data.resident import ResidentPictures
from sfumato.defenses.compose import Compose
from sfumato.evaluator import Evaluator
from sfumato.judge import Judge
from sfumato.split import Split
from sfumato.target import Target

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)
KNOWN = Evaluator(model="quadrants:brightest")


def shown(quarters: Tensor) -> Tensor:
    """Pictures, (N, 1, 8, 8), of the brightness of their quarters, (N, 4)."""
    return quarters.view(-1, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)


def identity(labels: Tensor) -> Tensor:
    """The pictures of some classes: class k has quarter k white, and others a quarter of gray for each."""
    return shown(torch.nn.functional.one_hot(labels % 4, 4).float() * (1 - 0.4 * (labels // 4)[:, None]))


def brightest(classes: int, shape: tuple[int, int, int], gain: float = 10.0) -> nn.Module:
    """Names the brightest quarter, and embeds a picture as its quarters."""
    del shape
    linear = nn.Linear(4, classes, bias=False)
    linear.weight.data = gain * torch.eye(4)[:classes]
    return nn.Sequential(OrderedDict(pool=nn.AvgPool2d(4), flatten=nn.Flatten(), linear=linear))


def pooled(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Embeds a picture as twice its quarters: an embedding of the user's own."""
    del classes, shape
    pool = nn.Conv2d(1, 1, 4, 4, bias=False)
    pool.weight.data.fill_(2 / 16)
    return nn.Sequential(pool, nn.Flatten())


def noisy(labels: Tensor, seed: int, noise: float = 0.1, tags: dict[str, Tensor] | None = None) -> ResidentPictures:
    """Stored pictures of some classes, each quarter off by some noise."""
    stream = torch.Generator().manual_seed(seed)
    x = (0.8 * identity(labels) + 0.1 + noise * shown(torch.rand(len(labels), 4, generator=stream) - 0.5)).clamp(0, 1)
    return ResidentPictures((x * 255).round().to(torch.uint8), labels, tags=tags)


def people(classes: int = 4, each: int = 6, *, factors: bool = False) -> sf.Data:
    """Private, held-out and public pictures; the public identities have number on after the private ones."""

    def part(first: int, last: int, count: int, seed: int) -> ResidentPictures:
        labels = torch.arange(first, last).repeat(count)
        tags = {"factor-quarter": labels % 4 * 2500, "factor-gray": labels // 4 * 5000} if factors else None
        return noisy(labels, seed, tags=tags)

    private, test = part(0, classes, each, 0), part(0, classes, 3, 1)
    parts = {"train": private, "private": private, "test": test, "public": part(classes, classes + 4, 2 * each, 2)}
    return sf.Data(name="quadrants", classes=tuple(f"person {k}" for k in range(classes)), parts=parts)


def target(classes: int = 4, gain: float = 10.0) -> Target:
    """Names the brightest quarter too, by another architecture."""
    first = nn.Linear(4, 4)
    first.weight.data, first.bias.data = torch.eye(4), torch.zeros(4)
    net = brightest(classes, SHAPE, gain)
    return Target(Split(nn.Sequential(net.pool, net.flatten, first), net.linear), Compose())  # type: ignore[arg-type]


def court(data: sf.Data | None = None, evaluator: Evaluator = KNOWN) -> Court:
    """Who judges by the brightest quarter."""
    made = data or people()
    network = brightest(len(made.classes), SHAPE).eval()
    face = pooled(0, SHAPE).eval() if evaluator.face else None
    return Court(target(len(made.classes)), made, Judge(evaluator, network, SHAPE, face))
