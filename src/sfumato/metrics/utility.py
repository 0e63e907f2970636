# SPDX-License-Identifier: Apache-2.0
"""How useful a target still is."""

from __future__ import annotations

from torch import Tensor


def hits(logits: Tensor, y: Tensor) -> Tensor:
    """Return 1 where the highest logit is the label's, else 0.

    Args:
        logits: (N, K), any range.
        y: labels, (N,), int64, on the device of the logits.

    Returns:
        (N,), float32: its mean is the accuracy.

    Example:
        >>> import torch
        >>> hits(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor([1., 0.])
    """
    return (logits.argmax(1) == y).float()
