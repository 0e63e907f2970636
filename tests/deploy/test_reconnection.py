# SPDX-License-Identifier: Apache-2.0
"""The device against the library's own server in a process of its own, which is killed in the middle of a load."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from toy_bundles import SHAPE, answers, write_bundle

from sfumato.deploy.client import Client
from sfumato.deploy.infer import main
from sfumato.errors import ServiceError

PICTURES = np.random.default_rng(0).integers(0, 256, (50, *SHAPE), np.uint8)
TRUTH = answers(2 * PICTURES.astype(np.float32) / 255)
LONGEST = 30.0
"""Seconds that anything here takes at most."""


@contextmanager
def served(bundle: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `sfumato serve` and yield its process and its port; whatever happens, the process is gone afterwards."""
    command = [sys.executable, "-m", "sfumato", "serve", str(bundle), "--port", str(port), "--log", str(bundle / "log")]
    (bundle / "log").unlink(missing_ok=True)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, _port(process, bundle / "log")
        finally:
            process.kill()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    end = time.monotonic() + LONGEST
    while time.monotonic() < end and process.poll() is None:
        lines = log.read_text().splitlines() if log.exists() else []
        for line in lines:
            if (record := json.loads(line))["event"] == "listening":
                return int(record["port"])
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate(timeout=LONGEST)[1])


@dataclass
class Load:
    """Threads that ask one picture after another, and what became of each request."""

    client: Client
    right: int = 0
    wrong: int = 0
    refused: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: list[threading.Thread] = field(default_factory=list)

    def stop(self) -> None:
        """End when every request that is under way has ended."""
        self.stopping.set()
        for one in self.threads:
            one.join(LONGEST)
        assert not any(one.is_alive() for one in self.threads)

    def run(self, at: int) -> None:
        while not self.stopping.is_set():
            at = (at + 1) % len(PICTURES)
            try:
                (answer,) = self.client.infer(PICTURES[at : at + 1])
            except ServiceError:
                with self.lock:
                    self.refused += 1
                continue
            good = np.allclose(answer.values, TRUTH[at], atol=1e-5)
            with self.lock:
                self.right += good
                self.wrong += not good

    def wait_for(self, more: int) -> None:
        """Wait until so many more right answers came."""
        wanted, end = self.right + more, time.monotonic() + LONGEST
        while self.right < wanted and time.monotonic() < end:
            time.sleep(0.01)
        assert self.right >= wanted


@contextmanager
def loading(client: Client, threads: int = 4) -> Iterator[Load]:
    load = Load(client)
    load.threads += [threading.Thread(target=load.run, args=(at * 10,)) for at in range(threads)]
    for one in load.threads:
        one.start()
    try:
        yield load
    finally:
        load.stop()


def test_after_a_kill_every_request_ends_and_the_same_client_goes_on(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with served(tmp_path) as (process, port), Client(tmp_path, f"127.0.0.1:{port}", deadline=2, retries=1) as client:
        client.check()
        with loading(client) as load:
            load.wait_for(100)
            process.kill()
            process.wait(LONGEST)
            end = time.monotonic() + LONGEST
            while not load.refused and time.monotonic() < end:
                time.sleep(0.01)
            with served(tmp_path, port):
                load.wait_for(100)
        assert load.refused > 0  # nobody answered for a while, and the client said so
        assert load.wrong == 0


def test_a_patient_client_does_not_notice_a_kill(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with served(tmp_path) as (process, port), Client(tmp_path, f"127.0.0.1:{port}", deadline=LONGEST, retries=100) as client:
        with loading(client) as load:
            load.wait_for(100)
            process.kill()
            process.wait(LONGEST)
            with served(tmp_path, port):
                load.wait_for(100)
                load.stop()
        assert (load.wrong, load.refused) == (0, 0)


def test_the_command_against_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "bundle", sigma=0.1, wire="float16")
    np.save(tmp_path / "rows.npy", PICTURES)
    with served(tmp_path / "bundle") as (_, port):
        given = [str(tmp_path / "bundle"), "--server", f"127.0.0.1:{port}", "--json", str(tmp_path / "rows.npy")]
        assert main(given) == 0
    values = np.array([json.loads(line)["values"] for line in capsys.readouterr().out.splitlines()])
    assert 0 < np.abs(values - TRUTH).max() < 3  # eight numbers of noise, 0.1 each
