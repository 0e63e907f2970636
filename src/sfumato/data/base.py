# SPDX-License-Identifier: Apache-2.0
"""What a data set is: named parts of pictures, each a random-access collection of uint8 pixels with labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import ConfigError, UnknownNameError, nearest
from sfumato.types import Labels, Pixels, TaskName

PARTS = ("train", "test", "private", "public", "auxiliary", "inference")
"""`train` and `test` are the splits as published. `private` is what a target trains on and `public` the rest of `train`.
`auxiliary` is what an adversary trains on, and `inference` the pictures of inference time that it is scored on. Where it has a
share there is `reference` too: pictures of `train` that a defense compares `private` with, and that no audit asks about."""

RETRIEVAL = ("query", "gallery")
"""Further parts of re-identification: the pictures of `test` that are asked about, and those that are searched."""

REGION = ("top", "left", "bottom", "right")
"""Tags of the private region of a picture: rows top to bottom - 1, columns left to right - 1."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source reads its files.

    Args:
        root: the folder that holds data sets, or None for the source's own place.
        budget: bytes of decoded pixels that may stay in memory; a larger part is streamed from disk.
        skip_bad: go on without the pictures that cannot be decoded, and list them.
        spool: folder for the decoded copy of a streamed part, or None for the system's temporary folder.

    Raises:
        ConfigError: the budget is not positive.
    """

    root: Path | None = None
    budget: int = 2 << 30
    skip_bad: bool = False
    spool: Path | None = None

    def __post_init__(self) -> None:
        if self.budget <= 0:
            raise ConfigError(f"budget must be a positive number of bytes, got {self.budget}; 2147483648 is the default")


class Pictures(ABC):
    """Pictures with labels, read by index.

    Attributes:
        labels: (N,), int64, on the CPU.
        shape: (C, H, W), the same for every picture.
        tags: what else is known of each picture, by name, each (N,), int64, on the CPU: "camera" in re-identification, a private
            attribute such as "driver", the sides of a private `REGION`.
    """

    labels: Labels
    shape: tuple[int, int, int]
    tags: Mapping[str, Tensor]

    @abstractmethod
    def read(self, index: Tensor) -> Pixels:
        """Return the pictures at `index`, (n,) int64 on the CPU, as uint8 (n, C, H, W) where they live."""

    @abstractmethod
    def subset(self, index: Tensor) -> Pictures:
        """Return the pictures at `index`, in that order, as a collection."""

    @abstractmethod
    def relabeled(self, labels: Labels, tags: Mapping[str, Tensor]) -> Pictures:
        """Return the same pictures with other labels, (N,) int64, and other tags, each (N,) int64, all on the CPU."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Pictures:
        """Return the collection resident on `device`, or itself where it is streamed from disk."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels, labels and tags, hexadecimal; the same for the same content, resident or streamed."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded pixels."""
        channels, height, width = self.shape
        return len(self) * channels * height * width


@dataclass(frozen=True)
class Data:
    """A data set.

    Args:
        name: of the data set.
        classes: the name of each class, by its number.
        parts: pictures by part; a source gives `train` and `test`, `partition` adds the others.
        skipped: pictures left out because they could not be decoded, each as its file, or its file and row.
        auxiliary: which pictures the adversary has, as `partition` was told.
        task: what a target that is trained on it is for. In re-identification the classes are the individuals of `train`; those
            of `test`, `query` and `gallery` that are not among them have the next numbers; each picture has the tag "camera".
        left_out: public pictures that were left out since a private identity has the same.
    """

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Pictures]
    skipped: tuple[str, ...] = ()
    auxiliary: str = field(default="private")
    task: TaskName = "classification"
    left_out: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every picture."""
        return self.part("train").shape

    def part(self, name: str) -> Pictures:
        """Return a part by name.

        Args:
            name: one of `PARTS`.

        Raises:
            UnknownNameError: the data set has no such part.
        """
        if name not in self.parts:
            raise UnknownNameError(f"{self.name} has no part '{name}'{nearest(name, self.parts)}; it has {', '.join(self.parts)}")
        return self.parts[name]

    def with_parts(self, **parts: Pictures) -> Data:
        """Return the same data set with these parts added or replaced."""
        return replace(self, parts={**self.parts, **parts})
