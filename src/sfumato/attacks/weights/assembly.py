# SPDX-License-Identifier: Apache-2.0
"""What the assemblies of a search share: the rows of several classes, where they start, and the pictures that come of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.attacks.weights.base import Means
from sfumato.inversion_types import ClassPictures
from sfumato.types import Images, Labels

_AT_ONCE = 64
PASSAGE = 256
"""How often its own bytes a picture is taken to need on its way through prior and target."""


def rows_of(labels: Labels, each: int) -> Labels:
    """Return the class of every row where each class has so many rows, one class after the other, (K * each,).

    Example:
        >>> rows_of(torch.tensor([3, 1]), 2)
        tensor([3, 3, 1, 1])
    """
    return labels.repeat_interleave(each)


def drawn(means: Means, labels: Labels, each: int) -> Tensor:
    """Draw latents to start from: those of a class are the same whichever other classes are attacked.

    Args:
        means: what the adversary has.
        labels: the classes, (K,), int64.
        each: latents of a class.

    Returns:
        (K * each, latent), float32, in the order of `rows_of`.
    """
    return torch.cat([means.prior.draw(each, means.stream("start", label)) for label in labels.tolist()])


def at_once(means: Means, most: int = _AT_ONCE) -> int:
    """Return how many pictures may go through prior and target at once where no gradient is wanted: as memory allows.

    Args:
        means: what the adversary has.
        most: more are of no use.
    """
    each = 4 * torch.Size(means.prior.image_shape).numel() * PASSAGE
    return max(1, min(most, means.memory // each))


@torch.no_grad()
def pictures(
    means: Means, decode: Callable[[Tensor, Labels], Images], latents: Tensor, *, labels: Labels, losses: Tensor
) -> ClassPictures:
    """Make the pictures that a search came to.

    Args:
        means: what the adversary has.
        decode: makes pictures of latents, given their classes.
        latents: (K * n, ...), in the order of `rows_of`.
        labels: the classes, (K,), int64.
        losses: of each row, (K * n,): of each class the picture with the lowest goes first, of equals the earlier.
    """
    each = len(latents) // len(labels)
    order = losses.view(len(labels), each).argsort(dim=1, stable=True)
    rows = (order + each * torch.arange(len(labels), device=order.device)[:, None]).flatten()
    latents, shown = latents[rows], rows_of(labels, each)
    size = at_once(means)
    made = [decode(some, own).cpu() for some, own in zip(latents.split(size), shown.split(size), strict=True)]
    x_hat = torch.cat(made).float().clamp(0, 1)
    return ClassPictures(x_hat.unflatten(0, (len(labels), each)), torch.ones(len(labels), dtype=torch.bool))
