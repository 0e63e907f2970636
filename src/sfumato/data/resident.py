# SPDX-License-Identifier: Apache-2.0
"""Pictures, or rows of a table, that stay in memory, on the CPU or on an accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from sfumato.data.base import Pictures
from sfumato.data.fingerprint import fingerprint_of
from sfumato.errors import DataError
from sfumato.types import Labels, Pixels


class ResidentPictures(Pictures):
    """Pictures in one tensor. Subsets share that tensor until they move to another device.

    Args:
        pixels: (M, C, H, W), uint8; or float32, which is x as it is: of the rows of a table, (M, F, 1, 1). On any device.
        labels: (N,), int64; moved to the CPU.
        rows: (N,), int64, the row of `pixels` of each picture; None takes them all in order, and N is M.
        tags: what else is known of each picture, by name, each (N,), int64; moved to the CPU.

    Raises:
        DataError: pixels are neither uint8 nor float32, or not of four dimensions, or there is not one label, or one tag of a
            name, for each picture.

    Example:
        >>> pictures = ResidentPictures(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 1]))
        >>> pictures.subset(torch.tensor([2, 0])).labels
        tensor([1, 0])
    """

    def __init__(
        self, pixels: Pixels, labels: Labels, rows: Tensor | None = None, tags: Mapping[str, Tensor] | None = None
    ) -> None:
        if pixels.dtype not in (torch.uint8, torch.float32) or pixels.ndim != 4:
            raise DataError(
                f"pixels must be uint8 or float32, (N, C, H, W), got {pixels.dtype} {tuple(pixels.shape)}; see from_tensors"
            )
        count = len(pixels) if rows is None else len(rows)
        if labels.shape != (count,):
            raise DataError(f"{count} pictures need labels of shape ({count},), got {tuple(labels.shape)}")
        for name, values in (tags or {}).items():
            if values.shape != (count,):
                raise DataError(f"{count} pictures need tags '{name}' of shape ({count},), got {tuple(values.shape)}")
        self.labels = labels.to("cpu", torch.int64)
        self.tags = {name: values.to("cpu", torch.int64) for name, values in (tags or {}).items()}
        self.shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        self._pixels = pixels
        self._rows = None if rows is None else rows.to(pixels.device)

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self._pixels.device

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded pixels."""
        return super().nbytes * self._pixels.element_size()

    def read(self, index: Tensor) -> Pixels:
        """Gather the pictures at `index`, (n,) int64 on the CPU or on the device of the pixels, (n, C, H, W), as stored."""
        index = index.to(self.device)
        return self._pixels.index_select(0, index if self._rows is None else self._rows.index_select(0, index))

    def span(self, start: int, stop: int) -> Pixels:
        """Return the pictures from `start` up to `stop`, without a copy where they lie next to each other."""
        if self._rows is None:
            return self._pixels[start:stop]
        return self._pixels.index_select(0, self._rows[start:stop])

    def subset(self, index: Tensor) -> ResidentPictures:
        """Return the pictures at `index`, in that order; the pixels are shared."""
        index = index.cpu()
        rows = index if self._rows is None else self._rows.cpu()[index]
        tags = {name: values[index] for name, values in self.tags.items()}
        return ResidentPictures(self._pixels, self.labels[index], rows, tags)

    def relabeled(self, labels: Labels, tags: Mapping[str, Tensor]) -> ResidentPictures:
        """Return the same pictures with other labels and tags; the pixels are shared."""
        return ResidentPictures(self._pixels, labels, self._rows, tags)

    def to(self, device: torch.device | str) -> ResidentPictures:
        """Return the collection on `device`: itself where it is there already, else a copy of its own pictures only."""
        if torch.empty(0, device=device).device == self.device:  # "cuda" and "cuda:0" are the same place
            return self
        return ResidentPictures(self.span(0, len(self)).to(device), self.labels, tags=self.tags)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels, labels and tags, hexadecimal."""
        return fingerprint_of(self)
