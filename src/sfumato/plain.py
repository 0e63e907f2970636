# SPDX-License-Identifier: Apache-2.0
"""Records as plain values that JSON has a form for, and the check of values that come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from sfumato.errors import ConfigError

_T = TypeVar("_T")


def plain(value: object) -> object:
    """Turn a value of a record into one that JSON has a form for.

    Args:
        value: a value of a record, or a record.

    Example:
        >>> from sfumato.types import Interval
        >>> plain(Interval(0.5, 0.25, math.inf))
        {'value': 0.5, 'low': 0.25, 'high': 'Infinity'}
    """
    if isinstance(value, str):  # a file name may hold bytes that are not Unicode; readers of JSON refuse those
        return value.encode(errors="backslashreplace").decode()
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    return plain(str(value))


def validate(form: TypeAdapter[_T], record: object, expected: str, advice: str) -> _T:
    """Check the values of a record.

    Args:
        form: what it should be.
        record: as `json.loads` gives it.
        expected: what it should be, in words.
        advice: what to do where it is something else.

    Raises:
        ConfigError: it is something else; the first faults are named.

    Example:
        >>> validate(TypeAdapter(int), "three", "a count", "write digits")
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected a count; found: record: Input should be a valid integer, ...; write digits
    """
    try:
        return form.validate_python(record)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']}" for fault in error.errors()]
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise ConfigError(f"expected {expected}; found: {shown}; {advice}") from error
