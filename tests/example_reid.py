# SPDX-License-Identifier: Apache-2.0
"""A toy street: individuals are colored blobs, and cameras see them before backgrounds of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

import sfumato as sf
from sfumato.data.partition import partition
from sfumato.data.resident import ResidentPictures

CAMERAS = 3
COLORS = torch.tensor([[r, g, b] for r in (0.1, 0.5, 0.9) for g in (0.1, 0.5, 0.9) for b in (0.2, 0.8)])


def sightings(individuals: Sequence[int], times: int = 2, seed: int = 0) -> ResidentPictures:
    """Each individual seen by each camera some times, 8x8 pixels."""
    stream = torch.Generator().manual_seed(seed)
    who = torch.tensor(individuals).repeat_interleave(times * CAMERAS)
    camera = torch.arange(len(who)) % CAMERAS
    x = torch.rand(len(who), 3, 8, 8, generator=stream) * 0.15 + 0.3 * camera[:, None, None, None] / CAMERAS
    x[:, :, 2:6, 2:6] = COLORS[who][:, :, None, None] * 0.8 + torch.rand(len(who), 3, 4, 4, generator=stream) * 0.1
    return ResidentPictures((x * 255).round().to(torch.uint8), who, tags={"camera": camera})


def street(known: int = 12) -> sf.Data:
    """Individuals to train on, and six others to find again: the first camera asks, the others answer."""
    test = sightings(range(known, known + 6), seed=1)
    query = test.tags["camera"] == 0
    parts = {
        "train": sightings(range(known), times=4),
        "test": test,
        "query": test.subset(query.nonzero()[:, 0]),
        "gallery": test.subset((~query).nonzero()[:, 0]),
    }
    return partition(sf.Data("toy street", tuple(map(str, range(known))), parts, task="reidentification"))


def embedding_net(classes: int = 12) -> nn.Sequential:
    """A head of two convolutions, and a tail that averages over places and names individuals."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, classes),
        )


def net(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """The net as a recipe asks for it."""
    del shape
    return embedding_net(classes)


def street_split(classes: int = 12) -> sf.Split:
    return sf.split(embedding_net(classes), at="1")
