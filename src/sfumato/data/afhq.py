# SPDX-License-Identifier: Apache-2.0
"""AFHQ: faces of animals in high quality; those of dogs are the public pictures of attacks on classifiers of dogs.

Source: choi2020stargan2.
Departures: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfumato.arguments import require_choice
from sfumato.data.base import Data, Reading
from sfumato.data.people import by_folder, read_people
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import DataError

Animal = Literal["all", "cat", "dog", "wild"]
"""Which faces."""


@dataclass(frozen=True, kw_only=True)
class Afhq(Source):
    """AFHQ: about 15,000 faces, 512x512, a third each of cats, dogs and wild animals.

    Looked for below the data root: afhq/{train,test} or, of its first version, afhq/{train,val}, each with the folders cat, dog
    and wild.

    Args:
        size: side of the square that pictures are brought to.
        animal: read these only; they are one class then, which serves as public pictures, not to train on.

    Raises:
        ConfigError: another `animal`.
    """

    size: int = 224
    animal: Animal = "all"

    def __post_init__(self) -> None:
        require_choice("animal", self.animal, get_args(Animal))

    def load(self, reading: Reading) -> Data:
        """Read the faces.

        Raises:
            DataError: an animal's folder is not there.
        """
        layouts = [Layout(Path("afhq"), ("train", held_out)) for held_out in ("test", "val")]
        parts: dict[str, dict[str, list[Path]]] = {}
        for part, folder in zip(("train", "test"), locate("afhq", layouts, reading).paths, strict=True):
            files = by_folder(folder)
            if missing := {*get_args(Animal)[1:]} - set(files):
                lacking = ", ".join(sorted(missing))
                raise DataError(f"{folder}: expected the folders cat, dog and wild, found no {lacking}; unpack the archive again")
            parts[part] = files if self.animal == "all" else {self.animal: files[self.animal]}
        return read_people("afhq", parts, reading, size=self.size)
