# SPDX-License-Identifier: Apache-2.0
"""What people answered about pairs, a line of JSON for each answer, on the disk before anybody is told that it is stored.

    {"format": 1, "pairs": {"fingerprint": "3f2a...", "rows": ["BiDO", "TL-DMI + BiDO"], "attack": "kedmi", ...}}
    {"participant": "anna", "pair": 17, "outcome": "second", "left": "second", "seconds": 5.2, "at": "2026-..."}

Lines are only ever added. One that was cut off by a crash was never said to be stored, and is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from pydantic import TypeAdapter

from sfumato.errors import ConfigError, StorageError
from sfumato.files import disk_errors
from sfumato.plain import plain, validate
from sfumato.studies.pairs import PairFacts

Choice = Literal["first", "second"]
Outcome = Literal["first", "second", "skip", "time"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Answer:
    """What one participant said of one pair.

    Attributes:
        participant: who.
        pair: its number, from 0.
        outcome: the row whose reconstruction was chosen, or why none was: skipped, or the time was over.
        left: the row whose reconstruction was on the left.
        seconds: from when the pair was shown.
        at: when, in UTC, as ISO 8601.
    """

    participant: str
    pair: int
    outcome: Outcome
    left: Choice
    seconds: float
    at: str


@dataclass(frozen=True)
class _Head:
    """The first line: what the pairs are."""

    format: Literal[1]
    pairs: PairFacts


_HEAD, _ANSWER = TypeAdapter(_Head), TypeAdapter(Answer)


@dataclass
class AnswerBook:
    """Answers that are held open to add to.

    Attributes:
        path: the file.
        answers: those that are stored, in order.
    """

    path: Path
    answers: list[Answer]
    _file: BinaryIO = field(repr=False)

    def add(self, answer: Answer) -> None:
        """Store an answer; it is on the disk when this returns.

        Raises:
            StorageError: it cannot be written; nothing of it is left.
        """
        end = self._file.seek(0, os.SEEK_END)
        try:
            _append(self._file, plain(answer), self.path)
        except StorageError:
            self._file.truncate(end)  # half a line would make the next one unreadable
            raise
        self.answers.append(answer)


@contextmanager
def open_answers(path: str | Path, facts: PairFacts) -> Iterator[AnswerBook]:
    """Hold the answers on pairs inside a `with` block, to add to; nobody else can meanwhile.

    Args:
        path: the file; made, with its folder, when missing.
        facts: of the pairs.

    Raises:
        ConfigError: the file holds answers on other pairs, or something else.
        StorageError: somebody else holds it, or it cannot be written.

    Example:
        >>> import tempfile
        >>> facts = PairFacts("3f2a", "small", "smoke", "digits", ("plain", "noise"), "gmi", 0, (3, 5))
        >>> with tempfile.TemporaryDirectory() as folder, open_answers(f"{folder}/pairs.jsonl", facts) as book:
        ...     book.add(Answer("anna", 0, "first", "second", 4.5, "2026-01-02T03:04:05+00:00"))
        ...     read_answers(book.path)[1] == book.answers
        True
    """
    path = Path(path)
    with disk_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another server is storing answers in {path}; open its page in a second window, stop it, or name another file "
                "with --answers"
            ) from error
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole:
            known, answers = _parse(content[:whole], path)
            _same(known, facts, path)
        else:
            _no_other(content, path)
        file.truncate(whole)
        if not whole:
            answers = []
            _append(file, plain(_Head(1, facts)), path)
        yield AnswerBook(path, answers, file)


def read_answers(path: str | Path) -> tuple[PairFacts, list[Answer]]:
    """Read answers, also while a server is storing more.

    Args:
        path: the file.

    Returns:
        What the pairs are, and the answers in order.

    Raises:
        ConfigError: it is something else.
        StorageError: there is no such file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(
            f"expected answers on pairs at {path}: {error.strerror or error}; collect some with: sfumato study serve-pairs RUN"
        ) from error
    return _parse(content[: content.rfind(b"\n") + 1], Path(path))


def _parse(content: bytes, path: Path) -> tuple[PairFacts, list[Answer]]:
    lines = content.splitlines()
    head = _line(_HEAD, lines[0] if lines else b"", f"what pairs are in line 1 of {path}").pairs
    answers = [_line(_ANSWER, line, f"an answer in line {number} of {path}") for number, line in enumerate(lines[1:], 2)]
    for number, answer in enumerate(answers, 2):
        if not 0 <= answer.pair < len(head.classes):
            raise ConfigError(
                f"expected a pair below {len(head.classes)} in line {number} of {path}, found {answer.pair}; {_ADVICE}"
            )
    return head, answers


_ADVICE = "name another file with --answers"


def _line(form: TypeAdapter[_T], line: bytes, expected: str) -> _T:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"expected {expected}, found no JSON; {_ADVICE}") from error
    return validate(form, values, expected, _ADVICE)


def _no_other(content: bytes, path: Path) -> None:
    """Raise where a file without a whole line is not the start of a first one that a crash cut off."""
    start = b'{"format": 1'
    if not (content.startswith(start) or start.startswith(content)):
        raise ConfigError(f"expected answers on pairs in {path}, found something else; {_ADVICE}")


def _same(known: PairFacts, facts: PairFacts, path: Path) -> None:
    if known.fingerprint != facts.fingerprint:
        raise ConfigError(
            f"expected in {path} answers on these pairs, {_told(facts)}, found answers on others: {_told(known)}; name another "
            "file with --answers, or give the options of before"
        )


def _told(facts: PairFacts) -> str:
    first, second = facts.rows
    return f"{len(facts.classes)} of {facts.attack} on '{first}' and '{second}' with seed {facts.seed} ({facts.fingerprint[:16]})"


def _append(file: BinaryIO, values: object, path: Path) -> None:
    """Write one line to the disk."""
    with disk_errors(path, "write"):
        line = memoryview((json.dumps(values, allow_nan=False) + "\n").encode())
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())
