# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

import sfumato as sf
from sfumato.data.game import Game, play, repeated, require_disjoint
from sfumato.errors import ConfigError, DataError


def rows(pictures: object, count: int | None = None) -> set[bytes]:
    """The pixels of some pictures, each once."""
    index = torch.arange(len(pictures) if count is None else count)  # type: ignore[arg-type]
    return {bytes(row.numpy()) for row in pictures.read(index)}  # type: ignore[attr-defined]


def test_members_nonmembers_and_reference_are_disjoint(blobs: sf.Data) -> None:
    data = play(sf.partition(blobs, reference=0.2), members=50, seed=3)
    parts = [rows(data.part(name)) for name in ("private", "nonmembers", "reference", "test")]
    assert [len(part) for part in parts] == [50, 50, len(data.part("reference")), len(data.part("test"))]
    assert all(not a & b for place, a in enumerate(parts) for b in parts[:place])


def test_the_pool_says_who_is_a_member(blobs: sf.Data) -> None:
    data = play(blobs, members=40)
    game = Game(data)
    members = game.pool.subset(game.member.nonzero()[:, 0])
    assert rows(members) == rows(data.part("private"))
    assert members.fingerprint == data.part("private").fingerprint
    assert game.trained_on(game.member).part("private").fingerprint == data.part("private").fingerprint


@pytest.mark.parametrize("models", [2, 6])
def test_every_example_is_of_half_of_the_models_and_every_model_has_half(blobs: sf.Data, models: int) -> None:
    keep = Game(play(blobs, members=45), seed=1).keep(models)
    assert keep.shape == (models, 90)
    assert (keep.sum(0) == models // 2).all()
    assert (keep.sum(1) == 45).all()
    assert not torch.equal(keep[0], keep[2]) if models > 2 else True


def test_more_models_leave_the_first_as_they_are(blobs: sf.Data) -> None:
    game = Game(play(blobs, members=45), seed=1)
    assert torch.equal(game.keep(8)[:2], game.keep(2))
    assert not torch.equal(Game(game.data, seed=2).keep(2), game.keep(2))


def test_canaries_are_few_and_all_others_are_trained_on_by_everybody(blobs: sf.Data) -> None:
    data = play(blobs, members=100, canaries=20, canary="clean", seed=4)
    game = Game(data, seed=4)
    assert len(game.pool) == 20
    assert int(game.member.sum()) == 10
    assert len(data.part("private")) == 110
    trained = [rows(game.trained_on(keep).part("private")) for keep in game.keep(2)]
    assert len(trained[0] & trained[1]) == 100
    assert rows(game.pool) == (trained[0] | trained[1]) - (trained[0] & trained[1])


def test_mislabeled_canaries_have_another_class_and_the_others_their_own(blobs: sf.Data) -> None:
    truth = dict(
        zip((bytes(r.numpy()) for r in blobs.part("train").read(torch.arange(192))), blobs.part("train").labels, strict=True)
    )
    data = play(blobs, members=100, canaries=20)
    game, private = Game(data), data.part("private")
    asked = rows(game.pool)
    for pixels, label in zip(private.read(torch.arange(len(private))), private.labels, strict=True):
        row = bytes(pixels.numpy())
        assert (label == truth[row]) == (row not in asked)


@pytest.mark.parametrize(
    "arguments", [{"members": 1000}, {"members": 1}, {"canaries": 3}, {"canaries": -2}, {"members": -5, "canaries": 10}]
)
def test_a_game_that_cannot_be_played_is_refused(blobs: sf.Data, arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="192 pictures to train on"):
        play(blobs, **arguments)


def test_an_odd_number_of_models_and_data_without_a_game_are_refused(blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="references must be an even number >= 0, got 3"):
        Game(play(blobs)).keep(3)
    with pytest.raises(ConfigError, match="has no game"):
        Game(blobs)


def test_a_picture_on_both_sides_is_refused_and_repeats_are_counted(blobs: sf.Data) -> None:
    train = blobs.part("train")
    members, others = train.subset(torch.tensor([0, 1, 1, 2])), train.subset(torch.arange(10, 20))
    assert repeated(members, others) == (0, 1)
    assert require_disjoint(members, others) == 1
    relabeled = train.subset(torch.tensor([2, 30])).relabeled(torch.tensor([1, 1]), {})
    with pytest.raises(DataError, match="1 of 2 non-members have the pixels of a member"):
        require_disjoint(members, relabeled)
