# SPDX-License-Identifier: Apache-2.0
"""A small server for tests of the device: it answers as the toy tail does, or misbehaves as a script says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from toy_bundles import OFFSET, SCALE, answers
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy import protocol
from sfumato.deploy.manifest import Manifest

Step = Callable[["ScriptedServer", grpc.ServicerContext, bytes], bytes]
LONGEST = 5.0
"""Seconds that a request is left without an answer, at most."""


@dataclass
class ScriptedServer:
    """What is served, what to do with the next requests (then the right thing), and what came.

    Attributes:
        manifest: of the bundle whose tail is played.
        script: steps for the next requests.
        requests: the bytes of every inference request.
        metadata: that came with the last call.
        described: what is told of the model; None is the truth.
        going: set when what hangs may go on.
    """

    manifest: Manifest
    port: int = 0
    script: list[Step] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    described: messages.ModelMetadataResponse | None = None
    going: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def infer(self, content: bytes, context: grpc.ServicerContext) -> bytes:
        with self.lock:
            self.requests.append(content)
            self.metadata = dict(context.invocation_metadata())
            step = self.script.pop(0) if self.script else answer
        return step(self, context, content)

    def describe(self, content: bytes, context: grpc.ServicerContext) -> bytes:
        name = messages.ModelMetadataRequest.FromString(content).name
        if name != self.manifest.name and self.described is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return (self.described or description(self.manifest)).SerializeToString()


def description(manifest: Manifest) -> messages.ModelMetadataResponse:
    told = messages.ModelMetadataResponse(name=manifest.name, versions=["1"])
    for tensors, facts in ((told.inputs, manifest.sent), (told.outputs, manifest.answer)):
        tensors.add(name=facts.name, datatype=protocol.TYPES[facts.type], shape=[-1, *facts.shape])
    return told


def right(server: ScriptedServer, content: bytes) -> messages.ModelInferResponse:
    """Return the right response to a request."""
    request = messages.ModelInferRequest.FromString(content)
    z = protocol.features_of(request, server.manifest.sent, server.manifest.answer).astype(np.float32)
    if server.manifest.wire == "uint8":
        z = z * np.float32(SCALE) + np.float32(OFFSET)
    return protocol.response_of(request, server.manifest.answer, answers(z))


def answer(server: ScriptedServer, context: grpc.ServicerContext, content: bytes) -> bytes:
    return right(server, content).SerializeToString()


def refuse(status: grpc.StatusCode, pushback: str | None = None, said: str = "scripted") -> Step:
    """Return a step that refuses a request."""

    def step(server: ScriptedServer, context: grpc.ServicerContext, content: bytes) -> bytes:
        if pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
        context.abort(status, said)
        raise AssertionError

    return step


def hang(server: ScriptedServer, context: grpc.ServicerContext, content: bytes) -> bytes:
    server.going.wait(LONGEST)
    return answer(server, context, content)


def changed(change: Callable[[messages.ModelInferResponse], object]) -> Step:
    """Return a step that answers something else."""

    def step(server: ScriptedServer, context: grpc.ServicerContext, content: bytes) -> bytes:
        response = right(server, content)
        change(response)
        return response.SerializeToString()

    return step


@contextmanager
def scripted(manifest: Manifest, *script: Step, credentials: grpc.ServerCredentials | None = None) -> Iterator[ScriptedServer]:
    """Run a server on a free port of the loopback."""
    made = ScriptedServer(manifest, script=list(script))
    methods = {"ModelInfer": made.infer, "ModelMetadata": made.describe}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(protocol.SERVICE, handlers),))
        place = "127.0.0.1:0"
        made.port = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
        server.start()
        try:
            yield made
        finally:
            made.going.set()
            server.stop(0).wait(LONGEST)
