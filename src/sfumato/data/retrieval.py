# SPDX-License-Identifier: Apache-2.0
"""Pictures of individuals, and which of them are asked about and which are searched.

The protocol is that of the published sets: a query is answered by pictures in the gallery that show the same individual and were
taken by another camera.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sfumato import seeds
from sfumato.data.picture import Encoded
from sfumato.errors import DataError

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

_TEST_FRACTION = 0.2
_FEWEST = 2  # individuals: among one there is nothing to tell apart


class Sighting(NamedTuple):
    """A picture file, who is on it, and which camera took it."""

    path: Path
    identity: str
    camera: str


@dataclass(frozen=True)
class Sightings:
    """Encoded pictures of individuals.

    Args:
        identities: who is on each picture, in order.
        cameras: which camera took it, alike.
        pictures: starts to go through them; may be called more than once. Their labels do not matter.
    """

    identities: tuple[str, ...]
    cameras: tuple[str, ...]
    pictures: Callable[[], Iterator[Encoded]]

    @classmethod
    def of(cls, files: Sequence[Sighting]) -> Sightings:
        """Make sightings of picture files."""
        identities, cameras = tuple(file.identity for file in files), tuple(file.camera for file in files)
        return cls(identities, cameras, lambda: (Encoded(str(file.path), file.path, 0) for file in files))

    def where(self, mask: Mask) -> Sightings:
        """Return those that a mask, (N,), has."""
        kept = mask.tolist()
        identities, cameras = (tuple(itertools.compress(values, kept)) for values in (self.identities, self.cameras))
        return Sightings(identities, cameras, lambda: itertools.compress(self.pictures(), kept))

    def __add__(self, others: Sightings) -> Sightings:
        return Sightings(
            self.identities + others.identities,
            self.cameras + others.cameras,
            lambda: itertools.chain(self.pictures(), others.pictures()),
        )

    def __len__(self) -> int:
        return len(self.identities)


@dataclass(frozen=True)
class Retrieval:
    """The pictures of `test`, and what each of them is for; a picture may be asked about and be searched too.

    Args:
        sightings: N pictures.
        query: (N,), those that are asked about.
        gallery: (N,), those that are searched.
    """

    sightings: Sightings
    query: Mask
    gallery: Mask

    def unanswered(self) -> Mask:
        """Return which queries nothing in the gallery answers, (N,)."""
        who, by = _codes(self.sightings.identities), _codes(self.sightings.cameras)
        none = np.zeros_like(self.query)
        none[self.query] = unanswered(who[self.query], by[self.query], who[self.gallery], by[self.gallery])
        return none

    def answerable(self) -> Retrieval:
        """Return the same without queries that nothing answers, which the published protocols do not count either."""
        return replace(self, query=self.query & ~self.unanswered())


def unanswered(who: Numbers, by: Numbers, gallery_who: Numbers, gallery_by: Numbers) -> Mask:
    """Return which queries no picture answers: of the same individual, by another camera.

    Args:
        who: the individual of each query, (Q,), from 0.
        by: the camera of each query, (Q,), from 0.
        gallery_who: the individuals of the gallery, (G,).
        gallery_by: the cameras of the gallery, (G,).

    Returns:
        (Q,), bool.

    Example:
        >>> unanswered(np.array([0, 1]), np.array([0, 0]), np.array([0, 1, 1]), np.array([0, 0, 1])).tolist()
        [True, False]
    """
    cameras = 1 + max(by.max(initial=0), gallery_by.max(initial=0))
    same_camera = _occurrences(who * cameras + by, gallery_who * cameras + gallery_by)
    return np.equal(_occurrences(who, gallery_who), same_camera)


def posed(query: Sightings, gallery: Sightings) -> Retrieval:
    """Make a retrieval of queries and a gallery that lie apart."""
    asked = np.arange(len(query) + len(gallery)) < len(query)
    return Retrieval(query + gallery, asked, ~asked)


def divided(test: Sightings, *, seed: int) -> Retrieval:
    """Divide pictures into queries and a gallery, so that every query is answered.

    Of an individual that two cameras or more have seen more than once, one picture by each camera is a query, at random. Else the
    queries are all pictures by its first camera; one that a single camera has seen is in the gallery only.

    Args:
        test: the pictures.
        seed: of the choice.

    Example:
        >>> seen = Sightings(("a", "a", "b", "b"), ("front", "rear", "front", "front"), lambda: iter(()))
        >>> divided(seen, seed=0).query.tolist()
        [True, False, False, False]
    """
    who, by = _codes(test.identities), _codes(test.cameras)
    order = torch.randperm(len(test), generator=seeds.generator(seed, "split", "query")).numpy()
    pair = who * (by.max(initial=0) + 1) + by
    _, first, counts = np.unique(pair[order], return_index=True, return_counts=True)
    one = order[first]  # a picture of each pair, by individual and camera
    cameras, seen_again = np.bincount(who[one]), np.bincount(who[one], weights=counts > 1)
    first_camera = by[one][np.unique(who[one], return_index=True)[1]]
    often, rarely = np.isin(np.arange(len(test)), one), (by == first_camera[who]) & (cameras[who] > 1)
    query = np.where(seen_again[who] >= 2, often, rarely)
    return Retrieval(test, query, ~query)


def held_out(pictures: Sightings, *, seed: int) -> tuple[Sightings, Sightings]:
    """Take 20 % of the individuals, at random, for the test, two at least.

    Returns:
        The pictures of the others, and theirs.

    Raises:
        DataError: there are fewer than four individuals.
    """
    who = _codes(pictures.identities)
    people = len(np.unique(who))
    if people < 2 * _FEWEST:
        raise DataError(f"two individuals to train on and two others to test on were expected, got {people} in all; add pictures")
    order = torch.randperm(people, generator=seeds.generator(seed, "split", "individuals")).numpy()
    taken = np.isin(who, order[: max(_FEWEST, round(people * _TEST_FRACTION))])
    return pictures.where(~taken), pictures.where(taken)


def _codes(names: Sequence[str]) -> Numbers:
    """Number names in their sorted order."""
    return np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def _occurrences(values: Numbers, among: Numbers) -> Numbers:
    """Count how often each value is among others."""
    ordered = np.sort(among)
    return np.searchsorted(ordered, values, side="right") - np.searchsorted(ordered, values, side="left")
