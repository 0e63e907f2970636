# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from sfumato.data.base import PARTS, Data, Pictures, Reading
from sfumato.data.identities import by_identity, disjoint, with_public
from sfumato.data.partition import split_test
from sfumato.data.portraits import Portraits
from sfumato.data.resident import ResidentPictures
from sfumato.errors import ConfigError, DataError

COUNTS = (6, 20, 5, 9, 20, 3, 12, 9)


def made(counts: Sequence[int] = COUNTS, *, names: Sequence[str] | None = None, first: int = 0, side: int = 2) -> Data:
    """Identities with so many pictures each; no two pictures are equal, and the tag "who" keeps the number of before."""
    who = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    numbers = torch.arange(first, first + len(who))
    pixels = torch.stack([numbers % 256, numbers // 256], dim=1).to(torch.uint8)[:, None, :, None].expand(-1, 1, 2, side)
    classes = tuple(names or (f"person {number}" for number in range(len(counts))))
    return Data("made", classes, split_test(ResidentPictures(pixels.contiguous(), who, tags={"who": who}), seed=0))


def who(pictures: Pictures) -> set[int]:
    return set(pictures.tags["who"].tolist())


def rows(pictures: Pictures) -> list[tuple[int, ...]]:
    return [tuple(row) for row in pictures.read(torch.arange(len(pictures))).flatten(1).tolist()]


def test_nobody_is_on_two_sides_and_no_picture_is_lost() -> None:
    data = made()
    parted = by_identity(data, private=3, pretrain=2, seed=4)
    sides = {name: who(parted.part(name)) for name in ("private", "pretrain", "public")}
    assert set().union(*sides.values()) == set(range(8))
    assert sum(len(side) for side in sides.values()) == 8
    assert who(parted.part("test")) == sides["private"]
    kept = [row for name in ("private", "test", "pretrain", "public") for row in rows(parted.part(name))]
    assert sorted(kept) == sorted(rows(data.part("train")) + rows(data.part("test")))


def test_those_with_the_most_pictures_are_private_with_their_names() -> None:
    parted = by_identity(made(), private=3)
    assert parted.classes == ("person 1", "person 4", "person 6")
    private = parted.part("private")
    assert torch.equal(private.tags["who"], torch.tensor([1, 4, 6])[private.labels])
    assert private.labels.bincount().tolist() == [16, 16, 10]
    assert parted.part("test").labels.bincount().tolist() == [4, 4, 2]


def test_ties_are_broken_by_the_seed() -> None:
    chosen = {by_identity(made([8] * 6), private=2, seed=seed).classes for seed in range(12)}
    assert len(chosen) > 3
    assert by_identity(made([8] * 6), private=2, seed=3).classes == by_identity(made([8] * 6), private=2, seed=3).classes


def test_parts_and_their_labels() -> None:
    parted = by_identity(made(), private=2, pretrain=2, seed=1)
    assert set(parted.parts) == {*PARTS, "pretrain"}
    assert parted.part("train") is parted.part("private")
    assert parted.part("inference") is parted.part("test")
    assert parted.part("auxiliary") is parted.part("public")
    assert parted.auxiliary == "public"
    assert parted.part("pretrain").labels.unique().tolist() == [2, 3]
    assert parted.part("public").labels.unique().tolist() == [4, 5, 6, 7]
    for name in ("pretrain", "public"):
        pairs = torch.stack([parted.part(name).labels, parted.part(name).tags["who"]], dim=1).unique(dim=0)
        assert len(pairs) == len(pairs[:, 0].unique()) == len(pairs[:, 1].unique())


def test_pretraining_is_drawn_by_the_seed_among_those_with_enough_pictures() -> None:
    drawn = [who(by_identity(made(), private=2, pretrain=2, least=6, seed=seed).part("pretrain")) for seed in range(20)]
    assert set().union(*drawn) == {0, 3, 6, 7}
    assert len({tuple(one) for one in drawn}) > 2
    assert not len(by_identity(made(), private=2).part("pretrain"))


def test_everybody_may_be_private_where_others_are_public() -> None:
    parted = by_identity(made(), least=6)
    assert who(parted.part("private")) == {0, 1, 3, 4, 6, 7}
    assert who(parted.part("public")) == {2, 5}
    alone = by_identity(made([6, 6]))
    assert not len(alone.part("public"))
    assert len(with_public(alone, made(first=500)).part("public")) == sum(COUNTS)


def test_a_private_identity_has_a_picture_in_train_and_one_in_test() -> None:
    data = made()
    held_out = data.part("test")
    lacking = data.with_parts(test=held_out.subset((held_out.labels != 4).nonzero()[:, 0]))
    assert by_identity(lacking, private=2).classes == ("person 1", "person 6")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"private": 1}, "private must be at least 2, got 1"),
        ({"pretrain": -1}, "pretrain must be at least 0"),
        ({"least": 1}, "least must be at least 2"),
    ],
)
def test_out_of_range(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        by_identity(made(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"private": 8}, "8 private identities of 5 pictures or more.*found 7 of 8"),
        ({"private": 3, "least": 12, "pretrain": 1}, "pretrain=1 identities of 12 pictures or more.*found 0"),
        ({"private": 5, "pretrain": 3, "least": 2}, "leave nobody of 8"),
        ({"least": 50}, "2 private identities of 50 pictures.*found 0"),
    ],
)
def test_not_enough_people(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        by_identity(made(), **arguments)


def test_another_task() -> None:
    with pytest.raises(ConfigError, match="made is for reidentification"):
        by_identity(replace(made(), task="reidentification"), private=2)


def test_public_pictures_of_another_data_set() -> None:
    parted, other = by_identity(made(), private=3, pretrain=2), made([4, 7], first=300)
    joined = with_public(parted, other)
    public = joined.part("public")
    assert sorted(rows(public)) == sorted(rows(other.part("train")) + rows(other.part("test")))
    assert public.labels.unique().tolist() == [5, 6]
    assert joined.part("auxiliary") is public
    assert joined.part("pretrain") is parted.part("pretrain")


def test_public_pictures_of_another_shape() -> None:
    with pytest.raises(DataError, match=r"\(1, 2, 2\) in made, but those of made are \(1, 2, 3\); read both with the same size="):
        with_public(by_identity(made(), private=3), made(side=3))


def test_the_same_name_on_both_sides() -> None:
    mine = by_identity(made([9] * 6, names=["Ann_Lee", "Bo Diaz", "carl-x", "Dora", "E. Fox", "Gil"]))
    other = made([4] * 6, names=["ann lee", "BO_DIAZ", "Carl X", "dora", "e fox", "gil"], first=300)
    with pytest.raises(DataError, match="for 6 of 6: Ann_Lee, Bo Diaz, carl-x, Dora, E. Fox and 1 more; take these out"):
        with_public(mine, other)
    with pytest.raises(DataError, match="for 1 of 6: Gil; take"):
        with_public(mine, made([4], names=["Gil"], first=300))


@pytest.mark.parametrize("name", ["7", "n000129", "identity 3", "-"])
def test_a_number_is_no_name(name: str) -> None:
    mine = by_identity(made([9, 9], names=[name, "Ann"]))
    assert len(with_public(mine, made([4], names=[name], first=300)).part("public")) == 4


def test_a_part_that_is_mostly_private_is_not_offered_to_be_tolerated() -> None:
    parted = by_identity(made(), private=3)
    with pytest.raises(DataError, match="of a private one; take other pictures$"):
        disjoint(parted.with_parts(public=parted.part("private")))


@pytest.mark.parametrize("part", ["private", "test"])
@pytest.mark.parametrize("side", ["public", "pretrain"])
def test_the_same_picture_on_both_sides(part: str, side: str) -> None:
    parted = by_identity(made(), private=3, pretrain=2)
    pixels = parted.part(part).read(torch.tensor([0]))
    mixed = torch.cat([parted.part(side).read(torch.arange(9)), pixels])
    doubled = parted.with_parts(**{side: ResidentPictures(mixed, torch.full((10,), 4))})
    with pytest.raises(DataError, match=f"but 1 of 10 of '{side}' have the pixels.*share of up to 0.1 .overlap in"):
        disjoint(doubled)
    with pytest.raises(DataError, match="1 of 10"):
        disjoint(doubled, tolerated=0.09)
    left, count = disjoint(doubled, tolerated=0.1)
    assert count == 1
    assert rows(left.part(side)) == rows(parted.part(side))[:9]
    assert left.part("auxiliary") is left.part("public")


def test_people_who_are_disjoint_stay() -> None:
    parted = by_identity(made(), private=3, pretrain=1)
    checked, count = disjoint(parted)
    assert count == 0
    assert all(checked.part(name) is parted.part(name) for name in parted.parts)
    with pytest.raises(ConfigError, match="tolerated must be in"):
        disjoint(parted, tolerated=1.0)


def test_portraits_keep_their_factors() -> None:
    source = Portraits(identities=12, per_identity=8, size=16)
    parted = by_identity(source.load(Reading()), private=4, pretrain=3)
    told = (source.factors() * 10_000).round().long()
    for name in ("private", "test", "pretrain", "public"):
        part = parted.part(name)
        assert set(part.tags["factor-skin"].tolist()) <= set(told[:, 0].tolist())
    assert [len(parted.part(name)) for name in ("private", "test", "pretrain", "public")] == [24, 8, 24, 40]
