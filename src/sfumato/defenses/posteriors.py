# SPDX-License-Identifier: Apache-2.0
"""What a defense at release works with: the answers of a model, posteriors as finite logits, the label kept, a hash of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from sfumato.modules import eval_mode
from sfumato.split import Split

Protect = Callable[[Tensor, torch.Generator | None], Tensor]
"""How a composition protects the features."""
FLOOR = 1e-12
"""The least posterior that is released: a probability of zero has no logarithm."""
_PRIME = 2**31 - 1
_BASE = 1_103_515_245


def answers(model: Split, protect: Protect, x: Tensor) -> Tensor:
    """Return what a model answers as deployed, before any `release`.

    Args:
        model: head and tail; their mode is left as it is found.
        protect: of the whole defense; it draws from the ambient stream.
        x: (N, C, H, W).

    Returns:
        Logits, (N, K), float32 or wider.

    Example:
        >>> model = Split(torch.nn.Identity(), torch.nn.Flatten())
        >>> answers(model, lambda z, generator: z + 1, torch.zeros(1, 2, 1, 1))
        tensor([[1., 1.]])
    """
    with eval_mode(model):
        logits: Tensor = model.tail(protect(model.head(x), None))
    return logits if logits.dtype == torch.float64 else logits.float()


def floored_log(posteriors: Tensor) -> Tensor:
    """Return the logarithm of posteriors, those below `FLOOR` raised to it.

    Args:
        posteriors: (N, C), [0, 1].

    Returns:
        (N, C), finite.

    Example:
        >>> floored_log(torch.tensor([[1.0, 0.0]])).isfinite().all().item()
        True
    """
    return posteriors.clamp(min=max(FLOOR, torch.finfo(posteriors.dtype).tiny)).log()


def keep_label(changed: Tensor, logits: Tensor) -> Tensor:
    """Return changed logits with the label of the original ones: where it is not the largest, it is raised just above the rest.

    Args:
        changed: (N, C), finite.
        logits: (N, C), the original ones.

    Returns:
        (N, C), with the same argmax as `logits`.

    Example:
        >>> keep_label(torch.zeros(1, 3), torch.tensor([[0.0, 2.0, 1.0]])).argmax(1)
        tensor([1])
    """
    label = logits.argmax(1, keepdim=True)
    others = changed.scatter(1, label, torch.finfo(changed.dtype).min).amax(1, keepdim=True)
    least = others + others.abs().clamp(min=1.0) * torch.finfo(changed.dtype).eps
    return changed.scatter(1, label, torch.maximum(changed.gather(1, label), least))


def fraction_of(content: Tensor) -> Tensor:
    """Return a number for each row of integers that looks random and is the same whenever the row is.

    Args:
        content: (N, C), int64.

    Returns:
        (N,), float64, [0, 1).

    Example:
        >>> first, again, other = fraction_of(torch.tensor([[3, 1], [3, 1], [1, 3]]))
        >>> bool(first == again), bool(first == other)
        (True, False)
    """
    weights = _weights(content.shape[1]).to(content.device)
    terms = content.remainder(_PRIME) * weights % _PRIME  # factors below 2**31 stay within 63 bits
    return (terms.sum(1) % _PRIME).double() / _PRIME


@lru_cache(maxsize=16)
def _weights(count: int) -> Tensor:
    """Return the powers of a base modulo a prime, (count,), int64."""
    return torch.tensor([pow(_BASE, place + 1, _PRIME) for place in range(count)])
