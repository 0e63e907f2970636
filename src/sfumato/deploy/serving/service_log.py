# SPDX-License-Identifier: Apache-2.0
"""The log of a server: one line of JSON for each request and each event, and nothing in it of what was sent or answered.

Lines are collected and written ten times a second by a thread of their own: a request does not wait for a disk, and a full pipe
or disk stops the log, never the server.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TextIO

_EVERY = 0.1  # seconds between two writes
_MOST = 20_000  # lines that wait to be written; of more, the number alone is kept


@dataclass(slots=True)
class Record:
    """What is known of a request when it is over. There is no place in it for contents.

    Attributes:
        call: the method of the protocol.
        client: who asked.
        model: that was asked, empty where none of ours was.
        pictures: in the request.
        bytes: of the message.
        queue: seconds that it waited.
        run: seconds that its batch ran.
        status: of gRPC.
        reason: why it was refused, one word.
    """

    call: str
    client: str = ""
    model: str = ""
    pictures: int = 0
    bytes: int = 0
    queue: float = 0.0
    run: float = 0.0
    status: str = "OK"
    reason: str = ""


_Line = tuple[float, "Record | dict[str, object]"]  # when, and what; made into text by the thread that writes it


class ServiceLog:
    """Writes lines to a file without keeping anybody waiting.

    Args:
        file: open for writing; it is not closed here.

    Example:
        >>> import io
        >>> file = io.StringIO()
        >>> log = ServiceLog(file)
        >>> log.event("listening", port=8001)
        >>> log.close()
        True
        >>> json.loads(file.getvalue())["event"]
        'listening'
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lines: deque[_Line] = deque()  # filled and emptied by two threads, without a lock
        self._lost = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def request(self, record: Record) -> None:
        """Write the line of a request."""
        self._add((time.time(), record))

    def event(self, what: str, **facts: object) -> None:
        """Write the line of an event."""
        self._add((time.time(), {"event": what, **facts}))

    def close(self, seconds: float = 2.0) -> bool:
        """Write what is left, and return whether that is done: a pipe that nobody reads does not keep the server from ending.

        Args:
            seconds: to wait for it.
        """
        self._stop.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _add(self, line: _Line) -> None:
        if len(self._lines) >= _MOST:
            self._lost += 1
            return
        self._lines.append(line)

    def _work(self) -> None:
        while not self._stop.wait(_EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lost := self._lost:
            self._lost = 0
            lines.append((time.time(), {"event": "lines_lost", "lines": lost}))
        if not lines:
            return
        try:
            self._file.write("".join(map(_text, lines)))
            self._file.flush()
        except (OSError, ValueError):  # a full disk, a closed pipe or file
            self._lost += lost + len(lines) - bool(lost)  # the note of those before is no line of anybody


def _text(line: _Line) -> str:
    moment, said = line
    fields = _fields(said) if isinstance(said, Record) else said
    return json.dumps({"time": round(moment, 3), **fields}) + "\n"


def _fields(record: Record) -> dict[str, object]:
    fields: dict[str, object] = {
        "call": record.call,
        "client": record.client,
        "model": record.model,
        "pictures": record.pictures,
        "bytes": record.bytes,
        "queue_ms": round(record.queue * 1e3, 3),
        "run_ms": round(record.run * 1e3, 3),
        "status": record.status,
    }
    if record.reason:
        fields["reason"] = record.reason
    return fields
