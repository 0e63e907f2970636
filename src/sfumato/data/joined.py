# SPDX-License-Identifier: Apache-2.0
"""Collections of pictures one after the other, as one collection, without a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.data.fingerprint import fingerprint_of
from sfumato.data.resident import ResidentPictures
from sfumato.errors import DataError
from sfumato.types import Labels, Pixels


def join(parts: Sequence[Pictures]) -> Pictures:
    """Put collections one after the other.

    Args:
        parts: one at least, of pictures of one shape, in memory or streamed; of any data sets.

    Returns:
        One collection. Its tags are those that all parts have.

    Raises:
        DataError: two parts have pictures of different shapes.

    Example:
        >>> one = ResidentPictures(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> join([one, one]).labels
        tensor([0, 1, 0, 1])
    """
    filled = [part for part in parts if len(part)] or parts[:1]
    if len(filled) == 1:
        return filled[0]
    if len(shapes := {part.shape for part in filled}) > 1:
        raise DataError(f"pictures that are joined must be of one shape (C, H, W), got {sorted(shapes)}; bring them to one size")
    labels = torch.cat([part.labels for part in filled])
    common = set.intersection(*(set(part.tags) for part in filled))
    tags = {name: torch.cat([part.tags[name] for part in filled]) for name in filled[0].tags if name in common}
    return JoinedPictures(filled, labels, torch.arange(len(labels)), tags)


class JoinedPictures(Pictures):
    """Pictures of several collections, as `join` makes them.

    Args:
        parts: the collections.
        labels: (N,), int64, on the CPU.
        rows: (N,), int64, on the CPU: the place of each picture in the collections one after the other.
        tags: what else is known of each picture, by name, each (N,), int64, on the CPU.
    """

    def __init__(self, parts: Sequence[Pictures], labels: Labels, rows: Tensor, tags: Mapping[str, Tensor]) -> None:
        self.labels, self.tags, self.shape = labels, tags, parts[0].shape
        self._parts, self._rows = tuple(parts), rows
        self._stops = torch.tensor([len(part) for part in parts]).cumsum(0)

    def read(self, index: Tensor) -> Pixels:
        """Gather the pictures at `index`, (n,) int64, as stored, (n, C, H, W), where those of the first collection are."""
        rows = self._rows[index.cpu()]
        owner = torch.searchsorted(self._stops, rows, right=True)
        pixels = self._parts[0].read(rows[:0]).new_empty(len(rows), *self.shape)
        for number in owner.unique().tolist():
            place = (owner == number).nonzero()[:, 0]
            part = self._parts[number]
            found = part.read(rows[place] - (self._stops[number] - len(part)))
            pixels[place.to(pixels.device)] = found.to(pixels.device)
        return pixels

    def subset(self, index: Tensor) -> JoinedPictures:
        """Return the pictures at `index`, in that order; the collections are shared."""
        index = index.cpu()
        tags = {name: values[index] for name, values in self.tags.items()}
        return JoinedPictures(self._parts, self.labels[index], self._rows[index], tags)

    def relabeled(self, labels: Labels, tags: Mapping[str, Tensor]) -> JoinedPictures:
        """Return the same pictures with other labels and tags; the collections are shared."""
        return JoinedPictures(self._parts, labels, self._rows, tags)

    def to(self, device: torch.device | str) -> Pictures:
        """Return a copy on `device` where all is in memory, which is read fastest; itself where a part is streamed."""
        if not all(isinstance(part, ResidentPictures) for part in self._parts):
            return self
        return ResidentPictures(self.read(torch.arange(len(self))).to(device), self.labels, tags=self.tags)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels, labels and tags, hexadecimal."""
        return fingerprint_of(self)
