# SPDX-License-Identifier: Apache-2.0
"""The order of an epoch in which every batch holds P individuals with K pictures each.

Source: hermans2017triplet, Section 2 (P and K).
Departures: the paper draws individuals and pictures afresh for each batch. Here an epoch goes round all of them, so that none
comes much more often than another. The sampler of pytorch-metric-learning draws afresh too, and from the one stream of NumPy that
a whole process shares, so that a run would not resume to the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError
from sfumato.types import Labels


def pk_order(labels: Labels, *, identities: int, instances: int, generator: torch.Generator) -> Tensor:
    """Order pictures so that each `identities * instances` in a row show that many individuals, each as often as the others.

    An epoch is as long as the pictures are many, rounded down to whole batches, and one batch at least. Individuals differ by one
    appearance at most; each shows all its pictures before any of them comes again, and one of fewer than `instances` pictures
    repeats some.

    Args:
        labels: (N,), int64: who is seen on each picture.
        identities: individuals in a batch, P.
        instances: pictures of each in a batch, K.
        generator: the stream of the epoch.

    Returns:
        Which pictures, in which order, int64, on the device of the generator.

    Raises:
        ConfigError: P or K is below 1, or there are fewer than P individuals.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
        >>> order = pk_order(labels, identities=2, instances=2, generator=torch.Generator().manual_seed(0))
        >>> [batch.bincount().sort().values[-2:].tolist() for batch in labels[order].split(4)]
        [[2, 2], [2, 2]]
    """
    if identities < 1 or instances < 1:
        raise ConfigError(f"a batch needs at least 1 individual and 1 picture of each, got {identities} and {instances}")
    known, who = torch.unique(labels.to(generator.device), return_inverse=True)
    if len(known) < identities:
        raise ConfigError(
            f"batches of {identities} individuals, {instances} pictures of each, need that many, got {len(known)}; "
            f"take a batch_size of {len(known) * instances} at most, or more instances"
        )
    batches = max(1, len(labels) // (identities * instances))
    seen = _rounds(len(known), identities, batches, generator)
    return _pictures(who, seen, instances, generator)


def _rounds(count: int, size: int, batches: int, generator: torch.Generator) -> Tensor:
    """Go round 0 to count - 1 in random order, again and again; no batch of `size` holds one twice."""
    rounds: list[Tensor] = []
    begun = torch.empty(0, dtype=torch.int64, device=generator.device)  # the batch that the last round left incomplete
    for _ in range(-(-batches * size // count)):
        order = shuffled(count, generator)
        first = order[~torch.isin(order, begun)][: -len(begun) % size]
        order = torch.cat([first, order[~torch.isin(order, first)]])
        rounds.append(order)
        begun = order[count - (len(begun) + count) % size :]
    return torch.cat(rounds)[: batches * size]


def _pictures(who: Tensor, seen: Tensor, instances: int, generator: torch.Generator) -> Tensor:
    """Give each appearance of an individual the next of its pictures, going round them in an order of their own."""
    order = shuffled(len(who), generator)
    order = order[torch.sort(who[order], stable=True).indices]
    counts = torch.bincount(who)
    starts = counts.cumsum(0) - counts
    turn = _occurrence(seen)[:, None] * instances + torch.arange(instances, device=seen.device)
    return order[starts[seen][:, None] + turn % counts[seen][:, None]].flatten()


def _occurrence(values: Tensor) -> Tensor:
    """Return for each value how often it came before."""
    order = torch.sort(values, stable=True).indices
    counts = torch.bincount(values)
    starts = (counts.cumsum(0) - counts)[values[order]]
    before = torch.empty_like(values)
    before[order] = torch.arange(len(values), device=values.device) - starts
    return before
