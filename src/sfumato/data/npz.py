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


def read_arrays(path: Path, names: Collection[str], *, what: str) -> tuple[list[str], dict[str, npt.NDArray[Any]]]:
    """Read arrays of an .npz file.

    Args:
        path: the file.
        names: which arrays to read; others are not looked at.
        what: what the file should be, such as "a table", for messages.

    Returns:
        The names of all arrays in the file, and those arrays that are asked for and there, by name.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is no whole .npz file, or an array that is asked for holds Python objects.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "a.npz"
        >>> np.savez(path, x=np.zeros(3), z=np.ones(2))
        >>> found, arrays = read_arrays(path, ("x", "y"), what="a table")
        >>> found, list(arrays)
        (['x', 'z'], ['x'])
    """
    if not path.is_file():
        raise MissingDataError(f"expected {what} at {path}, found no such file; check the path")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: expected a whole .npz file, found another kind or a part; write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            return file.files, {name: np.asarray(file[name]) for name in file.files if name in names}
    except ValueError as error:
        raise DataError(
            f"{path}: expected arrays of numbers, found one that cannot be read ({error}); Python objects are refused, since "
            "reading them runs code: convert with numpy.asarray(..., dtype=float)"
        ) from error
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected a whole .npz file, found a damaged one ({error}); write or copy it again") from error
