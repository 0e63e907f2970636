# SPDX-License-Identifier: Apache-2.0
"""Cars by make and model: class labels for what else a picture of a vehicle gives away."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.data.base import Data, Reading
from sfumato.data.named import load_named
from sfumato.data.source import Source


@dataclass(frozen=True, kw_only=True)
class StanfordCars(Source):
    """Stanford Cars, 96 of its 196 models: 3,226 pictures to train and 811 to test, cut out to the car, longer side at most 128.

    Looked for below the data root: stanford-cars-96c/{train,test}.parquet.

    Args:
        size: side of the square that pictures are brought to; they are of varying size, so that None cannot be.
    """

    size: int = 128

    def load(self, reading: Reading) -> Data:
        """Read the cars."""
        return load_named("stanford-cars-96c", ("stanford-cars-96c",), reading, size=self.size)
