# SPDX-License-Identifier: Apache-2.0
"""Any folder of class folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.decode import EncodedPart, decode_parts
from sfumato.data.partition import split_test
from sfumato.data.picture import Encoded, pictures_below
from sfumato.data.source import Source, require
from sfumato.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """Pictures in one folder for each class, which gives the class its name: path/cat/1.png, path/dog/2.png.

    Args:
        path: holds the class folders, or the folders train and test (or val) which do. Pictures lie in a class folder or below
            it; hidden files and files that are not pictures by their endings are passed over.
        test: such a folder for the test part; None takes the one below `path`, else splits 20 % of every class off.
        size: side of the square that pictures are brought to; None keeps them.
        seed: of the split.
    """

    path: str | Path
    test: str | Path | None = None
    size: int | None = None
    seed: int = 0

    def load(self, reading: Reading) -> Data:
        """Read the pictures.

        Raises:
            MissingDataError: a folder is not there.
            DataError: a folder has no class folders, a class has no picture, or train and test have different classes.
        """
        train, test = self._folders()
        classes = _classes(train)
        parts = {"train": _part(train, classes)}
        if test is not None:
            _check_same(train, classes, test)
            parts["test"] = _part(test, classes)
        decoded = decode_parts(parts, size=self.size, reading=reading)
        pictures = decoded.parts if test is not None else split_test(decoded.parts["train"], seed=self.seed)
        return Data(
            name=train.parent.name if train.name == "train" else train.name,
            classes=classes,
            parts=pictures,
            skipped=decoded.skipped,
        )

    def _folders(self) -> tuple[Path, Path | None]:
        path = require("folder", Path(self.path)).resolve()
        given = None if self.test is None else require("folder", Path(self.test)).resolve()
        inner = next((path / name for name in ("test", "val") if (path / name).is_dir()), None)
        if inner is not None and (path / "train").is_dir():
            return path / "train", given or inner
        return path, given


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of class folders, got a file; for parquet the file must end in .parquet")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(
            f"{folder}: expected a folder for each class, found none; put the pictures of a class into a folder of its name"
        )
    return tuple(names)


def _check_same(train: Path, classes: tuple[str, ...], test: Path) -> None:
    others = _classes(test)
    if others != classes:
        lacking, extra = sorted(set(classes) - set(others)), sorted(set(others) - set(classes))
        raise DataError(
            f"{test}: expected the classes of {train}, but it lacks {lacking or 'none'} and has {extra or 'none'} more"
        )


def _part(folder: Path, classes: tuple[str, ...]) -> EncodedPart:
    files = [(path, number) for number, name in enumerate(classes) for path in pictures_below(folder / name)]

    def pictures() -> Iterator[Encoded]:
        return (Encoded(str(path), path, number) for path, number in files)

    return EncodedPart(len(files), pictures)
