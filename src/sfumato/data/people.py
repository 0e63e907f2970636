# SPDX-License-Identifier: Apache-2.0
"""Picture files by person, or by breed, each cut out as its papers do: what the sources of model inversion share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from sfumato.data.base import Data, Pictures, Reading
from sfumato.data.crop import Crop
from sfumato.data.decode import EncodedPart, decode_parts
from sfumato.data.partition import split_test
from sfumato.data.picture import Encoded, pictures_below
from sfumato.errors import DataError

Files = Mapping[str, Sequence[Path]]
"""Picture files by the name of who is on them."""

Cut = Callable[[Path], Crop | None]
"""Returns what to cut out of a file."""


def read_people(
    name: str, parts: Mapping[str, Files], reading: Reading, *, size: int, cut: Cut | Crop | None = None, seed: int = 0
) -> Data:
    """Read picture files by who is on them.

    Args:
        name: of the data set.
        parts: `train`, whose names are the classes, in order, and `test` where it is published; else 20 % of each are split off.
        reading: how to read.
        size: side of the square that pictures are brought to, once they are cut out.
        cut: what to cut out of every file, or a function that says so of each; None keeps all.
        seed: of the split.

    Raises:
        ConfigError: size is below 1.
        DataError: there is no class, `test` has another, or no class has two pictures and there is no `test`.
        CorruptPictureError: a picture cannot be decoded, and bad ones are not skipped.
        StorageError: the disk has not enough space for streamed pictures.
    """
    classes = tuple(parts["train"])
    for part, files in parts.items():
        if not files or not set(files) <= set(classes):
            raise DataError(f"{name}: expected pictures of {classes or 'somebody'} in {part}, found {list(files) or 'nobody'}")
    number = {who: place for place, who in enumerate(classes)}
    encoded = {part: _part(files, number, cut if callable(cut) else partial(_same, cut)) for part, files in parts.items()}
    decoded = decode_parts(encoded, size=size, reading=reading)
    pictures: Mapping[str, Pictures] = decoded.parts
    if "test" not in pictures:
        pictures = split_test(decoded.parts["train"], seed=seed)
    return Data(name=name, classes=classes, parts=pictures, skipped=decoded.skipped)


def by_folder(*folders: Path, named: Callable[[str], str] = str) -> dict[str, list[Path]]:
    """Return the picture files in a folder for each person, in the order of the names.

    Args:
        folders: hold the folders of people; a person may have one in several.
        named: makes a name of that of a folder.

    Raises:
        DataError: a person's folder has no picture.
    """
    files: dict[str, list[Path]] = {}
    found = (entry for folder in folders for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for entry in sorted(found, key=lambda entry: (named(entry.name), entry)):
        files.setdefault(named(entry.name), []).extend(pictures_below(entry))
    return files


def _same(crop: Crop | None, _: Path) -> Crop | None:
    return crop


def _part(files: Files, number: Mapping[str, int], cut: Cut) -> EncodedPart:
    listed = [(path, number[who]) for who, paths in files.items() for path in paths]

    def pictures() -> Iterator[Encoded]:
        return (Encoded(str(path), path, label, cut(path)) for path, label in listed)

    return EncodedPart(len(listed), pictures)
