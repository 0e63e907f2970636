# SPDX-License-Identifier: Apache-2.0
"""How many rows of a search fit a budget of memory, measured on the search itself.

What a step holds beside its variables are the tensors that the backward pass needs. They are counted for one row and for two: the
difference is what a row costs, the rest what a step costs whatever its rows, and so memory is linear in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.attacks.weights.base import Means
from sfumato.attacks.weights.search import Found, Rows, Search, objective, search
from sfumato.errors import ConfigError
from sfumato.seeds import derive
from sfumato.types import Labels


def rows_within(memory: int, parts: Search, start: Sequence[Tensor], labels: Labels) -> int:
    """Return how many rows of a search may run at once.

    Args:
        memory: bytes that the tensors of one step may take.
        parts: what the search consists of.
        start: the variables to start from, each (R, ...).
        labels: the class of each row, (R,), int64.

    Returns:
        From 1 to R.

    Raises:
        ConfigError: not even one row fits.
    """
    one = held(parts, start, labels, 1)
    if one > memory:
        raise ConfigError(
            f"a search needs {one:,} bytes for one picture, and has {memory:,}; give it more memory, or a smaller prior or target"
        )
    if len(labels) == 1:
        return 1
    each = max(1, held(parts, start, labels, 2) - one)
    return min(len(labels), 1 + (memory - one) // each)


def held(parts: Search, start: Sequence[Tensor], labels: Labels, rows: int) -> int:
    """Return the bytes that the graph of a step with so many rows holds, each tensor's memory once.

    Args:
        parts: what the search consists of.
        start: the variables, each (R, ...).
        labels: the class of each row, (R,), int64.
        rows: how many of them.
    """
    found: dict[tuple[torch.device, int], int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[tensor.device, storage.data_ptr()] = storage.nbytes()
        return tensor

    variables = [one[:rows].clone().requires_grad_() for one in start]
    index = torch.arange(rows)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = objective(parts, variables, Rows(index, labels[:rows], len(labels), 0, 0))
    del kept  # until here, so that no memory is counted twice under one address
    return sum(found.values())


def search_within(means: Means, parts: Search, start: Sequence[Tensor], labels: Labels, *purpose: str | int) -> Found:
    """Search with as many rows at once as an adversary's memory takes.

    Args:
        means: what the adversary has.
        parts: what the search consists of.
        start: the variables to start from, each (R, ...).
        labels: the class of each row, (R,), int64, on their device.
        purpose: names the random numbers of this search, where an attack has several.
    """
    batch = rows_within(means.memory, parts, start, labels)
    return search(parts, start, labels, batch=batch, seed=derive(means.seed, *purpose), watch=means.watch)
