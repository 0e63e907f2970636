# SPDX-License-Identifier: Apache-2.0
"""One encoded picture, decoded: the only place that knows about picture files."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from sfumato.data.crop import Crop
from sfumato.errors import CorruptPictureError, DataError

ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings of picture files, in lower case."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # not EPS, which would start another program
# what Pillow's readers raise on broken files
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error, zlib.error)
_DEEP_MODES = ("I", "F")  # and "I;16" and its kin: more than 8 bits a channel


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as it was found.

    Args:
        name: for messages: its file, or its file and row.
        content: the bytes of a picture file, or its path.
        label: class number.
        crop: what to cut out of it; None keeps all.
    """

    name: str
    content: bytes | Path
    label: int
    crop: Crop | None = None


def is_picture(path: Path) -> bool:
    """Return whether a path is a file with the ending of a picture, and not hidden."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def pictures_below(folder: Path) -> list[Path]:
    """Return the picture files in a folder and below it, sorted; hidden files are passed over.

    Raises:
        DataError: there is none.
    """
    if found := sorted(filter(is_picture, folder.rglob("*"))):
        return found
    raise DataError(f"{folder}: expected pictures ({', '.join(sorted(ENDINGS))}), found none; add some, or leave the folder out")


def decode(picture: Encoded, *, size: int | tuple[int, int] | None = None) -> Image.Image:
    """Decode a picture, upright where it says how it was held.

    Args:
        picture: JPEG, PNG, WebP, BMP, GIF, PPM or TIFF.
        size: width and height, or the side of a square, to resize (shorter side, bicubic) and center-crop to; None keeps the
            picture as it is.

    Returns:
        A picture of mode "L" if it was that, else "RGB".

    Raises:
        CorruptPictureError: it cannot be decoded, has more pixels than Pillow takes for safe, or not those to cut out.
        DataError: it has more than 8 bits a channel.

    Example:
        >>> stream = io.BytesIO()
        >>> Image.new("L", (4, 2)).save(stream, "PNG")
        >>> decode(Encoded("a.png", stream.getvalue(), 0), size=2).size
        (2, 2)
    """
    source = io.BytesIO(picture.content) if isinstance(picture.content, bytes) else picture.content
    try:
        with Image.open(source, formats=_FORMATS) as image:
            image.load()
            _check_depth(image, picture.name)
            plain = _cut(_plain(ImageOps.exif_transpose(image)), picture)
            sides = (size, size) if isinstance(size, int) else size
            return plain if sides is None else ImageOps.fit(plain, sides, Image.Resampling.BICUBIC)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        advice = "make it smaller, or go on without it with --skip-bad"
        raise CorruptPictureError(f"{picture.name}: too many pixels to decode safely ({error}); {advice}") from error
    except DataError:  # a corrupt picture too, which `_cut` found
        raise
    except _BROKEN as error:
        advice = "repair or remove it, or go on without it with --skip-bad"
        why = f"it is none of {', '.join(_FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
        raise CorruptPictureError(f"{picture.name}: expected a picture, but it cannot be decoded ({why}); {advice}") from error


def _check_depth(image: Image.Image, name: str) -> None:
    if image.mode.split(";")[0] in _DEEP_MODES:
        raise DataError(f"{name}: expected 8 bits a channel, got a picture of mode {image.mode}; convert it to 8 bits first")


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when such a palette goes to RGB directly
    return image.convert("RGB")


def _cut(image: Image.Image, picture: Encoded) -> Image.Image:
    if picture.crop is None:
        return image
    left, top, right, bottom = (round(side) for side in picture.crop.sides(image.width, image.height))
    if right <= left or bottom <= top:
        raise CorruptPictureError(
            f"{picture.name}: expected something to cut out of {image.width}x{image.height} pixels, got {left} to {right} across "
            f"and {top} to {bottom} down; correct its annotation, or go on without it with --skip-bad"
        )
    return image.crop((left, top, right, bottom))
