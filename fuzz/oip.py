# SPDX-License-Identifier: Apache-2.0
"""Look for messages that the server of tails does not survive, guided by which lines they reach.

Run by hand:

    pip install atheris
    python -m fuzz.oip --seconds 600

Every input is one call: its first byte chooses the method, the rest is the message. It goes through the service as gRPC would
call it, in this process and without a network. What counts as found: an exception, a status that means that the server failed, an
answer that is no message or not the right one. Atheris prints it and keeps the input in a file named crash-*.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["sfumato.deploy"]):
    from sfumato.deploy import protocol
    from sfumato.deploy.manifest import FormatFacts, Manifest, Parity, TensorFacts
    from sfumato.deploy.serving import service
    from sfumato.deploy.serving.admission import Allowance, Budgets, Door
    from sfumato.deploy.serving.batching import Batcher
    from sfumato.deploy.serving.service_log import ServiceLog
    from sfumato.deploy.serving.service_metrics import ServiceMetrics
    from sfumato.deploy.serving.waiting import Limits

from tritonclient.grpc import service_pb2 as messages

METHODS = ("ModelInfer", "ModelMetadata", "ModelReady", "ServerMetadata", "ServerLive", "ServerReady", "ModelConfig")
FAILED = {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED"}
LARGEST = 4096  # bytes of an input


class AbortedError(Exception):
    """A call was refused, as gRPC raises it."""


@dataclass
class Context:
    """As much of gRPC's context as the service uses."""

    content: bytes
    status: list[str] = field(default_factory=list)

    async def read(self) -> bytes:
        """Return the message."""
        return self.content

    async def abort(self, code: object, details: str, trailers: object) -> None:
        """Refuse the call."""
        self.status.append(code.name)  # type: ignore[attr-defined]
        raise AbortedError(details)

    def invocation_metadata(self) -> tuple[()]:
        """Return no metadata."""
        return ()

    def peer(self) -> str:
        """Return who asks."""
        return "ipv4:127.0.0.1:5000"


class Watch:
    """Whom the batches are told to."""

    def batch(self, pictures: int, seconds: float) -> None:
        """Hear of a batch."""

    def failed(self, error: BaseException) -> None:
        """Raise: this tail never fails on what it should be given."""
        raise error


@dataclass(frozen=True)
class Call:
    """What gRPC knows of a call before it is read."""

    method: str


def manifest(wire: str) -> Manifest:
    """Return the manifest of a small model."""
    sent = TensorFacts("z", wire, (1, 4, 4))
    return Manifest(
        name=f"toy-{wire}",
        run="toy",
        task="classification",
        wire=wire,  # type: ignore[arg-type]
        picture=sent,
        draws=(),
        sent=sent,
        answer=TensorFacts("answer", "float32", (2,)),
        labels=(),
        leak="",
        formats=(FormatFacts(wire, 64, {}, None),),  # type: ignore[arg-type]
        parity=Parity(1, 0.0, 0.0, 0, 1.0),
        files={},
    )


def tail(z: np.ndarray) -> np.ndarray:
    """Answer as the toy bundles of the tests do; a wrong shape, or a number that is none, raises."""
    answer = z.reshape(len(z), 2, 8).astype(np.float64).sum(2)
    if not np.isfinite(answer).all():
        raise ValueError("a number that is none came through")
    return np.clip(answer, -1e30, 1e30).astype(np.float32)


class Target:
    """A service of three models, asked one call after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._service = loop.run_until_complete(self._make())

    async def _make(self) -> service.Service:
        served = [service.Served(made, Batcher(tail, Limits(), Watch()), LARGEST) for made in map(manifest, protocol.TYPES)]
        return service.Service(
            {one.manifest.name: one for one in served},
            door=Door(None),
            budgets=Budgets(Allowance(10**9, 1.0)),
            log=ServiceLog(open(os.devnull, "w")),
            metrics=ServiceMetrics(),
            timeout=5.0,
        )

    def __call__(self, data: bytes) -> None:
        """Make a call of an input, and look at what comes of it."""
        if not data:
            return
        method = METHODS[data[0] % len(METHODS)]
        context = Context(data[1:])
        handler = self._service.service(Call(f"/{protocol.SERVICE}/{method}"))
        try:
            reply = self._loop.run_until_complete(handler.stream_unary(None, context))
        except AbortedError as error:
            if context.status[0] in FAILED:
                raise AssertionError(f"{method}: {context.status[0]}") from error
            return
        if method == "ModelInfer":
            self._check(messages.ModelInferRequest.FromString(data[1:]), reply)

    def _check(self, request: messages.ModelInferRequest, reply: bytes) -> None:
        """Raise unless an answer is the one to its request."""
        facts = manifest(request.model_name.removeprefix("toy-"))
        z = np.frombuffer(request.raw_input_contents[0], facts.sent.type).reshape(-1, 1, 4, 4)
        answer = protocol.answer_of(messages.ModelInferResponse.FromString(reply), facts.answer)
        np.testing.assert_array_equal(answer, tail(z))


def seeds(folder: Path) -> None:
    """Write calls that are right, for all others to start from."""
    rng = np.random.default_rng(0)
    calls = [bytes([METHODS.index(name)]) for name in METHODS]
    for made in map(manifest, protocol.TYPES):
        calls.append(bytes([1]) + messages.ModelMetadataRequest(name=made.name).SerializeToString())
        calls.append(bytes([2]) + messages.ModelReadyRequest(name=made.name, version="1").SerializeToString())
        for pictures in (1, 3):
            z = (rng.random((pictures, 1, 4, 4)) * 100).astype(made.sent.type)
            request = protocol.request_of(made.name, made.sent, z)
            request.id, request.model_version = "seed", protocol.VERSION
            request.parameters["key"].int64_param = 7
            calls.append(bytes([0]) + request.SerializeToString())
            request.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
            request.outputs.add(name="answer")
            calls.append(bytes([0]) + request.SerializeToString())
    for number, call in enumerate(calls):
        (folder / f"seed-{number}").write_bytes(call)


def main() -> None:
    """Fuzz for so many seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long")
    seconds = parser.parse_args().seconds
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with tempfile.TemporaryDirectory() as folder:
        seeds(Path(folder))
        arguments = [sys.argv[0], folder, f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-print_final_stats=1"]
        atheris.Setup(arguments, Target(loop))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
