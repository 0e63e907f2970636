# SPDX-License-Identifier: Apache-2.0
"""Pictures of a prior side by side in one picture file, to see how its training goes."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from sfumato.files import write_atomic
from sfumato.modules import device_of, eval_mode
from sfumato.priors.base import Prior
from sfumato.seeds import generator
from sfumato.types import Images, Pixels

SIDE = 8
"""Pictures in a row, and rows."""
_LEAST = 384  # pixels of a grid's side: smaller ones are enlarged, so that one sees them


def grid(x: Images, *, columns: int = SIDE) -> Pixels:
    """Put pictures side by side.

    Args:
        x: (N, C, H, W), [0, 1], N a multiple of `columns`.
        columns: in a row.

    Returns:
        (C, H N / columns, W columns), uint8, on the CPU.

    Example:
        >>> grid(torch.ones(4, 1, 2, 3), columns=2).shape
        torch.Size([1, 4, 6])
    """
    rows = [torch.cat(list(row), 2) for row in x.split(columns)]
    return (torch.cat(rows, 1).clamp(0, 1) * 255).round().to("cpu", torch.uint8)


@torch.no_grad()
def sample(prior: Prior, *, seed: int = 0, classes: int | None = None) -> Images:
    """Make the pictures of a grid: always of the same latents, so that grids of different steps show the same pictures become.

    Args:
        prior: the prior; its mode is left as it is found.
        seed: of the latents.
        classes: of a prior of kind "conditional", one after the other.
    """
    latents = prior.draw(SIDE * SIDE, generator(seed, "prior", "samples"))
    labels = None if classes is None else torch.arange(SIDE * SIDE, device=device_of(prior)) % classes
    with eval_mode(prior):
        x: Images = prior(latents, labels)
    return x


def write_grid(path: str | Path, x: Images) -> Path:
    """Write pictures, (N, C, H, W) in [0, 1], side by side as one PNG, enlarged where they are small.

    Raises:
        StorageError: it cannot be written.
    """
    pixels = grid(x).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :3])
    scale = -(-_LEAST // min(picture.size))
    if scale > 1:
        picture = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return write_atomic(path, stream.getvalue())
