# SPDX-License-Identifier: Apache-2.0
"""Servers for the benchmarks, each in its own process: the bare echo, ours, and MLServer."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy.protocol import SERVICE


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        address: host and port of its gRPC.
        process: its own.
    """

    address: str
    process: subprocess.Popen[str]

    @property
    def cpu_s(self) -> float:
        """Seconds of processor that it has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)


START_S = 60.0
"""Seconds that a server may take to start."""
_READY = f"/{SERVICE}/ServerReady"


@contextmanager
def echo() -> Iterator[Running]:
    """Run the bare echo inside a `with` block, and yield it."""
    with _process([sys.executable, "-m", "bench.echo"]) as process:
        assert process.stdout is not None  # noqa: S101 -- `_process` pipes it
        yield Running(f"127.0.0.1:{int(process.stdout.readline())}", process)


@contextmanager
def sfumato(bundle: Path, *options: str) -> Iterator[Running]:
    """Serve a bundle with our server inside a `with` block, and yield it.

    Args:
        bundle: as `export` wrote it.
        options: further ones of `sfumato serve`.
    """
    log = log_of(bundle)
    with _process([sys.executable, "-m", "sfumato", "serve", str(bundle), "--port", "0", "--log", str(log), *options]) as process:
        assert process.stdout is not None  # noqa: S101 -- `_process` pipes it
        line = process.stdout.readline()
        found = re.search(r" on (127\.0\.0\.1:\d+)", line)
        if found is None:
            raise RuntimeError(f"expected a server, found {line!r}; see {log}")
        yield Running(found.group(1), process)


def log_of(bundle: Path) -> Path:
    """Return where a server of a bundle writes its log."""
    return bundle.with_name(f"{bundle.name}.log")


@contextmanager
def mlserver(repository: Path) -> Iterator[Running]:
    """Serve a model repository with MLServer inside a `with` block, and yield it.

    Args:
        repository: as `export` wrote it.
    """
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), _free(3), strict=True))
    settings = {"host": "127.0.0.1", "debug": "false", **ports}
    environment = {f"MLSERVER_{name.upper()}": str(value) for name, value in settings.items()}
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(repository)]
    with _process(command, quiet=True, environment=environment) as process:
        address = f"127.0.0.1:{ports['grpc_port']}"
        with grpc.insecure_channel(address) as channel:
            ask, end = channel.unary_unary(_READY), time.monotonic() + START_S
            while not _ready(ask):
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError(f"MLServer did not start within {START_S:g} s")
                time.sleep(0.2)
        yield Running(address, process)


def _ready(ask: grpc.UnaryUnaryMultiCallable) -> bool:
    try:
        reply = ask(messages.ServerReadyRequest().SerializeToString(), timeout=2)
    except grpc.RpcError:
        return False
    return bool(messages.ServerReadyResponse.FromString(reply).ready)


def _free(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def _process(
    command: list[str], *, quiet: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command inside a `with` block, its standard output piped, or thrown away where nobody reads it."""
    out = subprocess.DEVNULL if quiet else subprocess.PIPE
    everything = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, text=True, env=everything)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
