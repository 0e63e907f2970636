# SPDX-License-Identifier: Apache-2.0
"""The rows of a table as a data set, as Purchase100 and Texas100 are handed on: an npz file with features and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sfumato.data.base import Data, Reading
from sfumato.data.npz import read_arrays
from sfumato.data.source import Source
from sfumato.data.tensors import from_tensors
from sfumato.errors import DataError

_NAMES = (("x", "y"), ("features", "labels"))


@dataclass(frozen=True, kw_only=True)
class Table(Source):
    """Rows of numbers with a class each, from npz files. They reach a model as (N, F, 1, 1): it must begin by flattening them.

    Args:
        path: an npz file with the arrays `x` and `y`, or `features` and `labels`: (N, F) real numbers of any range, and (N,)
            class numbers from 0, or (N, C) with a 1 at the class. Nothing in it is unpickled.
        test: another such file; None splits 20 % of each class off.
        seed: of that split.
    """

    path: Path
    test: Path | None = None
    seed: int = 0

    def load(self, reading: Reading) -> Data:
        """Read the table.

        Raises:
            MissingDataError: there is no such file.
            DataError: it is not such a file.
        """
        x, y = _read(self.path)
        test = None if self.test is None else _read(self.test)
        return from_tensors(x, y, test=test, name=self.path.stem, seed=self.seed)


def _read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features, (N, F), and labels, (N,) int64."""
    present, found = read_arrays(path, [name for pair in _NAMES for name in pair], what="a table")
    names = next((pair for pair in _NAMES if set(pair) <= set(found)), None)
    if names is None:
        raise DataError(f"{path}: expected the arrays x and y, or features and labels, found {', '.join(present)}; name them so")
    x, y = (found[name] for name in names)
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected {names[0]} of shape (N, F) with numbers, found {x.dtype} {x.shape}")
    if y.ndim == 2 and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        y = y.argmax(1)
    return tuple(torch.from_numpy(one.astype(one.dtype.newbyteorder("="))) for one in (x, y))  # type: ignore[return-value]
