# SPDX-License-Identifier: Apache-2.0
"""Random numbers for a deployed head that nobody else can predict.

Defenses in training draw from the streams of a seed, so that runs repeat. In deployment whoever knew the seed could take the
noise off again. There every number comes from the operating system's entropy, either at once (`Fresh`) or through a secret
that is drawn at each start and never leaves the process (`Sticky`).

Source: none; fips202 for SHAKE-256, the function that stretches the secret; box1958note for the normal numbers.
Equations: n = sqrt(-2 log u) (cos 2 pi v, sin 2 pi v), with u in (0, 1] and v in [0, 1) -> _normal; e = -log u -> _exponential
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sfumato.deploy.manifest import Distribution, Draw

_WORD = 8  # bytes of a random number before it is rounded to float32


class Source(Protocol):
    """Where the random bytes for a picture come from."""

    def draw(self, picture: bytes, count: int) -> bytes:
        """Return `count` random bytes for a picture, given as its bytes."""


class Fresh:
    """The operating system's entropy, anew for each picture and each time.

    Example:
        >>> Fresh().draw(b"picture", 16) == Fresh().draw(b"picture", 16)
        False
    """

    def draw(self, picture: bytes, count: int) -> bytes:
        """Return random bytes; what the picture is does not matter."""
        return os.urandom(count)


class Sticky:
    """The same bytes for the same picture, as long as this object lives; others for every other picture, device and start.

    Who sees one picture sent many times learns nothing from averaging. Who sees pictures that differ in one bit does.

    Example:
        >>> sticky = Sticky()
        >>> sticky.draw(b"picture", 16) == sticky.draw(b"picture", 16)
        True
        >>> sticky.draw(b"picture", 16) in (Sticky().draw(b"picture", 16), sticky.draw(b"another", 16))
        False
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)

    def draw(self, picture: bytes, count: int) -> bytes:
        """Return the bytes of a picture: SHAKE-256 of the secret, which has a fixed length, and the picture."""
        return hashlib.shake_256(self._secret + picture).digest(count)


def fill(draws: Sequence[Draw], pictures: NDArray[np.float32], source: Source) -> dict[str, NDArray[np.float32]]:
    """Draw what a head is to be given beside the pictures.

    Args:
        draws: its random inputs.
        pictures: (N, C, H, W), as the head gets them: a sticky source knows a picture by these bytes.
        source: of the random bytes.

    Returns:
        By name of the input, (N, *shape), float32.

    Example:
        >>> noise = fill([Draw("draw_0", "normal", (2, 3))], np.zeros((4, 1, 8, 8), np.float32), Fresh())
        >>> noise["draw_0"].shape
        (4, 2, 3)
    """
    if not draws:
        return {}
    sizes = [math.prod(draw.shape) for draw in draws]
    words = [_words(size, draw.distribution) for size, draw in zip(sizes, draws, strict=True)]
    raw = b"".join(source.draw(picture.tobytes(), _WORD * sum(words)) for picture in pictures)
    # 53 bits, the most that a float64 in [0, 1) holds: a tail cut off earlier would show in the noise.
    uniform = (np.frombuffer(raw, dtype="<u8").reshape(len(pictures), sum(words)) >> np.uint64(11)) * 2.0**-53
    parts = np.split(uniform, np.cumsum(words)[:-1], axis=1)
    return {
        draw.name: _TRANSFORMS[draw.distribution](part)[:, :size].astype(np.float32).reshape(len(pictures), *draw.shape)
        for draw, size, part in zip(draws, sizes, parts, strict=True)
    }


def _words(size: int, distribution: Distribution) -> int:
    """Return how many uniform numbers are needed: normal ones come in pairs."""
    return size + size % 2 if distribution == "normal" else size


def _normal(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = np.split(uniform, 2, axis=1)
    radius = np.sqrt(-2 * np.log1p(-first))  # 1 - u is never 0
    return np.concatenate([radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)], 1)


def _exponential(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log1p(-uniform)


def _uniform(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(uniform, np.nextafter(np.float32(1), np.float32(0)))  # rounding to float32 must not reach 1


_TRANSFORMS: Mapping[Distribution, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "normal": _normal,
    "uniform": _uniform,
    "exponential": _exponential,
}
