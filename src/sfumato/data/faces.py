# SPDX-License-Identifier: Apache-2.0
"""Two small sets of faces of real people, for research on privacy only."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.data.base import Data, Reading
from sfumato.data.named import load_named
from sfumato.data.source import Source


@dataclass(frozen=True, kw_only=True)
class LfwGray(Source):
    """Labeled Faces in the Wild: 381 people, 4,333 aligned faces, 96x96 gray, from lfw-gray/{train,test}.parquet.

    Args:
        size: side of the square that pictures are brought to; None keeps 96.
    """

    size: int | None = None

    def load(self, reading: Reading) -> Data:
        """Read the faces."""
        return load_named("lfw-gray", ("lfw-gray",), reading, size=self.size)


@dataclass(frozen=True, kw_only=True)
class Celeb21(Source):
    """A sample of Glint360K: 21 people, 3,108 aligned faces, 112x112 RGB, from celeb21/{train,test}.parquet.

    Args:
        size: side of the square that pictures are brought to; None keeps 112.
    """

    size: int | None = None

    def load(self, reading: Reading) -> Data:
        """Read the faces."""
        return load_named("celeb21", ("celeb21",), reading, size=self.size)
