# SPDX-License-Identifier: Apache-2.0
"""Pictures from files, folders, standard input and NumPy files, brought to what a head takes.

A head must be given pixels such as it was trained and audited on: one function decodes those of data sets and of devices.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.data.picture import Encoded, pictures_below
from sfumato.data.picture import decode as decode_picture
from sfumato.deploy.edge import require_unit
from sfumato.errors import CorruptPictureError, DataError, MissingDataError

STANDARD_INPUT = "-"
LARGEST = 64 << 20
"""Bytes of a picture file that are read at most."""

_MODES = {1: "L", 3: "RGB"}
_ADVICE = "repair or remove it, or go on without it with --skip-bad"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that was read.

    Attributes:
        name: its file, "-" for standard input; for an array of several its file and number.
        pixels: (C, H, W), uint8, or float32 in [0, 1] where an array had that.
    """

    name: str
    pixels: NDArray[np.generic]


def find_pictures(places: Sequence[str]) -> list[str]:
    """Return the files that are meant: themselves, those of folders and below them, sorted, and "-".

    Args:
        places: files, folders, or "-" for a picture on standard input.

    Raises:
        MissingDataError: one is not there.
        DataError: a folder holds no picture, a name is empty, or standard input is meant twice.
    """
    if places.count(STANDARD_INPUT) > 1:
        raise DataError("expected one picture on standard input, got '-' more than once; give it once")
    if "" in places:  # which would be the working folder with all that is in it
        raise DataError("expected files or folders, got an empty name; check the variables of the shell")
    return [found for place in places for found in ([place] if place == STANDARD_INPUT else _below(Path(place)))]


def _below(path: Path) -> list[str]:
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError:  # a name too long for the disk, a folder that may not be looked into
        there = folder = False
    if not there:
        raise MissingDataError(f"expected a picture or a folder of pictures at {path}, found nothing; check the path")
    if not folder:
        return [str(path)]
    return [str(one) for one in pictures_below(path)]


def read_pictures(
    names: Sequence[str], shape: tuple[int, ...], *, skipped: list[CorruptPictureError] | None = None
) -> Iterator[Picture]:
    """Read pictures one after another.

    Args:
        names: files, such as from `find_pictures`; one that ends in .npy holds (N, C, H, W), uint8, or float32 in [0, 1], and for
            a head that takes gray pictures (N, H, W) too.
        shape: (C, H, W) that the head takes; other pictures are resized (shorter side, bicubic) and center-cropped.
        skipped: where what cannot be decoded is noted, and passed over; None raises it.

    Yields:
        Each picture, in order.

    Raises:
        CorruptPictureError: one cannot be decoded, has too many bytes, or more pixels than Pillow takes for safe.
        DataError: one has more than 8 bits a channel, standard input is a keyboard, or an array is none of such pictures.

    Example:
        >>> list(read_pictures([], (3, 32, 32)))
        []
    """
    for name in names:
        try:
            if name.endswith(".npy"):
                yield from _array(name, shape)
            else:
                yield Picture(name, decode(name, _content(name), shape))
        except CorruptPictureError as error:
            if skipped is None:
                raise
            skipped.append(error)


def _content(name: str) -> bytes:
    """Read a picture file or standard input."""
    if name == STANDARD_INPUT and sys.stdin.isatty():
        raise DataError("expected a picture on standard input, found a keyboard; give it with: < picture.png")
    try:
        with nullcontext(sys.stdin.buffer) if name == STANDARD_INPUT else Path(name).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise CorruptPictureError(f"{name}: expected a picture that can be read: {error.strerror or error}; {_ADVICE}") from error
    if len(content) > LARGEST:
        raise CorruptPictureError(f"{name}: expected a picture of at most {LARGEST >> 20} MiB, found more; make it smaller")
    return content


def _array(name: str, shape: tuple[int, ...]) -> Iterator[Picture]:
    """Read the pictures in a NumPy file, which stays on the disk."""
    try:
        found = np.load(name, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # what a reader of broken headers raises has no common base but this one
        raise CorruptPictureError(
            f"{name}: expected a NumPy array of pictures, but it cannot be read ({error}); {_ADVICE}"
        ) from error
    shapes = [tuple(shape), *([tuple(shape[1:])] if len(shape) == 3 and shape[0] == 1 else [])]
    if (
        not isinstance(found, np.ndarray)
        or found.dtype not in (np.uint8, np.float32)
        or not found.shape
        or found.shape[1:] not in shapes
    ):
        what = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "an archive"
        wanted = "uint8, or float32 in [0, 1], of shape " + " or ".join(f"(N, {', '.join(map(str, one))})" for one in shapes)
        raise DataError(f"{name}: expected {wanted}, got {what}; convert it first")
    for at, pixels in enumerate(found):
        if pixels.dtype == np.float32:
            require_unit(pixels, f"{name}[{at}]: expected numbers")
        yield Picture(f"{name}[{at}]", np.array(pixels).reshape(shape))


def decode(name: str, content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Decode a picture.

    Args:
        name: for messages.
        content: JPEG, PNG, WebP, BMP, GIF, PPM or TIFF.
        shape: (C, H, W) that the head takes, C 1 or 3.

    Returns:
        (C, H, W), uint8.

    Raises:
        CorruptPictureError: it cannot be decoded, or has more pixels than Pillow takes for safe.
        DataError: it has more than 8 bits a channel, or a head takes neither gray nor color pictures.

    Example:
        >>> decode("white.ppm", b"P5 2 1 255 " + bytes([255, 255]), (3, 1, 1)).ravel().tolist()
        [255, 255, 255]
    """
    if len(shape) != 3 or shape[0] not in _MODES:
        raise DataError(f"expected a head that takes gray or color pictures, it takes {shape}; give it arrays (.npy) instead")
    channels, height, width = shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's doubts about a picture, which it does not name
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = decode_picture(Encoded(name, content, 0), size=(width, height)).convert(_MODES[channels])
    return np.ascontiguousarray(np.asarray(image, np.uint8).reshape(height, width, channels).transpose(2, 0, 1))
