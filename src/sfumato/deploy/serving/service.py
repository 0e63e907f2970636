# SPDX-License-Identifier: Apache-2.0
"""The calls of the Open Inference Protocol that a server answers, from the bytes of a message to the bytes of the reply.

Every call, known or not, takes the same way: who is it, what is asked, is there room, run. Messages are read here and not by
gRPC, so that nobody is listened to before it is known who it is, that a message which never comes ends with its time, and that
bytes which are no message get an answer that says so.

Source: oip2024, the gRPC data plane.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy import protocol
from sfumato.deploy.manifest import Manifest
from sfumato.deploy.serving.admission import Budgets, Door, RefusalError, host_of
from sfumato.deploy.serving.batching import Batcher, ModelFailedError
from sfumato.deploy.serving.service_log import Record, ServiceLog
from sfumato.deploy.serving.service_metrics import ServiceMetrics
from sfumato.deploy.serving.waiting import QueueFullError

NAME = "sfumato"
"""Of the server, in its metadata; its version is not told."""

Refused = RefusalError
Code = grpc.StatusCode
_M = TypeVar("_M", bound=Message)
_Method = Callable[[bytes, Record], Awaitable[Message]]
_LEAST_PUSHBACK = 10  # milliseconds


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        manifest: of its bundle.
        batcher: that runs it.
        most: pictures in a request, at most. A message is bounded by the largest model; of a smaller one it could hold so many
            pictures that what lies between the layers of the tail would fill the memory.
    """

    manifest: Manifest
    batcher: Batcher
    most: int


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The calls of a server, over its models.

    Args:
        models: by name.
        door: who may ask.
        budgets: how much; None where nobody counts.
        log: of the requests.
        metrics: of the requests.
        timeout: seconds from the head of a request to its answer, at most.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        *,
        door: Door,
        budgets: Budgets | None,
        log: ServiceLog,
        metrics: ServiceMetrics,
        timeout: float,
    ) -> None:
        self.ready = True
        self._models = models
        self._door = door
        self._budgets = budgets
        self._log = log
        self._metrics = metrics
        self._timeout = timeout
        methods: dict[str, _Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        self._handlers = {f"/{protocol.SERVICE}/{name}": self._handler(name, method) for name, method in methods.items()}
        self._unknown = self._handler("other", self._unimplemented)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return what answers a call, which is something for every call: who has no right to ask learns nothing from it."""
        return self._handlers.get(handler_call_details.method, self._unknown)

    def _handler(self, name: str, method: _Method) -> grpc.RpcMethodHandler:
        # On the wire a stream of one message is one message; only a stream leaves the reading of it to us.
        return grpc.stream_unary_rpc_method_handler(partial(self._handle, name, method))

    async def _handle(self, name: str, method: _Method, stream: object, context: grpc.aio.ServicerContext) -> bytes:
        """Answer a call, or refuse it, and write down which."""
        record = Record(name)
        refusal: RefusalError | None = None
        reply = b""
        try:
            async with asyncio.timeout(self._timeout):
                record.client = self._door.client_of(context)
                content = await context.read()
                if not isinstance(content, bytes):
                    raise Refused(Code.INVALID_ARGUMENT, "expected one message, found none", reason="malformed")
                record.bytes = len(content)
                reply = (await method(content, record)).SerializeToString()
        except RefusalError as error:
            refusal = error
        except TimeoutError:
            refusal = Refused(
                Code.DEADLINE_EXCEEDED, f"expected an answer within {self._timeout:g} s, found none; try again", reason="timeout"
            )
        except asyncio.CancelledError:  # the client has gone, or its deadline has passed
            record.status = "CANCELLED"
            self._write(record)
            raise
        except Exception as error:
            self._log.event("error", call=name, error=type(error).__name__)  # its text could hold what was sent
            refusal = Refused(Code.INTERNAL, "the server failed on this request; tell who runs it", reason="error")
        if refusal is None:
            asyncio.get_running_loop().call_soon(self._write, record)  # once the reply is on its way
            return reply
        record.client = record.client or host_of(context.peer())
        record.status, record.reason = refusal.status.name, refusal.reason
        self._write(record)
        await context.abort(refusal.status, refusal.message, refusal.trailers)
        raise AssertionError  # abort has raised

    def _write(self, record: Record) -> None:
        self._log.request(record)
        self._metrics.request(record)

    async def _server_live(self, content: bytes, record: Record) -> Message:
        _parse(messages.ServerLiveRequest, content)
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, content: bytes, record: Record) -> Message:
        _parse(messages.ServerReadyRequest, content)
        return messages.ServerReadyResponse(ready=self.ready)

    async def _model_ready(self, content: bytes, record: Record) -> Message:
        request = _parse(messages.ModelReadyRequest, content)
        self._model(request.name, request.version, record)
        return messages.ModelReadyResponse(ready=self.ready)

    async def _server_metadata(self, content: bytes, record: Record) -> Message:
        _parse(messages.ServerMetadataRequest, content)
        return messages.ServerMetadataResponse(name=NAME)

    async def _model_metadata(self, content: bytes, record: Record) -> Message:
        request = _parse(messages.ModelMetadataRequest, content)
        manifest = self._model(request.name, request.version, record).manifest
        reply = messages.ModelMetadataResponse(name=manifest.name, versions=[protocol.VERSION], platform="onnxruntime_onnx")
        for tensors, facts in ((reply.inputs, manifest.sent), (reply.outputs, manifest.answer)):
            tensors.add(name=facts.name, datatype=protocol.TYPES[facts.type], shape=[-1, *facts.shape])
        return reply

    async def _unimplemented(self, content: bytes, record: Record) -> Message:
        raise Refused(Code.UNIMPLEMENTED, "expected a call that this server answers; ask for its README", reason="call")

    async def _model_infer(self, content: bytes, record: Record) -> Message:
        request = _parse(messages.ModelInferRequest, content)
        served = self._model(request.model_name, request.model_version, record)
        try:
            z = protocol.features_of(request, served.manifest.sent, served.manifest.answer)
        except ValueError as error:
            raise Refused(Code.INVALID_ARGUMENT, str(error), reason="malformed") from error
        record.pictures = len(z)
        if len(z) > served.most:
            raise Refused(
                Code.INVALID_ARGUMENT,
                f"expected at most {served.most} pictures in a request, found {len(z)}; send fewer at once",
                reason="size",
            )
        rows = await self._run(served.batcher, z, record)
        return protocol.response_of(request, served.manifest.answer, rows)

    async def _run(self, batcher: Batcher, z: NDArray[np.generic], record: Record) -> NDArray[np.float32]:
        """Return the rows of a request, once it was its turn."""
        if self._budgets is not None:
            self._budgets.take(record.client, len(z))
        try:
            job = batcher.submit(z)
        except QueueFullError as error:
            if self._budgets is not None:
                self._budgets.give_back(record.client, len(z))
            wait = max(_LEAST_PUSHBACK, math.ceil(error.wait * 1e3))
            raise Refused(
                Code.RESOURCE_EXHAUSTED,
                f"expected fewer requests at once, found the queue full; try again in {wait} ms",
                reason="queue",
                pushback=wait,
            ) from error
        try:
            rows = await job.answer
        except ModelFailedError as error:
            raise Refused(Code.INTERNAL, "the model failed on this batch; tell who runs the server", reason="model") from error
        finally:
            batcher.forget(job)
        record.queue, record.run = job.started - job.arrived, job.finished - job.started
        return rows

    def _model(self, name: str, version: str, record: Record) -> Served:
        """Return a model that is asked for."""
        served = self._models.get(name)
        if served is None or version not in ("", protocol.VERSION):
            raise Refused(
                Code.NOT_FOUND,
                f"expected a model of this server and version {protocol.VERSION}, found {name[:100]!r} version {version[:20]!r}; "
                "the tail that is served and the head that asks must be of one export",
                reason="model_name",
            )
        record.model = name
        return served


def _parse(kind: type[_M], content: bytes) -> _M:
    message: _M = kind()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise Refused(
            Code.INVALID_ARGUMENT, f"expected a message {kind.DESCRIPTOR.name}, found bytes that are none", reason="malformed"
        ) from error
    return message
