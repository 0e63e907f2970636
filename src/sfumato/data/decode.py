# SPDX-License-Identifier: Apache-2.0
"""Many encoded pictures, decoded by threads in bounded chunks, in order, and checked to be of one shape."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato.data.base import Pictures, Reading
from sfumato.data.collect import Chunk, chunk_length, collect, remaining
from sfumato.data.picture import Encoded, decode
from sfumato.errors import ConfigError, CorruptPictureError, DataError

_MOST_THREADS = 8
_SMALL_PIXELS = 64 * 64


@dataclass(frozen=True)
class EncodedPart:
    """The encoded pictures of one part.

    Args:
        count: how many.
        pictures: starts to go through them; may be called more than once.
    """

    count: int
    pictures: Callable[[], Iterator[Encoded]]


@dataclass(frozen=True)
class Decoded:
    """Decoded parts.

    Args:
        parts: pictures by part.
        skipped: names of the pictures that could not be decoded.
    """

    parts: dict[str, Pictures]
    skipped: tuple[str, ...]


def decode_parts(parts: Mapping[str, EncodedPart], *, size: int | None, reading: Reading) -> Decoded:
    """Decode the parts of a data set: all gray if every picture is, else all RGB.

    Args:
        parts: encoded pictures by part.
        size: side of the square that every picture is brought to; None keeps them, and they must be of equal size.
        reading: gives the budget, which the parts share, and says whether bad pictures are skipped.

    Returns:
        The parts, in order, and the names of the skipped pictures.

    Raises:
        ConfigError: `size` is below 1.
        CorruptPictureError: a picture cannot be decoded, and bad ones are not skipped.
        DataError: two pictures are of unequal size, or a part has no picture.
        StorageError: the disk has not enough space for streamed pictures.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size must be at least 1 pixel, got {size}")
    try:
        return _decode_parts(parts, size, reading, color=False)
    except _ColorFound:  # after gray ones only, which is rare: start again
        return _decode_parts(parts, size, reading, color=True)


class _ColorFound(Exception):  # noqa: N818 - a message between two functions here, not an error
    """A picture in color came after gray ones."""


@dataclass(frozen=True)
class _Frame:
    """What every picture must look like: as the first one."""

    first: str
    width: int
    height: int
    color: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return (3 if self.color else 1, self.height, self.width)

    def fit(self, image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
        """Return the pixels, (H, W, C)."""
        if image.size != (self.width, self.height):
            raise DataError(
                f"pictures must be of equal size, but {self.first} is {self.width}x{self.height} and {name} is "
                f"{image.width}x{image.height} (width x height); give size=, the side of a square to bring them all to"
            )
        if self.color and image.mode == "L":
            image = image.convert("RGB")
        if not self.color and image.mode != "L":
            raise _ColorFound
        # several times cheaper on small pictures than Pillow's array interface
        return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(self.height, self.width, -1)


def _decode_parts(parts: Mapping[str, EncodedPart], size: int | None, reading: Reading, *, color: bool) -> Decoded:
    done: dict[str, Pictures] = {}
    skipped: list[str] = []
    frame = _first_frame(parts, size, reading, color=color)
    for name, part in parts.items():
        chunks = _chunks(part, frame, size, reading, skipped)
        done[name] = collect(chunks, count=part.count, shape=frame.shape, reading=reading)
        reading = remaining(reading, done[name])
    return Decoded(done, tuple(skipped))


def _first_frame(parts: Mapping[str, EncodedPart], size: int | None, reading: Reading, *, color: bool) -> _Frame:
    for encoded in itertools.chain.from_iterable(part.pictures() for part in parts.values()):
        try:
            image = decode(encoded, size=size)
        except CorruptPictureError:
            if not reading.skip_bad:
                raise
            continue
        return _Frame(encoded.name, image.width, image.height, color or image.mode != "L")
    raise DataError(f"expected at least one picture, but none of {sum(part.count for part in parts.values())} can be decoded")


def _chunks(part: EncodedPart, frame: _Frame, size: int | None, reading: Reading, skipped: list[str]) -> Iterator[Chunk]:
    threads = _threads(frame, size)

    def decode_group(group: list[Encoded]) -> tuple[Chunk, list[str]]:
        return _decode_group(group, frame, size, skip_bad=reading.skip_bad)

    ahead: deque[Future[tuple[Chunk, list[str]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="sfumato-decode") as pool:
        try:
            for group in _groups(part.pictures(), chunk_length(frame.shape, reading)):
                ahead.append(pool.submit(decode_group, group))
                if len(ahead) > threads:
                    yield _noted(ahead.popleft(), skipped)
            while ahead:
                yield _noted(ahead.popleft(), skipped)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _threads(frame: _Frame, size: int | None) -> int:
    """Return how many threads to decode with: only one for small pictures, which keep Python busier than the decoder."""
    if size is None and frame.width * frame.height < _SMALL_PIXELS:
        return 1
    return min(_MOST_THREADS, os.cpu_count() or 1)


def _groups(pictures: Iterable[Encoded], length: int) -> Iterator[list[Encoded]]:
    pictures = iter(pictures)
    while group := list(itertools.islice(pictures, length)):
        yield group


def _noted(decoded: Future[tuple[Chunk, list[str]]], skipped: list[str]) -> Chunk:
    chunk, names = decoded.result()
    skipped.extend(names)
    return chunk


def _decode_group(group: list[Encoded], frame: _Frame, size: int | None, *, skip_bad: bool) -> tuple[Chunk, list[str]]:
    channels, height, width = frame.shape
    pixels = np.empty((len(group), height, width, channels), dtype=np.uint8)
    labels: list[int] = []
    skipped: list[str] = []
    for encoded in group:
        try:
            image = decode(encoded, size=size)
        except CorruptPictureError:
            if not skip_bad:
                raise
            skipped.append(encoded.name)
            continue
        pixels[len(labels)] = frame.fit(image, encoded.name)
        labels.append(encoded.label)
    kept = np.ascontiguousarray(pixels[: len(labels)].transpose(0, 3, 1, 2))
    return (kept, np.array(labels, dtype=np.int64)), skipped
