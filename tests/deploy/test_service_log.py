# SPDX-License-Identifier: Apache-2.0
"""The log: every line is JSON, nobody waits for it, and what could not be written is counted."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest

from sfumato.deploy.serving import service_log
from sfumato.deploy.serving.service_log import Record, ServiceLog


class Stuck(io.StringIO):
    """A pipe that nobody reads until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.gate.wait(10)
        return super().write(text)


class Full(io.StringIO):
    """A disk that is full for some writes."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times, self.refused = times, 0

    def write(self, text: str) -> int:
        if self.refused < self.times:
            self.refused += 1
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_request_is_one_line() -> None:
    file = io.StringIO()
    log = ServiceLog(file)
    log.request(Record("ModelInfer", 'ga"te\n', "demo", 3, 200, 0.0012, 0.0034))
    log.request(Record("other", status="UNIMPLEMENTED", reason="call"))
    log.close()
    first, second = (json.loads(line) for line in file.getvalue().splitlines())
    assert abs(first.pop("time") - time.time()) < 60
    assert first == {
        "call": "ModelInfer",
        "client": 'ga"te\n',
        "model": "demo",
        "pictures": 3,
        "bytes": 200,
        "queue_ms": 1.2,
        "run_ms": 3.4,
        "status": "OK",
    }
    assert (second["status"], second["reason"]) == ("UNIMPLEMENTED", "call")


def test_nobody_waits_for_a_pipe_that_nobody_reads(monkeypatch) -> None:
    monkeypatch.setattr(service_log, "_MOST", 100)
    file = Stuck()
    log = ServiceLog(file)
    log.event("first")
    assert file.entered.wait(10)
    start = time.monotonic()
    for _ in range(1000):
        log.event("more")
    assert time.monotonic() - start < 5
    assert not log.close(0.01)
    file.gate.set()
    assert log.close()
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["first", *["more"] * 100, "lines_lost"]
    assert lines[-1]["lines"] == 900


def test_a_full_disk_is_survived_and_told_of_later() -> None:
    file = Full()
    log = ServiceLog(file)
    log.event("lost")
    end = time.monotonic() + 10
    while not file.refused and time.monotonic() < end:
        time.sleep(0.01)
    log.event("kept")
    log.close()
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert {line["event"] for line in lines} == {"kept", "lines_lost"}


def test_lost_lines_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_log, "_EVERY", 60)
    file = Full(times=2)
    log = ServiceLog(file)
    for count in (3, 1):  # the second write holds the note of the first too, which is no line of anybody
        for _ in range(count):
            log.event("lost")
        log._write()
    for _ in range(2):
        log.event("kept")
        log._write()
    assert log.close()
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(line["event"], line.get("lines")) for line in lines] == [("kept", None), ("lines_lost", 4), ("kept", None)]


def test_a_file_that_was_closed_ends_nothing() -> None:
    file = io.StringIO()
    log = ServiceLog(file)
    file.close()
    log.event("lost")
    assert log.close()
