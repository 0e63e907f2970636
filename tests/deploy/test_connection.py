# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from scripted_server import hang, refuse, scripted
from toy_bundles import SHAPE, write_bundle

from sfumato.deploy.asking.connection import Connection
from sfumato.deploy.client import Client
from sfumato.errors import ServiceError

PICTURES = np.zeros((1, *SHAPE), np.uint8)


class Router:
    """Something between a device and a server that forgets connections: they stay open, and nothing comes through."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.forgotten = threading.Event()
        self.ending = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.open: list[socket.socket] = []
        self.connections = 0

    def run(self) -> None:
        while True:
            try:
                device, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            self.open += [device, server]
            self.connections += 1
            known = threading.Event()  # set for what is let through: all but what was there when the router forgot
            if self.forgotten.is_set():
                known.set()
            for pair in ((device, server), (server, device)):
                threading.Thread(target=self.pump, args=(*pair, known), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, known: threading.Event) -> None:
        try:
            source.settimeout(10)
            while data := source.recv(1 << 16):
                if self.forgotten.is_set() and not known.is_set():
                    self.ending.wait(10)
                    return
                sink.sendall(data)
        except OSError:
            return


@contextmanager
def routed(port: int) -> Iterator[Router]:
    router = Router(port)
    thread = threading.Thread(target=router.run, daemon=True)
    thread.start()
    try:
        yield router
    finally:
        router.ending.set()
        router.listener.shutdown(socket.SHUT_RDWR)
        router.listener.close()
        for one in router.open:
            one.close()
        thread.join(5)


def test_a_connection_that_went_dead_is_left_after_one_deadline(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    with (
        scripted(manifest) as server,
        routed(server.port) as router,
        Client(tmp_path, router.address, deadline=1) as client,
    ):
        client.infer(PICTURES)
        client.infer(PICTURES)
        assert router.connections == 1
        router.forgotten.set()
        with pytest.raises(ServiceError, match="DEADLINE_EXCEEDED"):
            client.infer(PICTURES)
        for _ in range(3):
            client.infer(PICTURES)
        assert router.connections == 2


def test_a_connection_through_which_others_get_answers_is_kept(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    with (
        scripted(manifest, hang) as server,
        routed(server.port) as router,
        Client(tmp_path, router.address, deadline=1.5) as client,
    ):
        lines = client._connection._lines
        failed = threading.Event()

        def ask_what_hangs() -> None:
            with pytest.raises(ServiceError, match="DEADLINE_EXCEEDED"):
                client.infer(PICTURES)
            failed.set()

        asking = threading.Thread(target=ask_what_hangs)
        asking.start()
        while not server.requests and asking.is_alive():
            threading.Event().wait(0.01)
        client.infer(PICTURES)
        asking.join(20)
        client.infer(PICTURES)
        assert failed.is_set()
        assert router.connections == len(lines) == 1


def test_a_server_that_speaks_of_a_deadline_itself_is_not_silent(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    with (
        scripted(manifest, *[refuse(grpc.StatusCode.DEADLINE_EXCEEDED)] * 3) as server,
        routed(server.port) as router,
        Client(tmp_path, router.address) as client,
    ):
        for _ in range(3):
            with pytest.raises(ServiceError, match="DEADLINE_EXCEEDED: scripted"):
                client.infer(PICTURES)
        client.infer(PICTURES)
        assert router.connections == 1


def test_lines_that_were_left_are_closed(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    with scripted(manifest, hang, hang, hang) as server, Client(tmp_path, server.address, deadline=0.5) as client:
        for _ in range(3):
            with pytest.raises(ServiceError, match="DEADLINE_EXCEEDED"):
                client.infer(PICTURES)
        assert len(client._connection._lines) == 1
        server.going.set()
        client.infer(PICTURES)


class Unanswered(grpc.RpcError):
    """What gRPC raises when a deadline is over."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED


class Channel:
    """A channel on which a request is what a function does."""

    def __init__(self) -> None:
        self.closed = False

    def unary_unary(self, path: str) -> Callable:
        assert path == "/inference.GRPCInferenceService/ModelInfer"
        return lambda request, timeout, metadata: request()

    def close(self) -> None:
        self.closed = True


def unanswered() -> bytes:
    time.sleep(0.001)
    raise Unanswered


@dataclass
class Lines:
    """A connection over such channels, all of which are kept."""

    made: list[Channel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = Connection(self.make)

    def make(self) -> Channel:
        self.made.append(Channel())
        return self.made[-1]

    def ask(self, what: Callable[[], bytes]) -> bytes:
        return self.connection.call("ModelInfer", what, timeout=1e-6, metadata=())

    def ask_in_vain(self) -> None:
        with pytest.raises(Unanswered):
            self.ask(unanswered)

    @property
    def closed(self) -> list[bool]:
        return [one.closed for one in self.made]


def test_a_line_that_was_left_stays_for_who_still_uses_it() -> None:
    lines = Lines()

    def meanwhile() -> bytes:
        lines.ask_in_vain()
        assert lines.closed == [False, False]
        lines.ask_in_vain()  # the second one is nobody's now
        assert lines.closed == [False, True, False]
        return b"late"

    assert lines.ask(meanwhile) == b"late"
    assert lines.closed == [True, True, False]


def test_closing_closes_what_was_left_too_and_makes_nothing_new() -> None:
    lines = Lines()

    def meanwhile() -> bytes:
        lines.ask_in_vain()
        lines.connection.close()
        assert lines.closed == [True, True]
        raise Unanswered

    with pytest.raises(Unanswered):
        lines.ask(meanwhile)
    lines.ask_in_vain()
    assert lines.closed == [True, True]
