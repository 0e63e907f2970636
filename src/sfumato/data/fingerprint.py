# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of pictures: one number for their content, wherever they are kept; and one for the pixels of each."""

from __future__ import annotations

import hashlib

import torch

from sfumato.data.base import Pictures

_CHUNK_BYTES = 1 << 20


def fingerprint_of(pictures: Pictures) -> str:
    """Hash shape, pixels, labels and tags, a chunk at a time.

    Args:
        pictures: resident on any device, or streamed.

    Returns:
        SHA-256, hexadecimal; equal for equal content.

    Example:
        >>> from sfumato.data.resident import ResidentPictures
        >>> pictures = ResidentPictures(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> len(fingerprint_of(pictures))
        64
    """
    digest = hashlib.sha256(repr((len(pictures), *pictures.shape)).encode())
    rows = max(1, _CHUNK_BYTES * len(pictures) // max(1, pictures.nbytes))
    for index in torch.split(torch.arange(len(pictures)), rows):
        digest.update(pictures.read(index).cpu().contiguous().numpy().data)
    digest.update(pictures.labels.numpy().astype("<i8").tobytes())
    for name, values in sorted(pictures.tags.items()):
        digest.update(name.encode() + values.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def pixel_hashes(pictures: Pictures) -> list[bytes]:
    """Hash the pixels of each picture, a chunk at a time, so that equal ones are found.

    Args:
        pictures: resident on any device, or streamed.

    Returns:
        SHA-256 of each, in order.

    Example:
        >>> from sfumato.data.resident import ResidentPictures
        >>> pictures = ResidentPictures(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> len(set(pixel_hashes(pictures)))
        1
    """
    parts = torch.arange(len(pictures)).split(1024)
    return [hashlib.sha256(row.tobytes()).digest() for part in parts for row in pictures.read(part).cpu().contiguous().numpy()]
