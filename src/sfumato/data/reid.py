# SPDX-License-Identifier: Apache-2.0
"""From pictures of individuals to a data set for re-identification, and what such a data set must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch

from sfumato.data.base import RETRIEVAL, Data, Pictures, Reading
from sfumato.data.decode import EncodedPart, decode_parts
from sfumato.data.picture import Encoded
from sfumato.data.retrieval import Retrieval, Sightings, divided, held_out, posed, unanswered
from sfumato.errors import DataError, MissingDataError

SIZE = 256
"""Side of the square that pictures are brought to unless a source is told otherwise, as in PATROL."""

_SHOWN = 5


def read_parts(name: str, parts: Mapping[str, Sightings], reading: Reading, *, size: int | None, seed: int) -> Data:
    """Read a data set of which some parts are given.

    Args:
        name: of the data set.
        parts: `train`, and `query` with `gallery`, or `test`, which is divided, or none of these: then individuals are held out.
        reading: how to read.
        size: side of the square that pictures are brought to; None keeps them.
        seed: of the splits.

    Raises:
        MissingDataError: there are queries without a gallery, or the other way round.
        DataError: a query has no answer, or there is none.
    """
    train, given = parts["train"], [part for part in RETRIEVAL if part in parts]
    if len(given) == 1:
        raise MissingDataError(
            f"{name}: query and gallery belong together, found only {given[0]}; add the other, or name it test and it is divided"
        )
    if given:
        test = posed(parts["query"], parts["gallery"])
    else:
        train, pictures = (train, parts["test"]) if "test" in parts else held_out(train, seed=seed)
        test = divided(pictures, seed=seed)
    return assemble(name, train, test, reading, size=size)


def assemble(name: str, train: Sightings, test: Retrieval, reading: Reading, *, size: int | None) -> Data:
    """Decode a data set for re-identification.

    Args:
        name: of the data set.
        train: the pictures to train on.
        test: the others.
        reading: gives the budget, and says whether bad pictures are skipped.
        size: side of the square that pictures are brought to; None keeps them.

    Returns:
        Data with the parts `train`, `test`, `query` and `gallery`; the last two share the pixels of `test`. Individuals are
        numbered in the order of their names, those of `train` first, and so are cameras, in the tag "camera".

    Raises:
        DataError: a query has no answer, or there is none.
        CorruptPictureError: a picture cannot be decoded, and bad ones are not skipped.
    """
    _check_queries(name, test)
    given = {"train": train, "test": test.sightings}
    classes = sorted(set(train.identities))
    identities = [*classes, *sorted(set(test.sightings.identities).difference(classes))]
    cameras = sorted({*train.cameras, *test.sightings.cameras})
    decoded = decode_parts({part: _by_row(seen) for part, seen in given.items()}, size=size, reading=reading)
    rows = {part: pictures.labels for part, pictures in decoded.parts.items()}
    parts: dict[str, Pictures] = {}
    for part, seen in given.items():
        who, by = _places(seen.identities, identities)[rows[part]], _places(seen.cameras, cameras)[rows[part]]
        parts[part] = decoded.parts[part].relabeled(who, {"camera": by})
    for part, mask in zip(RETRIEVAL, (test.query, test.gallery), strict=True):
        parts[part] = parts["test"].subset(torch.from_numpy(mask)[rows["test"]].nonzero()[:, 0])
    return Data(name=name, classes=tuple(classes), parts=parts, skipped=decoded.skipped, task="reidentification")


def check_identities(data: Data) -> None:
    """Raise unless a target can be trained and scored on re-identification.

    Args:
        data: of any source; the training pictures are those of `private` where it is there, else of `train`.

    Raises:
        DataError: a part or the tag "camera" is missing, an individual has one training picture only, a query
            has no answer, or the gallery holds one individual.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> check_identities(from_tensors(torch.rand(20, 1, 8, 8), torch.arange(20) % 2))
        Traceback (most recent call last):
        sfumato.errors.DataError: tensors: re-identification needs the parts query and gallery, found train, test; see reid-folder
    """
    trained = "private" if "private" in data.parts else "train"
    wanted = (trained, *RETRIEVAL)
    if missing := [part for part in wanted if part not in data.parts]:
        raise DataError(
            f"{data.name}: re-identification needs the parts {' and '.join(missing)}, found {', '.join(data.parts)}; "
            "see reid-folder"
        )
    for part in wanted:
        if "camera" not in (tags := data.part(part).tags):
            raise DataError(
                f'{data.name}: re-identification needs the tag "camera" of every picture, but {part} has '
                f"{', '.join(tags) or 'no tags'}; where cameras are unknown, give each picture one of its own"
            )
    _check_training(data, trained)
    query, gallery = data.part("query"), data.part("gallery")
    told = [values.numpy() for part in (query, gallery) for values in (part.labels, part.tags["camera"])]
    numbers = query.labels[torch.from_numpy(unanswered(*told))].unique().tolist()
    _check_answers(data.name, len(query), [_name(data, number) for number in numbers])
    if len(gallery.labels.unique()) < 2:
        raise DataError(f"{data.name}: a gallery of one individual makes every answer right; add pictures of others to it")


def _check_queries(name: str, test: Retrieval) -> None:
    told = test.sightings.where(test.unanswered())
    _check_answers(name, int(test.query.sum()), sorted(set(told.identities)))


def _check_answers(name: str, queries: int, individuals: Sequence[str]) -> None:
    if not queries:
        raise DataError(f"{name}: expected an individual of the test that two cameras saw, found none; there is nothing to ask")
    if individuals:
        raise DataError(
            f"{name}: a query is answered by pictures in the gallery of the same individual by another camera, but there is none "
            f"for {_listed(individuals)}; add one, or leave such queries out"
        )


def _check_training(data: Data, trained: str) -> None:
    numbers, counts = data.part(trained).labels.unique(return_counts=True)
    if single := [_name(data, number) for number in numbers[counts == 1].tolist()]:
        public = data.parts.get("public")
        remedy = ", or lower public=, which takes pictures away" if public is not None and len(public) else ""
        raise DataError(
            f"{data.name}: training compares pictures of the same individual, but {trained} has one only of {_listed(single)}; "
            f"add another, or leave them out{remedy}"
        )


def _name(data: Data, number: int) -> str:
    """Name an individual: those that are not trained on have numbers only."""
    return data.classes[number] if number < len(data.classes) else f"number {number}"


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}"


def _by_row(sightings: Sightings) -> EncodedPart:
    """Label each picture with its row, so that those that are skipped are known."""
    return EncodedPart(len(sightings), partial(_rows, sightings))


def _rows(sightings: Sightings) -> Iterator[Encoded]:
    return (Encoded(picture.name, picture.content, row) for row, picture in enumerate(sightings.pictures()))


def _places(values: Sequence[str], among: Sequence[str]) -> torch.Tensor:
    place = {value: number for number, value in enumerate(among)}
    return torch.tensor([place[value] for value in values], dtype=torch.int64)
