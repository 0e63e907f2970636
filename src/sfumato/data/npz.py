# SPDX-License-Identifier: Apache-2.0
"""The arrays of an .npz file: numbers only, nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sfumato.errors import DataError, MissingDataError


def read_arrays(path: Path, names: Collection[str], *, what: str) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of an .npz file.

    Args:
        path: the file.
        names: which arrays to read; others are not looked at.
        what: what the file should be, such as "a table", for messages.

    Returns:
        Those of the arrays that are there, by name.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is no whole .npz file, has none of the arrays, or one holds Python objects.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "a.npz"
        >>> np.savez(path, x=np.zeros(3), z=np.ones(2))
        >>> list(read_arrays(path, ("x", "y"), what="a table"))
        ['x']
    """
    if not path.is_file():
        raise MissingDataError(f"expected {what} at {path}, found no such file; check the path")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: expected {what}, an .npz file, found another kind; write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            present = [name for name in file.files if name in names]
            if not present:
                found = ", ".join(file.files) or "none"
                raise DataError(
                    f"{path}: expected {what} with some of the arrays {', '.join(names)}, found {found}; name them so"
                )
            return {name: file[name] for name in present}
    except DataError:
        raise
    except ValueError as error:
        raise DataError(
            f"{path}: expected arrays of numbers, found one that cannot be read ({error}); arrays of Python objects are refused, "
            "since reading them runs code: convert with numpy.asarray(..., dtype=float)"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected a whole .npz file, found a damaged one ({error}); write or copy it again") from error
