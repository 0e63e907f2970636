# SPDX-License-Identifier: Apache-2.0
"""Check names and values from a recipe against the signature of what they are for, and say everything that is wrong at once."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from sfumato.errors import ConfigError, nearest

_KEPT = 512  # signatures that are remembered: recipes and studies ask for the same ones again and again


def check(target: Callable[..., object], arguments: Mapping[str, object], *, where: str = "") -> tuple[dict[str, Any], list[str]]:
    """Check arguments against the annotations of a callable.

    Values are read as TOML gives them: strict types, but an integer serves as a float, an array as a tuple, a string as a path, a
    table as a dataclass.

    Args:
        target: a class or a function with annotated parameters.
        arguments: what was given, by name.
        where: put before each name in a message, such as "defenses[0]".

    Returns:
        The arguments in the types of the annotations, and one sentence for each problem. Where there are problems the arguments
        are incomplete.

    Example:
        >>> def noise(sigma: float, kind: str = "gaussian") -> None: ...
        >>> check(noise, {"sigma": 1}, where="defenses[0]")
        ({'sigma': 1.0}, [])
        >>> check(noise, {"sgma": 1}, where="defenses[0]")[1]
        ["defenses[0].sgma: unknown key (did you mean 'sigma'?); known: sigma, kind", 'defenses[0].sigma: missing']
    """
    prefix = f"{where}." if where else ""
    hints = _hints(target)
    values, problems = dict(arguments), []
    for name, hint in hints.items():
        given = values.get(name)
        if dataclasses.is_dataclass(hint) and isinstance(given, Mapping):
            values[name], below = construct(typing.cast("type[object]", hint), given, where=f"{prefix}{name}")
            problems += below
        elif dataclasses.is_dataclass(hint) and name in values and not dataclasses.is_dataclass(given):
            keys = ", ".join(_hints(typing.cast("Callable[..., object]", hint)))
            problems.append(f"{prefix}{name}: expected a table with some of {keys}, found {given!r}")
    nested = {name: values.pop(name) for name, hint in hints.items() if dataclasses.is_dataclass(hint) and name in values}
    checked, flat = _validate(target, tuple(name for name in hints if name not in nested), values, prefix)
    return {**checked, **nested}, _unknown_first(flat) + problems


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless a value is one of a few.

    Raises:
        ConfigError: it is another.

    Example:
        >>> require_choice("precision", "float32", ("float32", "bfloat16"))
    """
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}{nearest(str(value), choices)}")


def require_least(least: float, **values: float) -> None:
    """Raise unless numbers are at least so much.

    Args:
        least: what each must reach.
        values: by name.

    Raises:
        ConfigError: one is less, or is not finite.

    Example:
        >>> require_least(1, steps=0)
        Traceback (most recent call last):
        sfumato.errors.ConfigError: steps must be at least 1 and finite, got 0
    """
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ConfigError(f"{name} must be at least {least:g} and finite, got {value:g}")


def require_positive(**values: float) -> None:
    """Raise unless numbers are above 0.

    Args:
        values: by name.

    Raises:
        ConfigError: one is not, or is not finite.

    Example:
        >>> require_positive(learning_rate=0.0)
        Traceback (most recent call last):
        sfumato.errors.ConfigError: learning_rate must be above 0 and finite, got 0
    """
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} must be above 0 and finite, got {value:g}")


def construct(
    target: Callable[..., object], arguments: Mapping[str, object], *, where: str = ""
) -> tuple[object | None, list[str]]:
    """Check arguments and call the target with them.

    Args:
        target: a class or a function with annotated parameters.
        arguments: what was given, by name.
        where: put before each name in a message.

    Returns:
        What the target returned and no problems, or None and the problems: those of `check`, or what the target itself said in a
        ValueError.

    Example:
        >>> from sfumato.data.base import Reading
        >>> construct(Reading, {"budget": 0}, where="data")[1]
        ['data: budget must be a positive number of bytes, got 0; 2147483648 is the default']
    """
    checked, problems = check(target, arguments, where=where)
    if problems:
        return None, problems
    try:
        return target(**checked), []
    except ValueError as error:
        return None, [f"{where}: {error}" if where else str(error)]


@lru_cache(maxsize=_KEPT)
def _hints(target: Callable[..., object]) -> Mapping[str, Any]:
    """Return the annotation of each parameter, in order."""
    constructor = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(constructor)
    return {name: hints.get(name, Any) for name in inspect.signature(target).parameters}


def _validate(
    target: Callable[..., object], names: tuple[str, ...], values: Mapping[str, object], prefix: str
) -> tuple[dict[str, Any], list[str]]:
    """Validate the flat values of some parameters."""
    # JSON is the strict mode that still takes an array for a tuple and a string for a path, which is what TOML needs.
    text = json.dumps({f"field_{name}": value for name, value in values.items()}, default=str)
    try:
        checked = _model(target, names).model_validate_json(text, strict=True)
    except ValidationError as error:
        return {}, [_sentence(detail, _hints(target), prefix) for detail in error.errors()]
    return {name: getattr(checked, f"field_{name}") for name in values}, []


@lru_cache(maxsize=_KEPT)
def _model(target: Callable[..., object], names: tuple[str, ...]) -> type[BaseModel]:
    """Return a pydantic model made of some parameters of a signature: to make it takes far longer than to use it."""
    hints, signature = _hints(target), inspect.signature(target)
    defaults = {name: signature.parameters[name].default for name in names}
    fields: dict[str, Any] = {
        f"field_{name}": (hints[name], ... if default is inspect.Parameter.empty else default)
        for name, default in defaults.items()
    }
    return create_model("Arguments", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)


def _sentence(detail: ErrorDetails, hints: Mapping[str, Any], prefix: str) -> str:
    """Say one problem: what was expected, what was found."""
    first, *rest = (str(part) for part in detail["loc"])
    name = first.removeprefix("field_")
    spot = ".".join([f"{prefix}{name}", *(part for part in rest if part.isdigit())])
    if detail["type"] == "extra_forbidden":
        return f"{prefix}{name}: unknown key{nearest(name, hints)}; known: {', '.join(hints) or 'none'}"
    if detail["type"] == "missing":
        return f"{spot}: missing"
    expectation = detail["msg"].removeprefix("Input should be ")
    return f"{spot}: expected {expectation}, found {detail['input']!r}"


def _unknown_first(problems: list[str]) -> list[str]:
    """Put unknown keys before missing ones: a misspelt key is both, and its cure is in the first."""
    return sorted(problems, key=lambda problem: "unknown key" not in problem)
