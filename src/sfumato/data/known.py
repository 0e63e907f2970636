# SPDX-License-Identifier: Apache-2.0
"""Examples whose membership an adversary knows: it learns from them, and is asked about the others."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import ConfigError


def draw_known(member: Tensor, labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Draw the examples whose membership an adversary knows: the same share of each side, and of each class but for rounding.

    Args:
        member: (N,), bool.
        labels: (N,), int64: classes.
        share: [0, 1).
        generator: on the CPU.

    Returns:
        (N,), int64, on the device of `member`: 1 for a known member, 0 for a known non-member, -1 for the others.

    Raises:
        ConfigError: share is not within [0, 1).

    Example:
        >>> member, labels = torch.arange(8) < 4, torch.arange(8) % 2
        >>> draw_known(member, labels, 0.5, torch.Generator().manual_seed(0)).sort().values
        tensor([-1, -1, -1, -1,  0,  0,  1,  1])
    """
    if not 0 <= share < 1:
        raise ConfigError(f"known must be a share within [0, 1), got {share}; 0.5 tells the adversary half of the examples")
    known = torch.full_like(labels, -1, device="cpu")
    for side, inside in enumerate((~member.cpu(), member.cpu())):
        places = inside.nonzero()[:, 0]
        places = places[torch.randperm(len(places), generator=generator)]
        places = places[labels.cpu()[places].argsort(stable=True)]
        # One in 1 / share, counted through the classes, so that what is rounded off in one is made up for in the next.
        steps = (torch.arange(len(places) + 1, dtype=torch.float64) * share).floor()
        known[places[steps[1:] > steps[:-1]]] = side
    return known.to(member.device)
