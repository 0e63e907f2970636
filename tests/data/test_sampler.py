# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.data.sampler import pk_order
from sfumato.errors import ConfigError

MANY, FEW, TWO = [3, 9, 4, 17, 8, 5, 6, 12, 4, 7], [1, 2, 3, 40], [50, 50]


def labels_of(counts: list[int]) -> Tensor:
    """Individuals with gaps between their numbers, mixed."""
    labels = torch.repeat_interleave(torch.arange(len(counts)) * 3 + 5, torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(9))]


def ordered(labels: Tensor, p: int, k: int, seed: int = 0) -> Tensor:
    return pk_order(labels, identities=p, instances=k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("counts", "p", "k"), [(MANY, 4, 3), (MANY, 10, 2), (MANY, 7, 1), (MANY, 3, 5), (FEW, 3, 4), (TWO, 2, 8)]
)
def test_laws_of_an_epoch(counts: list[int], p: int, k: int) -> None:
    labels = labels_of(counts)
    order = ordered(labels, p, k)
    assert order.dtype == torch.int64
    assert len(order) == sum(counts) // (p * k) * (p * k)
    for batch in order.split(p * k):
        people, times = labels[batch].unique(return_counts=True)
        assert len(people) == p
        assert times.tolist() == [k] * p
    appearances = labels[order].unique(return_counts=True)[1] // k
    # in a short epoch some individuals do not appear at all
    fewest = int(appearances.min()) if len(appearances) == len(counts) else 0
    assert int(appearances.max()) - fewest <= 1
    for person, count in zip((torch.arange(len(counts)) * 3 + 5).tolist(), counts, strict=True):
        drawn = order[labels[order] == person].split(k)
        for pictures in drawn:  # no picture twice where there are enough, else each about equally often
            assert len(set(pictures.tolist())) == min(k, count)
        total = torch.cat(drawn) if drawn else torch.empty(0, dtype=torch.int64)
        assert len(set(total.tolist())) == min(len(total), count)


def test_a_small_set_makes_one_batch() -> None:
    order = ordered(torch.tensor([0, 1, 2]), 2, 4)
    assert len(order) == 8


def test_the_generator_decides() -> None:
    labels = labels_of(MANY)
    assert torch.equal(ordered(labels, 4, 3), ordered(labels, 4, 3))
    assert not torch.equal(ordered(labels, 4, 3), ordered(labels, 4, 3, seed=1))


def test_every_individual_meets_every_other() -> None:
    labels = torch.arange(6).repeat_interleave(200)
    met = torch.zeros(6, 6, dtype=torch.bool)
    for batch in labels[ordered(labels, 2, 2)].split(4):
        met[batch[:, None], batch] = True
    assert bool(met.all())


@pytest.mark.parametrize(
    ("p", "k", "message"),
    [(3, 2, "need that many, got 2; take a batch_size of 4 at most"), (0, 2, "got 0 and 2"), (2, 0, "2 and 0")],
)
def test_what_cannot_be(p: int, k: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ordered(labels_of(TWO), p, k)


@pytest.mark.gpu
def test_on_cuda() -> None:
    labels = labels_of(MANY)
    order = pk_order(labels, identities=4, instances=3, generator=torch.Generator("cuda").manual_seed(0))
    assert order.device.type == "cuda"
    assert len(labels[order.cpu()][:12].unique()) == 4
