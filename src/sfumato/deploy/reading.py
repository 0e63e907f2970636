# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses from values of JSON, exactly: no missing key, none too many, no number for a text.

Devices read manifests with it: a library that does the same would be as large as all else that they need for that.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from sfumato.errors import BundleError

_T = TypeVar("_T")


def read_record(kind: type[_T], value: object, place: str) -> _T:
    """Make a dataclass of values of JSON.

    Args:
        kind: the dataclass. Its fields are numbers, texts, `Literal`, dataclasses, tuples and mappings of these, or one of them
            or None.
        value: as `json.loads` gives it; its keys are the fields, in their order.
        place: what it is called in messages.

    Raises:
        BundleError: it is something else; the message says where.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Size:
        ...     height: int
        ...     width: int
        >>> read_record(Size, {"height": 2, "width": "3"}, "size")
        Traceback (most recent call last):
        sfumato.errors.BundleError: size.width must be of type int, found '3'; export the run again
    """
    return cast("_T", _record(kind, value, place))


def wrong(place: str, expected: str, value: object) -> BundleError:
    """Return the error of a value that is not what it must be.

    Args:
        place: of the value, such as "manifest.wire".
        expected: the end of a sentence that begins with "must be".
        value: what was found.
    """
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
    return BundleError(f"{place} must be {expected}, found {shown}; export the run again")


def _read(kind: type[object], value: object, place: str) -> object:
    """Make a value of a type from one of JSON, and refuse everything else."""
    return _READERS.get(get_origin(kind), _plain)(kind, value, place)


def _plain(kind: type[object], value: object, place: str) -> object:
    if is_dataclass(kind):
        return _record(kind, value, place)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise wrong(place, f"of type {kind.__name__}", value)
    return value


def _record(kind: type[object], value: object, place: str) -> object:
    wanted = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(value, dict) or list(value) != wanted:
        raise wrong(place, f"an object with {', '.join(wanted)}", sorted(value) if isinstance(value, dict) else value)
    hints = get_type_hints(kind)
    return kind(**{name: _read(hints[name], value[name], f"{place}.{name}") for name in wanted})


def _choice(kind: type[object], value: object, place: str) -> object:
    if not isinstance(value, str) or value not in get_args(kind):
        raise wrong(place, f"one of {', '.join(get_args(kind))}", value)
    return value


def _list(kind: type[object], value: object, place: str) -> object:
    if not isinstance(value, list):
        raise wrong(place, "a list", value)
    return tuple(_read(get_args(kind)[0], item, f"{place}[{at}]") for at, item in enumerate(value))


def _table(kind: type[object], value: object, place: str) -> object:
    if not isinstance(value, dict):
        raise wrong(place, "an object", value)
    return {name: _read(get_args(kind)[1], item, f"{place}.{name}") for name, item in value.items()}


def _optional(kind: type[object], value: object, place: str) -> object:
    return None if value is None else _read(get_args(kind)[0], value, place)


_READERS: Mapping[object, Callable[[type[object], object, str], object]] = {
    Literal: _choice,
    tuple: _list,
    Mapping: _table,
    types.UnionType: _optional,
}
