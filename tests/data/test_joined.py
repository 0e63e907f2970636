# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.data.base import Pictures
from sfumato.data.joined import JoinedPictures, join
from sfumato.data.loader import batches
from sfumato.data.resident import ResidentPictures
from sfumato.data.streamed import Spool, StreamedPictures
from sfumato.errors import DataError


def resident(start: int, count: int, **tags: int) -> ResidentPictures:
    """Pictures whose pixel is their number, and their label ten times that."""
    numbers = torch.arange(start, start + count)
    told = {name: torch.full((count,), value) for name, value in tags.items()}
    return ResidentPictures(numbers.to(torch.uint8).view(-1, 1, 1, 1), 10 * numbers, tags=told)


def streamed(start: int, count: int) -> StreamedPictures:
    spool = Spool(1, count)
    spool.append(np.arange(start, start + count, dtype=np.uint8))
    numbers = torch.arange(count)
    return StreamedPictures(spool, 10 * (numbers + start), (1, 1, 1), numbers)


def numbers(pictures: Pictures) -> list[int]:
    return pictures.read(torch.arange(len(pictures))).flatten().tolist()


def test_one_after_the_other_in_any_order() -> None:
    joined = join([resident(0, 3), streamed(3, 4), resident(7, 2).subset(torch.tensor([1, 0]))])
    assert numbers(joined) == [0, 1, 2, 3, 4, 5, 6, 8, 7]
    assert joined.labels.tolist() == [0, 10, 20, 30, 40, 50, 60, 80, 70]
    assert joined.read(torch.tensor([8, 0, 4, 8])).flatten().tolist() == [7, 0, 4, 7]
    assert joined.read(torch.tensor([], dtype=torch.int64)).shape == (0, 1, 1, 1)


def test_subsets_of_subsets() -> None:
    some = join([resident(0, 3), resident(3, 4)]).subset(torch.tensor([6, 1, 3])).subset(torch.tensor([2, 0]))
    assert (numbers(some), some.labels.tolist()) == ([3, 6], [30, 60])


def test_tags_that_all_have_and_new_labels() -> None:
    joined = join([resident(0, 2, camera=1, color=5), resident(2, 1, camera=2)])
    assert {name: tag.tolist() for name, tag in joined.tags.items()} == {"camera": [1, 1, 2]}
    again = joined.relabeled(torch.tensor([4, 5, 6]), {"kind": torch.tensor([7, 8, 9])})
    assert (numbers(again), again.labels.tolist()) == ([0, 1, 2], [4, 5, 6])
    assert again.subset(torch.tensor([2])).tags["kind"].tolist() == [9]


def test_what_is_in_memory_moves_and_what_is_streamed_stays() -> None:
    here = join([resident(0, 2), resident(5, 2)]).subset(torch.tensor([3, 0]))
    moved = here.to("cpu")
    assert isinstance(moved, ResidentPictures)
    assert (numbers(moved), moved.labels.tolist()) == ([6, 0], [60, 0])
    there = join([resident(0, 2), streamed(2, 2)])
    assert there.to("cpu") is there


def test_the_fingerprint_is_of_the_content() -> None:
    joined = join([resident(0, 2), streamed(2, 3)])
    assert joined.fingerprint == resident(0, 5).fingerprint != join([streamed(2, 3), resident(0, 2)]).fingerprint


def test_the_loader_reads_it() -> None:
    joined = join([resident(0, 2), streamed(2, 3)])
    found = [(255 * x).round().flatten().int().tolist() for x, _ in batches(joined, size=2, device="cpu")]
    assert found == [[0, 1], [2, 3], [4]]


def test_nothing_to_join() -> None:
    one, none = resident(0, 2), resident(0, 0)
    assert join([none, one]) is one
    assert len(join([none, none])) == 0
    assert isinstance(join([one, one]), JoinedPictures)


def test_unequal_shapes() -> None:
    wide = ResidentPictures(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match=r"one shape.*\(1, 1, 1\), \(1, 2, 2\)"):
        join([wide, resident(0, 1)])
