# SPDX-License-Identifier: Apache-2.0
"""The sizes that a zoo model is asked for: pictures, classes, and a width that scales its channels."""

from __future__ import annotations

import math

from sfumato.errors import ConfigError

SMALLEST = 8
"""Pixels of the shortest side of a picture that the zoo takes."""


def check_sizes(classes: int, shape: tuple[int, int, int]) -> None:
    """Refuse sizes that no zoo model can have.

    Args:
        classes: how many classes.
        shape: (C, H, W) of x.

    Raises:
        ConfigError: fewer than one class, or a shape that is not three numbers with C >= 1 and H, W >= 8.

    Example:
        >>> check_sizes(10, (3, 32, 32))
    """
    if classes < 1:
        raise ConfigError(f"classes must be at least 1, got {classes}")
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < SMALLEST:
        raise ConfigError(
            f"shape must be (channels, height, width) with sides of at least {SMALLEST} pixels, got {tuple(shape)}; "
            "resize the pictures"
        )


def scaled(channels: int, width: float, multiple: int = 8) -> int:
    """Scale a count of channels to a nearby multiple.

    The nearest multiple is taken, and the next one where that would lose more than a tenth of the channels, as MobileNetV2 does.

    Args:
        channels: at width 1.
        width: positive factor.
        multiple: what the result is a multiple of.

    Returns:
        The count, at least `multiple`; exactly `channels` at width 1.

    Raises:
        ConfigError: the width is not a positive finite number.

    Example:
        >>> scaled(64, 0.5), scaled(24, 0.4), scaled(64, 0.01)
        (32, 16, 8)
    """
    if not 0 < width < math.inf:
        raise ConfigError(f"width must be a positive number, got {width}; 1.0 is the published width")
    if width == 1:
        return channels
    wanted = channels * width
    count = max(multiple, int(wanted / multiple + 0.5) * multiple)
    return count + multiple if count < 0.9 * wanted else count
