# SPDX-License-Identifier: Apache-2.0
"""Tiny-ImageNet: the official folders, or parquet files of 50 of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.decode import EncodedPart, decode_parts
from sfumato.data.named import load_found
from sfumato.data.picture import Encoded
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import DataError

_OFFICIAL = Layout(Path("tiny-imagenet-200"), ("wnids.txt", "train", "val/images", "val/val_annotations.txt"))
_PARQUET = Layout(Path("tiny-imagenet-50c"), ("train.parquet", "val.parquet"))


@dataclass(frozen=True, kw_only=True)
class TinyImageNet(Source):
    """Tiny-ImageNet: 64x64 RGB, 200 classes of 500 pictures to train and 50 to validate, which are the part `test` here.

    Looked for below the data root: tiny-imagenet-200, the official folders, then tiny-imagenet-50c/{train,val}.parquet, a subset
    of 50 classes; `Data.name` says which was found.
    """

    def load(self, reading: Reading) -> Data:
        """Read the pictures."""
        found = locate("tiny-imagenet", [_OFFICIAL, _PARQUET], reading)
        if found.layout == _PARQUET:
            return load_found(found, reading)
        wnids, train, images, annotations = found.paths
        classes = tuple(wnids.read_text(encoding="utf-8").split())
        number = {name: place for place, name in enumerate(classes)}
        parts = {"train": _part(_training(train, number)), "test": _part(_validation(images, annotations, number))}
        decoded = decode_parts(parts, size=None, reading=reading)
        return Data(name="tiny-imagenet-200", classes=classes, parts=decoded.parts, skipped=decoded.skipped)


def _training(folder: Path, number: dict[str, int]) -> list[tuple[Path, int]]:
    pictures = []
    for name, place in number.items():
        files = sorted((folder / name / "images").glob("*.JPEG"))
        if not files:
            raise DataError(
                f"{folder / name / 'images'}: expected pictures of class {name}, found none; unpack the archive again"
            )
        pictures += [(file, place) for file in files]
    return pictures


def _validation(folder: Path, annotations: Path, number: dict[str, int]) -> list[tuple[Path, int]]:
    pictures = []
    for line, text in enumerate(annotations.read_text(encoding="utf-8").splitlines(), start=1):
        fields = text.split("\t")
        if len(fields) < 2 or fields[1] not in number:
            raise DataError(
                f"{annotations}, line {line}: expected a file and a class of wnids.txt, got '{text}'; get the file again"
            )
        pictures.append((folder / fields[0], number[fields[1]]))
    return pictures


def _part(pictures: Sequence[tuple[Path, int]]) -> EncodedPart:
    return EncodedPart(len(pictures), partial(_encoded, pictures))


def _encoded(pictures: Sequence[tuple[Path, int]]) -> Iterator[Encoded]:
    return (Encoded(str(path), path, label) for path, label in pictures)
