# SPDX-License-Identifier: Apache-2.0
"""Drawn portraits of people who do not exist: identities to invert a classifier of, with factors that are known exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato import seeds
from sfumato.data.base import Data, Pictures, Reading
from sfumato.data.collect import Chunk, chunk_length, collect, remaining
from sfumato.data.portrait import FACTORS, NUISANCES, draw_portraits
from sfumato.data.source import Source
from sfumato.errors import ConfigError

SCALE = 10_000
"""The tag of a factor is its value times this."""

_RANGES = {"identities": (2, 100_000), "per_identity": (2, 10_000), "size": (16, 128)}


@dataclass(frozen=True, kw_only=True)
class Portraits(Source):
    """Drawn faces of people who do not exist, without a download.

    The tags "factor-skin", "factor-eye_gap" and so on, one for each name of `FACTORS`, are the identity's own, from 0 to 10,000,
    and the same for all its pictures. Who somebody is depends on the seed and the number of the identity, and a picture on these
    and its own number: more identities or pictures change none of those that are there.

    Args:
        identities: how many people.
        per_identity: pictures of each.
        size: side of the pictures in pixels, 16 to 128.
        test_share: of the pictures of each, (0, 1): the last ones are the part `test`; one at least, and not all.
        seed: of everything.

    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> data = Portraits(identities=4, per_identity=10, size=16).load(Reading())
        >>> len(data.part("train")), len(data.part("test")), data.shape
        (32, 8, (3, 16, 16))
    """

    identities: int = 100
    per_identity: int = 50
    size: int = 32
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ConfigError(f"portraits: {name} must be from {least} to {most}, got {value}")
        if not 0 < self.test_share < 1:
            raise ConfigError(
                f"portraits: test_share must be in (0, 1), a share of each identity's pictures, got {self.test_share}"
            )

    def load(self, reading: Reading) -> Data:
        """Draw the pictures.

        Raises:
            StorageError: the disk has not enough space for streamed pictures.
        """
        held_out = min(max(1, round(self.per_identity * self.test_share)), self.per_identity - 1)
        first = self.per_identity - held_out
        train = self._part(range(first), reading)
        test = self._part(range(first, self.per_identity), remaining(reading, train))
        names = tuple(f"identity {number}" for number in range(self.identities))
        return Data(name="portraits", classes=names, parts={"train": train, "test": test})

    def factors(self) -> Tensor:
        """Return what makes each identity, (identities, len(FACTORS)), float32, [0, 1], in steps of 1 / SCALE."""
        uniform = self._uniform(len(FACTORS), "identity", keys=((number,) for number in range(self.identities)))
        return (uniform * SCALE).round() / SCALE

    def _part(self, numbers: range, reading: Reading) -> Pictures:
        identity, number = torch.cartesian_prod(torch.arange(self.identities), torch.tensor(numbers)).unbind(1)
        factors, shape = self.factors()[identity], (3, self.size, self.size)
        chunks = self._chunks(factors, identity, number, chunk_length(shape, reading))
        pictures = collect(chunks, count=len(identity), shape=shape, reading=reading)
        told = (factors * SCALE).round().long().unbind(1)
        return pictures.relabeled(identity, {f"factor-{name}": tag for name, tag in zip(FACTORS, told, strict=True)})

    def _chunks(self, factors: Tensor, identity: Tensor, number: Tensor, length: int) -> Iterator[Chunk]:
        side, pixels = self.size, 3 * self.size * self.size
        for rows in torch.arange(len(identity)).split(length):
            keys = zip(identity[rows].tolist(), number[rows].tolist(), strict=True)
            drawn = self._uniform(NUISANCES + pixels, "picture", keys=keys)
            noise = drawn[:, NUISANCES:].reshape(-1, 3, side, side)
            yield draw_portraits(factors[rows], drawn[:, :NUISANCES], noise).numpy(), identity[rows].numpy()

    def _uniform(self, width: int, name: str, *, keys: Iterable[Iterable[int]]) -> Tensor:
        """Draw numbers in [0, 1), (n, width): a stream for each key, so that no row depends on how many there are."""
        streams = (seeds.generator(self.seed, "portraits", name, *key) for key in keys)
        return torch.stack([torch.rand(width, generator=stream) for stream in streams])
