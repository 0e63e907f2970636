# SPDX-License-Identifier: Apache-2.0
"""People at the pairs: who comes, which pair comes next and on which side, how long it is shown, what was said of it.

Everybody gets all pairs, in an order and with sides of their own. A pair is shown once and for so many seconds from then on,
however often the page is loaded again; only where the server was stopped meanwhile is it shown anew.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import torch

from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError
from sfumato.png import png_bytes
from sfumato.seeds import generator
from sfumato.studies.answers import Answer, AnswerBook, Choice, Outcome
from sfumato.studies.pairs import Pairs

Said = Literal["left", "right", "skip", "time"]
"""What the page says of a pair."""

LONGEST = 60
"""Letters of a name at most."""

_GRACE = 2.0  # seconds that an answer given in time may take to arrive
_ROWS: tuple[Choice, Choice] = ("first", "second")


@dataclass(frozen=True)
class Shown:
    """A pair that is being shown. Nothing of it tells which row is on which side.

    Attributes:
        key: a random name, once for each time that a pair is shown.
        pictures: a random name for each picture: the real one, the left, the right.
        seconds: how long it may be shown still.
    """

    key: str
    pictures: tuple[str, str, str]
    seconds: float


@dataclass
class _Sitting:
    """One participant."""

    name: str
    order: list[int]
    sides: list[int]
    done: set[int]
    pair: int = -1
    since: float = 0.0
    key: str = ""
    past: set[str] = field(default_factory=set)
    pictures: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def total(self) -> int:
        return len(self.order)


class Sittings:
    """Everybody who answers, safe to use from several threads.

    Args:
        pairs: what is shown.
        book: where answers are stored.
        seconds: how long a pair is shown at most.
        clock: seconds that only go forward.

    Example:
        >>> import tempfile
        >>> from sfumato.studies.answers import open_answers
        >>> from sfumato.studies.pairs import PairFacts
        >>> facts = PairFacts("3f2a", "small", "smoke", "digits", ("plain", "noise"), "gmi", 0, (3, 5))
        >>> black = torch.zeros(3, 2, 1, 8, 8, dtype=torch.uint8)
        >>> with tempfile.TemporaryDirectory() as folder, open_answers(f"{folder}/pairs.jsonl", facts) as book:
        ...     sittings = Sittings(Pairs(facts, black[0], black[1:]), book)
        ...     name = sittings.enter("anna")
        ...     shown = sittings.show(name)
        ...     sittings.answer(name, shown.key, "left"), sittings.progress(name)
        (True, (1, 2))
    """

    def __init__(
        self, pairs: Pairs, book: AnswerBook, *, seconds: float = 60, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pairs, self._book, self._seconds, self._clock = pairs, book, seconds, clock
        self._sittings: dict[str, _Sitting] = {}
        self._lock = threading.Lock()

    def enter(self, name: str) -> str:
        """Let somebody in, or in again, and return the name under which the answers are stored.

        Args:
            name: what the participant is called; who gives none is numbered.

        Raises:
            ConfigError: it is too long, or cannot be printed.
        """
        name = check_name(name)
        with self._lock:
            if not name:
                known = {answer.participant for answer in self._book.answers} | self._sittings.keys()
                name = next(new for number in range(1, len(known) + 2) if (new := f"participant {number}") not in known)
            if name not in self._sittings:
                self._sittings[name] = self._sitting(name)
        return name

    def _sitting(self, name: str) -> _Sitting:
        count, seed = len(self._pairs), self._pairs.facts.seed
        return _Sitting(
            name,
            order=shuffled(count, generator(seed, "pairs", "order", name)).tolist(),
            sides=torch.randint(2, (count,), generator=generator(seed, "pairs", "sides", name)).tolist(),
            done={answer.pair for answer in self._book.answers if answer.participant == name},
        )

    def progress(self, name: str) -> tuple[int, int]:
        """Return how many pairs somebody is through with, and how many there are.

        Args:
            name: as `enter` returned it.

        Raises:
            ConfigError: nobody of that name came in.
        """
        with self._lock:
            sitting = self._of(name)
            return len(sitting.done), sitting.total

    def show(self, name: str) -> Shown | None:
        """Return the pair that somebody sees: the one being shown, or the next one; None after the last.

        Args:
            name: as `enter` returned it.

        Raises:
            ConfigError: nobody of that name came in.
            StorageError: that the time of the pair before was over cannot be stored.
        """
        with self._lock:
            sitting = self._of(name)
            if sitting.key and self._left(sitting) <= 0:
                self._store(sitting, "time")
            if not sitting.key:
                waiting = [pair for pair in sitting.order if pair not in sitting.done]
                if not waiting:
                    return None
                self._open(sitting, waiting[0])
            real, left, right = sitting.pictures
            return Shown(sitting.key, (real, left, right), self._left(sitting))

    def answer(self, name: str, key: str, said: Said) -> bool:
        """Store what somebody said of the pair being shown; when this returns it is on the disk.

        Args:
            name: as `enter` returned it.
            key: of the pair.
            said: what was chosen, or why nothing was. After the time is over this is "time", whatever it was.

        Returns:
            Whether it counts: of a pair that is through nothing more does.

        Raises:
            ConfigError: nobody of that name came in, or no such pair was ever shown.
            StorageError: it cannot be stored; it may be said again.
        """
        with self._lock:
            sitting = self._of(name)
            if key in sitting.past:
                return False
            if not key or key != sitting.key:
                raise ConfigError("expected the key of the pair that is shown, got another; load the page again")
            self._store(sitting, "time" if self._left(sitting) < -_GRACE else said)
            return True

    def picture(self, name: str) -> bytes | None:
        """Return a picture that is being shown, as PNG, or None.

        Args:
            name: of the picture.
        """
        with self._lock:
            return next((one.pictures[name] for one in self._sittings.values() if name in one.pictures), None)

    def _of(self, name: str) -> _Sitting:
        if name not in self._sittings:
            raise ConfigError("expected a participant who came in, got another; load the page again")
        return self._sittings[name]

    def _left(self, sitting: _Sitting) -> float:
        return self._seconds - (self._clock() - sitting.since)

    def _open(self, sitting: _Sitting, pair: int) -> None:
        side = sitting.sides[pair]
        seen = (self._pairs.real[pair], self._pairs.made[side, pair], self._pairs.made[1 - side, pair])
        sitting.pair, sitting.key, sitting.since = pair, secrets.token_urlsafe(12), self._clock()
        sitting.pictures = {secrets.token_urlsafe(12): png_bytes(one, packed=False) for one in seen}

    def _store(self, sitting: _Sitting, said: Said) -> None:
        """Store an answer; only then is the pair through."""
        side = sitting.sides[sitting.pair]
        outcomes: dict[Said, Outcome] = {"left": _ROWS[side], "right": _ROWS[1 - side], "skip": "skip", "time": "time"}
        took = round(self._clock() - sitting.since, 2)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._book.add(Answer(sitting.name, sitting.pair, outcomes[said], _ROWS[side], took, now))
        sitting.done.add(sitting.pair)
        sitting.past.add(sitting.key)
        sitting.key, sitting.pictures = "", {}


def check_name(name: str) -> str:
    """Return the name of a participant without the spaces around it.

    Args:
        name: what somebody is called; may be empty.

    Raises:
        ConfigError: it is too long, or cannot be printed.

    Example:
        >>> check_name(" anna ")
        'anna'
    """
    name = " ".join(name.split())
    if len(name) > LONGEST or not name.isprintable():
        raise ConfigError(
            f"a name must be at most {LONGEST} letters that can be printed, got {len(name)} of '{name[:LONGEST]}'; shorten it"
        )
    return name
