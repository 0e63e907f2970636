# SPDX-License-Identifier: Apache-2.0
"""A server of toy bundles in a process of its own, as `sfumato serve` starts it, and ways to ask it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy import protocol
from sfumato.deploy.manifest import Manifest

PATIENCE = 20.0
"""Seconds for anything that should happen at once."""
INFER = f"/{protocol.SERVICE}/ModelInfer"


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    process: subprocess.Popen[str]
    line: str
    port: int
    log: Path

    def records(self, wanted: str = "", count: int = 1) -> list[dict[str, object]]:
        """The lines of the log, once there are so many with a text in them."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            lines = [line for line in self.log.read_text().splitlines() if wanted in line]
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            time.sleep(0.02)
        raise AssertionError(f"no {count} lines with {wanted!r} in {self.log.read_text()[-2000:]}")


@contextmanager
def serving(folder: Path, bundles: Sequence[Path], *options: str) -> Iterator[Served]:
    """Serve bundles until the block ends; the server must end well, and earlier only if the block asks for it."""
    log = folder / f"log-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "sfumato", "serve", *map(str, bundles), "--port", "0", "--threads", "1", "--log", str(log)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            line = _first_line(process)
            yield Served(process, line, int(line.split(" on ")[1].split(" (")[0].rpartition(":")[2]), log)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(PATIENCE), "the server says nothing"
    line = process.stdout.readline().strip()
    assert line.startswith("serving "), line
    return line


def good_request(manifest: Manifest, pictures: int = 1, seed: int = 0) -> tuple[messages.ModelInferRequest, np.ndarray]:
    """A request and its features."""
    z = np.random.default_rng(seed).uniform(-1, 1, (pictures, *manifest.sent.shape))
    z = (z * 100 + 100 if manifest.sent.type == "uint8" else z).astype(manifest.sent.type)
    return protocol.request_of(manifest.name, manifest.sent, z), z


def ask(
    channel: grpc.Channel, method: str, content: bytes, *, metadata: Sequence[tuple[str, str]] = (), timeout: float = PATIENCE
) -> bytes:
    """Send bytes and return bytes, whatever they are."""
    call = channel.unary_unary(method if "/" in method else f"/{protocol.SERVICE}/{method}")
    answer: bytes = call(content, metadata=metadata, timeout=timeout)
    return answer


def refusal(channel: grpc.Channel, method: str, content: bytes, *, metadata: Sequence[tuple[str, str]] = ()) -> grpc.RpcError:
    """Send bytes that must be refused, and return how they were."""
    try:
        ask(channel, method, content, metadata=metadata)
    except grpc.RpcError as error:
        return error
    raise AssertionError("it was answered")


def infer(channel: grpc.Channel, manifest: Manifest, pictures: int = 1, seed: int = 0, **how: object) -> None:
    """Ask for an answer, and see that it is right for float32 on the wire."""
    request, z = good_request(manifest, pictures, seed)
    answer = messages.ModelInferResponse.FromString(ask(channel, INFER, request.SerializeToString(), **how))  # type: ignore[arg-type]
    expected = z.reshape(len(z), 2, 8).sum(2)
    np.testing.assert_allclose(protocol.answer_of(answer, manifest.answer), expected, rtol=1e-5, atol=1e-5)
