# SPDX-License-Identifier: Apache-2.0
"""The membership game: which examples an adversary is asked about, and which of them each model is trained on.

Source: carlini2022lira, Section III (every example is a member of half of the models); steinke2023canaries and
aerni2024evaluations (canaries: few examples are asked about, all others are trained on by every model).
Departures: carlini2022lira draws each example's half of the models at random; here models come in pairs, a random half of the
examples and the rest, so that any even number of models is balanced, every model trains on as many examples as the target, and
more models can be added to those that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.arguments import require_choice
from sfumato.data.base import Data, Pictures
from sfumato.data.fingerprint import pixel_hashes
from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError, DataError
from sfumato.seeds import generator

Canary = Literal["clean", "mislabeled"]
"""The few examples that are asked about: "clean" as they are; "mislabeled" under a wrong label, which a model can only know by
heart."""
_TAGS = ("asked", "member")


@dataclass(frozen=True)
class Game:
    """The examples that an adversary is asked about, and which of them each model is trained on.

    Args:
        data: what `play` returned.
        seed: of the reference models' halves.

    Raises:
        ConfigError: nobody has drawn a game from the data.
    """

    data: Data
    seed: int = 0

    def __post_init__(self) -> None:
        if "base" not in self.data.parts:
            raise ConfigError(f"{self.data.name} has no game: draw one first, with play(data, members=...)")

    @cached_property
    def base(self) -> Pictures:
        """What models are trained on parts of: the examples, and those that nobody is asked about."""
        pool = self.data.part("base")
        return pool.relabeled(pool.labels, {name: tag for name, tag in pool.tags.items() if name not in _TAGS})

    @cached_property
    def _asked(self) -> Tensor:
        return self.data.part("base").tags["asked"].bool()

    @cached_property
    def pool(self) -> Pictures:
        """The N examples, with the labels that they are trained with."""
        return self.base.subset(self._asked.nonzero()[:, 0])

    @property
    def member(self) -> Tensor:
        """Which of the examples the target is trained on, (N,), bool."""
        return self.data.part("base").tags["member"].bool()[self._asked]

    def trained_on(self, keep: Tensor) -> Data:
        """Return the data of a model that is trained on some of the examples.

        Args:
            keep: (N,), bool.
        """
        return self.data.with_parts(private=self.base.subset(self.rows(keep)))

    def rows(self, keep: Tensor) -> Tensor:
        """Return the places in `base` of what a model is trained on, ascending, int64.

        Args:
            keep: (N,), bool: which of the examples.
        """
        return _rows(self._asked, keep)

    def keep(self, models: int) -> Tensor:
        """Return which examples each of some reference models is trained on, (models, N), bool.

        Every example is one of exactly half of the models, every model has half of the examples, and the first rows are the same
        however many are asked for.

        Args:
            models: how many, even.

        Raises:
            ConfigError: models is negative or odd.

        Example:
            >>> from sfumato.data.tensors import from_tensors
            >>> from sfumato.data.partition import partition
            >>> data = partition(from_tensors(torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
            >>> Game(play(data, members=10)).keep(4).sum(0).unique()
            tensor([2])
        """
        if models < 0 or models % 2:
            raise ConfigError(
                f"references must be an even number >= 0, got {models}: each example is trained on by exactly half of them"
            )
        count = len(self.pool)
        rows = torch.zeros(models, count, dtype=torch.bool)
        for pair in range(models // 2):
            rows[2 * pair, shuffled(count, generator(self.seed, "keep", pair))[: count // 2]] = True
        rows[1::2] = ~rows[::2]
        return rows


def play(data: Data, *, members: int | None = None, canaries: int = 0, canary: Canary = "mislabeled", seed: int = 0) -> Data:
    """Draw the examples of a game from the pictures that a target trains on, and half of them as the target's members.

    Args:
        data: with all parts of `partition`; examples are drawn from `private`.
        members: how many the target is trained on; as many more are not. None is half of `private`.
        canaries: ask about so many examples instead, half of which the target is trained on, beside `members` others that every
            model is trained on; 0 asks about all.
        canary: what these are.
        seed: of the draw.

    Returns:
        The data set with the members as `private`, the other examples as `nonmembers`, and as `base` all that a model may be
        trained on, with the tags "asked" and "member".

    Raises:
        ConfigError: a number is out of range, or there are not enough pictures.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> from sfumato.data.partition import partition
        >>> data = partition(from_tensors(torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> played = play(data, members=12)
        >>> {name: len(played.part(name)) for name in ("private", "nonmembers", "base")}
        {'private': 12, 'nonmembers': 12, 'base': 24}
    """
    require_choice("canary", canary, get_args(Canary))
    private = data.part("private")
    asked = canaries if canaries else 2 * (len(private) // 2 if members is None else members)
    beside = 0 if not canaries else (len(private) - canaries if members is None else members)
    if asked < 4 or asked % 2 or canaries < 0 or beside < 0 or asked + beside > len(private):
        raise ConfigError(
            f"members must be at least 2, canaries 0 or even and at least 4, and members and as many non-members (or canaries "
            f"and the members beside them) are {asked + beside} pictures, got members={members}, canaries={canaries} with "
            f"{len(private)} pictures to train on; ask for fewer"
        )
    drawn = shuffled(len(private), generator(seed, "game"))[: asked + beside]
    tags = {name: torch.zeros(len(private), dtype=torch.int64) for name in _TAGS}
    tags["asked"][drawn[:asked]] = 1
    tags["member"][drawn[: asked // 2]] = 1
    labels = private.labels.clone()
    if canaries and canary == "mislabeled":
        labels[drawn[:asked]] = _wrong(labels[drawn[:asked]], len(data.classes), seed)
    place = drawn.sort().values
    base = private.relabeled(labels, private.tags).subset(place)
    tags = {name: tag[place] for name, tag in tags.items()}
    member, chosen = tags["member"].bool(), tags["asked"].bool()
    return data.with_parts(
        private=base.subset(_rows(chosen, member[chosen])),
        nonmembers=base.subset((chosen & ~member).nonzero()[:, 0]),
        base=base.relabeled(base.labels, {**base.tags, **tags}),
    )


def repeated(members: Pictures, nonmembers: Pictures) -> tuple[int, int]:
    """Count pictures that occur more than once, by a hash of their pixels.

    Args:
        members: some pictures.
        nonmembers: others.

    Returns:
        How many of the non-members are members too, and how many pictures repeat one of their own side.

    Example:
        >>> from sfumato.data.resident import ResidentPictures
        >>> pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
        >>> pictures = ResidentPictures(pixels, torch.arange(3))
        >>> repeated(pictures, pictures.subset(torch.tensor([1])))
        (1, 2)
    """
    inside, outside = pixel_hashes(members), pixel_hashes(nonmembers)
    known = set(inside)
    shared = sum(one in known for one in outside)
    return shared, len(inside) - len(known) + len(outside) - len(set(outside))


def require_disjoint(members: Pictures, nonmembers: Pictures) -> int:
    """Raise where a picture is a member and a non-member; return how many repeat one of their own side.

    Raises:
        DataError: pictures are on both sides.
    """
    shared, own = repeated(members, nonmembers)
    if shared:
        raise DataError(
            f"members and non-members must be different pictures, but {shared} of {len(nonmembers)} non-members have the pixels "
            "of a member; take them out of one side"
        )
    return own


def _rows(asked: Tensor, keep: Tensor) -> Tensor:
    """Return the places of the examples to keep, and of all that nobody is asked about."""
    trained = ~asked
    trained[asked.nonzero()[:, 0][keep]] = True
    return trained.nonzero()[:, 0]


def _wrong(labels: Tensor, classes: int, seed: int) -> Tensor:
    """Return another class for each label, drawn evenly."""
    if classes < 2:
        raise ConfigError("mislabeled canaries need a second class; use clean ones")
    return (labels + torch.randint(1, classes, labels.shape, generator=generator(seed, "mislabeled"))) % classes
