# SPDX-License-Identifier: Apache-2.0
"""Pictures as text: PNG in base64, which JSON and HTML hold, without loss.

Example:
    >>> picture(png(torch.full((3, 1, 1), 7, dtype=torch.uint8)), (3, 1, 1)).flatten()
    tensor([7, 7, 7], dtype=torch.uint8)
"""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from sfumato.errors import ConfigError
from sfumato.types import Pixels


def png(picture: Pixels) -> str:
    """Encode one picture without loss.

    Args:
        picture: (C, H, W), uint8, on the CPU; planes that are neither gray nor RGB lie side by side in gray.

    Returns:
        A PNG in base64.

    Example:
        >>> png(torch.zeros(1, 2, 2, dtype=torch.uint8))[:11]
        'iVBORw0KGgo'
    """
    return base64.b64encode(png_bytes(picture)).decode("ascii")


def png_bytes(picture: Pixels, *, packed: bool = True) -> bytes:
    """Encode one picture without loss.

    Args:
        picture: (C, H, W), uint8, on the CPU; as for `png`.
        packed: as small as it gets; else pictures of one shape have files of one length, which says nothing about them.

    Returns:
        A PNG.

    Example:
        >>> len({len(png_bytes(torch.randint(256, (3, 8, 8), dtype=torch.uint8), packed=False)) for _ in range(5)})
        1
    """
    rgb = picture.shape[0] == 3
    planes = picture.permute(1, 2, 0) if rgb else picture.permute(1, 0, 2).flatten(1)
    file = io.BytesIO()
    how = {"optimize": True} if packed else {"compress_level": 0}
    Image.fromarray(planes.contiguous().numpy()).save(file, "PNG", **how)
    return file.getvalue()


def picture(text: str, shape: tuple[int, int, int]) -> Pixels:
    """Decode what `png` wrote.

    Args:
        text: a PNG in base64.
        shape: (C, H, W) of the picture.

    Returns:
        (C, H, W), uint8.

    Raises:
        ConfigError: it is something else.

    Example:
        >>> picture("", (1, 2, 2))
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected a PNG in base64, found something else in exhibits: ...
    """
    channels, height, width = shape
    mode, size = ("RGB", (width, height)) if channels == 3 else ("L", (channels * width, height))
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            if (image.mode, image.size) != (mode, size):  # looked at before a pixel is decoded: a PNG can be a bomb
                raise ConfigError(f"expected a {mode} picture of {size}, found {image.mode} of {image.size} in exhibits")
            planes = torch.from_numpy(np.array(image))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"expected a PNG in base64, found something else in exhibits: {error}") from error
    return planes.permute(2, 0, 1) if channels == 3 else planes.reshape(height, channels, width).permute(1, 0, 2)
