# SPDX-License-Identifier: Apache-2.0
"""What a source of data is, and how a source finds its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.errors import MissingDataError


class Source(ABC):
    """Where a data set comes from. A source is a frozen dataclass whose fields are its keys in a recipe."""

    @abstractmethod
    def load(self, reading: Reading) -> Data:
        """Read the data set.

        Args:
            reading: where the files are and how to read them.

        Returns:
            Data with the parts `train` and `test`.

        Raises:
            MissingDataError: files are not there.
            DataError: files are not what they should be.
            StorageError: the disk has not enough space for streamed pictures.
        """


@dataclass(frozen=True)
class Layout:
    """One form in which a data set may lie on the disk.

    Args:
        folder: absolute, or below the root.
        files: names below the folder, all of which are needed.
        compressed: whether each file may also end in ".gz".
    """

    folder: Path
    files: tuple[str, ...]
    compressed: bool = False

    def find(self, root: Path | None, file: str) -> Path | None:
        """Return the path of one file, or None where it is not there."""
        if root is None and not self.folder.is_absolute():
            return None
        path = (root or Path()) / self.folder / file
        endings = ("", ".gz") if self.compressed else ("",)
        candidates = (path.with_name(path.name + ending) for ending in endings)
        return next((candidate for candidate in candidates if candidate.exists()), None)

    def sought(self, root: Path | None) -> str:
        """Say for a message which files were looked for, where, and which of them are missing."""
        missing = [file for file in self.files if self.find(root, file) is None]
        state = "missing" if len(missing) == len(self.files) else f"missing only {', '.join(missing)}"
        names = ", ".join(file + "[.gz]" * self.compressed for file in self.files)
        return f"  in {'<data root>' / self.folder if root is None else root / self.folder}: {names} ({state})"


@dataclass(frozen=True)
class Found:
    """A data set that is on the disk.

    Args:
        layout: the form it was found in.
        paths: its files, in the order of the layout.
    """

    layout: Layout
    paths: tuple[Path, ...]


def locate(name: str, layouts: Sequence[Layout], reading: Reading, *, hint: str = "") -> Found:
    """Find a data set in the first layout that is complete.

    Args:
        name: of the data set.
        layouts: the forms that it may have, the best first.
        reading: gives the root.
        hint: another way to get the files, a sentence.

    Returns:
        The layout and the paths of its files.

    Raises:
        MissingDataError: no layout is complete. The message has the files, the folders, and how to set the root.

    Example:
        >>> locate("mnist", [Layout(Path("mnist"), ("a",))], Reading())
        Traceback (most recent call last):
        sfumato.errors.MissingDataError: mnist: its files are not there. Looked for
          in <data root>/mnist: a (missing)
        Put them there, and set the data root, the folder that holds data sets, with --data-root or SFUMATO_DATA (not set now).
    """
    for layout in layouts:
        paths = [layout.find(reading.root, file) for file in layout.files]
        found = tuple(path for path in paths if path is not None)
        if len(found) == len(paths):
            return Found(layout, found)
    places = "\n  or\n".join(layout.sought(reading.root) for layout in layouts)
    root = "not set now" if reading.root is None else f"now {reading.root}"
    raise MissingDataError(
        f"{name}: its files are not there. Looked for\n{places}\nPut them there, and set the data root, the folder that holds "
        f"data sets, with --data-root or SFUMATO_DATA ({root}).{' ' * bool(hint)}{hint}"
    )


def require(name: str, path: Path) -> Path:
    """Return a path that the user gave, which must exist.

    Raises:
        MissingDataError: there is nothing at `path`.
    """
    if not path.exists():
        raise MissingDataError(f"{name}: expected a file or folder at {path}, but nothing is there; correct the path")
    return path
