# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sfumato.data.retrieval import Retrieval, Sightings, divided, held_out, posed, unanswered
from sfumato.errors import DataError


def seen(pairs: Sequence[str]) -> Sightings:
    """Pictures such as "a1": of individual a, by camera 1."""
    return Sightings(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs), lambda: iter(()))


def test_unanswered_against_a_slow_loop() -> None:
    stream = np.random.default_rng(0)
    for _ in range(50):
        who, by = stream.integers(0, 4, 12), stream.integers(0, 3, 12)
        gallery_who, gallery_by = stream.integers(0, 4, 5), stream.integers(0, 3, 5)
        slow = [
            not any(other == person and far != camera for other, far in zip(gallery_who, gallery_by, strict=True))
            for person, camera in zip(who, by, strict=True)
        ]
        assert unanswered(who, by, gallery_who, gallery_by).tolist() == slow


def test_one_query_for_each_individual_and_camera() -> None:
    pictures = ["a1", "a1", "a1", "a2", "a2", "b3", "b1", "b1", "b3", "b2"]
    test = divided(seen(pictures), seed=0)
    asked = [pictures[row] for row in test.query.nonzero()[0]]
    assert sorted(asked) == ["a1", "a2", "b1", "b2", "b3"]
    assert (test.gallery == ~test.query).all()
    assert not test.unanswered().any()


def test_the_seed_chooses_the_queries() -> None:
    pictures = ["a1"] * 20 + ["a2"] * 20
    masks = [divided(seen(pictures), seed=seed).query.tolist() for seed in (0, 0, 1)]
    assert masks[0] == masks[1] != masks[2]


@pytest.mark.parametrize(
    ("pictures", "asked"),
    [
        (["a2", "a1"], ["a1"]),  # one picture by each camera
        (["a1", "a2", "a2", "a2"], ["a1"]),  # one query for each camera would leave those by 2 without an answer
        (["a2", "a1", "a1", "a3"], ["a1", "a1"]),
        (["a1", "a1", "b1", "b2"], ["b1"]),  # nothing answers a, which stays in the gallery
        (["a1", "b1", "b1"], []),
    ],
)
def test_individuals_that_were_seen_rarely(pictures: list[str], asked: list[str]) -> None:
    test = divided(seen(pictures), seed=0)
    assert [pictures[row] for row in test.query.nonzero()[0]] == asked
    assert int(test.query.sum() + test.gallery.sum()) == len(pictures)
    assert not test.unanswered().any()


def test_answerable_drops_queries_and_nothing_else() -> None:
    test = posed(seen(["a1", "a2", "b1"]), seen(["a1", "b1"]))
    assert test.unanswered().tolist() == [True, False, True, False, False]
    left = test.answerable()
    assert left.query.tolist() == [False, True, False, False, False]
    assert left.gallery.tolist() == test.gallery.tolist()


def test_a_picture_may_be_asked_about_and_searched() -> None:
    both = np.array([True, True])
    assert not Retrieval(seen(["a1", "a2"]), both, both).unanswered().any()
    assert Retrieval(seen(["a1", "a1"]), both, both).unanswered().all()


def test_held_out_individuals_are_whole() -> None:
    pictures = seen([f"{person}{camera}" for camera in "123" for person in "abcdefghij"])
    train, test = held_out(pictures, seed=0)
    assert len(set(test.identities)) == 2
    assert not set(train.identities) & set(test.identities)
    assert (len(train), len(test)) == (24, 6)
    assert {held_out(pictures, seed=seed)[1].identities for seed in range(5)} != {test.identities}
    with pytest.raises(DataError, match="two others to test on were expected, got 3 in all"):
        held_out(seen(["a1", "a2", "b1", "c1"]), seed=0)
