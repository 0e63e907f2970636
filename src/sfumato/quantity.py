# SPDX-License-Identifier: Apache-2.0
"""Amounts as people write them: "4.8MB", "300M"."""

from __future__ import annotations

import math
import re

from sfumato.errors import ConfigError

_BYTES = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30}
_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


def read_bytes(value: float | str, name: str) -> float:
    """Return a number of bytes.

    Args:
        value: a number, or a text such as "4.8MB" (MB is 10^6 bytes, MiB 2^20).
        name: what it is, for the message.

    Raises:
        ConfigError: it is no such text, or not a positive finite number.

    Example:
        >>> read_bytes("2.9MB", "memory")
        2900000.0
    """
    return _read(value, name, _BYTES, '"4.8MB" or "512KiB"')


def read_count(value: float | str, name: str) -> float:
    """Return a number of things.

    Args:
        value: a number, or a text such as "300M" (k, M and G are 10^3, 10^6 and 10^9).
        name: what it is, for the message.

    Raises:
        ConfigError: it is no such text, or not a positive finite number.

    Example:
        >>> read_count("1.5k", "parameters")
        1500.0
    """
    return _read(value, name, _COUNTS, '"300M" or "1.5k"')


def show_bytes(count: float) -> str:
    """Write a number of bytes for people.

    Example:
        >>> show_bytes(2_734_080)
        '2.73 MB'
    """
    return _show(count, ("B", "kB", "MB", "GB"))


def show_count(count: float) -> str:
    """Write a number of things for people.

    Example:
        >>> show_count(683_072)
        '683 k'
    """
    return _show(count, ("", "k", "M", "G"))


def _read(value: float | str, name: str, units: dict[str, float], example: str) -> float:
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-zA-Z]*)\s*", value) if isinstance(value, str) else None
    unit = found.group(2).upper() if found else ""
    try:
        number = float(found.group(1) if found else value) * units[unit]
    except (ValueError, KeyError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"{name} must be a positive number, or a text such as {example}, got {value!r}")
    return number


def _show(count: float, units: tuple[str, ...]) -> str:
    place = 0
    while count >= 999.5 and place < len(units) - 1:
        count, place = count / 1000, place + 1
    number = f"{count:.3g}" if count < 999.5 else f"{count:,.0f}"  # of the largest unit there may be thousands
    return f"{number} {units[place]}".rstrip()
