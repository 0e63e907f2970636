# SPDX-License-Identifier: Apache-2.0
"""A batch as the hooks of a defense see it, made by hand."""

from __future__ import annotations

import torch

import sfumato as sf
from sfumato.types import Step


def step_of(split: sf.Split, defense: sf.Defense, pictures: int = 12) -> Step:
    """The forward pass of one batch of random 1x8x8 pictures of two classes."""
    stream = torch.Generator().manual_seed(3)
    x = torch.rand(pictures, 1, 8, 8, generator=stream)
    z = split.head(x)
    protected = defense.protect(z, stream)
    return Step(
        x=x, y=torch.arange(pictures) % 2, z=z, protected=protected, logits=split.tail(protected), model=split, epoch=0, index=0,
        learning_rate=0.1, generator=stream,
    )  # fmt: skip
