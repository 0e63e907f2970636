# SPDX-License-Identifier: Apache-2.0
"""Reads the pickled batches of CIFAR without unpickling: no class is imported and nothing is called.

Such a batch is a dictionary of strings, lists of numbers and one numpy array. The few opcodes that write these are interpreted
here, and the names of classes stay names. Any other opcode, or any other name, ends the reading with an error.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sfumato.errors import DataError

_VALUES = frozenset(
    [
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    ]
)
_FRESH: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_DTYPES = {"u1": "|u1", "i4": "<i4", "i8": "<i8"}


def read_pickled(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of strings, bytes, numbers, lists and numpy arrays of integers.

    Args:
        path: written by Python 2 or 3, protocol 2 to 4.

    Returns:
        The dictionary. Its keys are strings; strings of Python 2 among its values are bytes.

    Raises:
        DataError: the file holds anything else, or is damaged. Nothing of it has been run.
    """
    try:
        found = _Machine().run(path.read_bytes())
        if not isinstance(found, dict):
            raise _Refused(f"expected a dictionary, got {type(found).__name__}")
        return {_text(key): value.values if isinstance(value, _Array) else value for key, value in found.items()}
    except (_Refused, ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        reason = "it is not a batch of CIFAR, or it is damaged; nothing in it was run; get the official file again"
        raise DataError(f"{path}: {str(error) or type(error).__name__}; {reason}") from error


class _Refused(Exception):  # noqa: N818 - becomes a DataError once the file is known
    """The file asks for something that a batch has no need of."""


@dataclass(frozen=True)
class _Name:
    """The name of a class or function. It stays a name."""

    text: str


@dataclass
class _Dtype:
    code: str


@dataclass
class _Array:
    values: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0, np.uint8))

    def build(self, state: tuple[Any, ...]) -> None:
        """Take the state that numpy gives an array: version, shape, dtype, order, bytes."""
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise _Refused("expected an array of plain bytes")
        self.values = np.frombuffer(content, _DTYPES[dtype.code]).reshape(shape, order="F" if fortran else "C")


class _Machine:
    """The stack machine of the pickle format, with values only."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> object:
        # of bytes, and not of a file, where a false length would reserve memory before it is found out
        for opcode, argument, _ in pickletools.genops(content):
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _FRESH:
            self._stack.append(_FRESH[name]())
        elif name in _TUPLES:
            self._stack.append(tuple(self._pop(_TUPLES[name])))
        elif (operation := _OPERATIONS.get(name)) is not None:
            operation(self, argument)
        else:
            raise _Refused(f"expected plain values, got the pickle opcode {name} {argument or ''}".rstrip())

    def _pop(self, count: int) -> list[Any]:
        items = [self._stack.pop() for _ in range(count)]
        return items[::-1]

    def nothing(self, _: Any) -> None:
        """Pass over the protocol, the frames and the end."""

    def string(self, argument: str) -> None:
        """Take a string of Python 2, which pickletools shows as latin-1, for the bytes it is."""
        self._stack.append(argument.encode("latin-1"))

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def tuple(self, _: Any) -> None:
        self._stack.append(tuple(self.marked()))

    def append(self, _: Any) -> None:
        [item] = self._pop(1)
        self._stack[-1].append(item)

    def appends(self, _: Any) -> None:
        items = self.marked()
        self._stack[-1].extend(items)

    def set_item(self, _: Any) -> None:
        key, value = self._pop(2)
        self._stack[-1][key] = value

    def set_items(self, _: Any) -> None:
        items = self.marked()
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def name(self, text: str) -> None:
        self._stack.append(_Name(text))

    def stack_name(self, _: Any) -> None:
        module, attribute = self._pop(2)
        self._stack.append(_Name(f"{module} {attribute}"))

    def reduce(self, _: Any) -> None:
        """Stand in for the three calls that such files contain."""
        function, arguments = self._pop(2)
        match function:
            case _Name(text) if text in _RECONSTRUCT:
                self._stack.append(_Array())
            case _Name("numpy dtype"):
                self._stack.append(_Dtype(_text(arguments[0])))
            case _Name("_codecs encode"):
                self._stack.append(arguments[0].encode("latin-1"))
            case _:
                raise _Refused(f"expected plain values, got a call of {getattr(function, 'text', function)}")

    def build(self, _: Any) -> None:
        state = self._pop(1)[0]
        match self._stack[-1]:
            case _Array() as array:
                array.build(state)
            case _Dtype() if _text(state[1]) != ">":
                pass  # the rest of a dtype's state says nothing about plain integers
            case other:
                raise _Refused(f"expected arrays of little-endian integers, got the state of {other}")


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "STOP": _Machine.nothing,
    "BINSTRING": _Machine.string,
    "SHORT_BINSTRING": _Machine.string,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
