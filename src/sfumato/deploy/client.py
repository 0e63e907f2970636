# SPDX-License-Identifier: Apache-2.0
"""A device's whole inference: the head here, the tail on any server of the Open Inference Protocol.

The noise of a picture is drawn once. What is sent again after a failure is the same bytes: a second draw would be a second
release of the picture, which the audit did not allow for.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy.asking.answers import Answer, Way, read_answers
from sfumato.deploy.asking.channel import Access as Access  # of whoever makes a client
from sfumato.deploy.asking.channel import channel_maker
from sfumato.deploy.asking.connection import Connection
from sfumato.deploy.asking.refusals import another_export, refused, strange
from sfumato.deploy.asking.retries import pause
from sfumato.deploy.edge import Edge
from sfumato.deploy.protocol import PUSHBACK, TYPES, answer_of, request_of
from sfumato.errors import ConfigError, DataError, ServiceError

DEADLINE = 10.0
"""Seconds for a request, all its tries together, where nothing else is said."""
RETRIES = 100
"""How often a request is asked again, at most, where nothing else is said: the deadline ends it before."""
BATCH_MOST = 1024
"""Pictures in one request, at most."""

_SLACK = 1 << 16  # bytes of an answer beside its numbers, and of all other messages
_LARGEST = (1 << 31) - 1  # of anything in gRPC
_IN_FLIGHT = 4  # requests at once: enough to hide the way, and each holds a batch of features


class Client:
    """The head of a bundle and the server that has its tail. Threads may share it; use it in a `with` block, or close it.

    Args:
        bundle: folder with at least manifest.json and head.onnx, or an `Edge` of it.
        server: "host:port"; an IPv6 address is in brackets.
        access: the token and certificates; without any, loopback is spoken to in plain text and everybody else by TLS.
        deadline: seconds for a request, all its tries together.
        retries: how often a request is asked again where that is safe, at most; with the default it is the deadline that ends it.
        sticky: give byte-identical pictures identical noise, as long as this object lives; a given `Edge` has decided that.

    Attributes:
        edge: the head.

    Raises:
        BundleError: the bundle is damaged, of another version or unsafe.
        ConfigError: an argument is out of range, an `Edge` is given and `sticky` too, or the connection would not be safe.

    Example:
        >>> def label_all(folder, pictures):
        ...     with Client(folder, "tail.example.org:8001", access=Access(ca="ca.pem"), deadline=5) as client:
        ...         return [answer.label for answer in client.infer(pictures)]
    """

    def __init__(
        self,
        bundle: str | Path | Edge,
        server: str,
        *,
        access: Access | None = None,
        deadline: float = DEADLINE,
        retries: int = RETRIES,
        sticky: bool = False,
    ) -> None:
        if not 0 < deadline < threading.TIMEOUT_MAX:
            raise ConfigError(f"deadline must be above 0 seconds, got {deadline}")
        if retries < 0:
            raise ConfigError(f"retries must be at least 0, got {retries}; 0 asks once")
        if sticky and isinstance(bundle, Edge):
            raise ConfigError("sticky is decided where the edge is made; use Edge(bundle, sticky=True)")
        self.edge = bundle if isinstance(bundle, Edge) else Edge(bundle, sticky=sticky)
        self._server, self._deadline, self._retries = server, deadline, retries
        self._access = access or Access()
        self._uniform = random.SystemRandom().uniform
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="sfumato-client")
        answer = self.edge.manifest.answer
        largest = min(BATCH_MOST * math.prod(answer.shape) * np.dtype(answer.type).itemsize + _SLACK, _LARGEST)
        self._connection = Connection(channel_maker(server, self._access, largest=largest))

    def check(self) -> None:
        """Make sure that the server has this export.

        Raises:
            ServiceError: it has not, or does not say so in time.
        """
        manifest = self.edge.manifest
        request = messages.ModelMetadataRequest(name=manifest.name)
        reply, _ = self._ask("ModelMetadata", request.SerializeToString())
        try:
            found = messages.ModelMetadataResponse.FromString(reply)
        except DecodeError as error:
            raise strange(self._server, str(error)) from error
        real = [[(one.name, one.datatype, tuple(one.shape)[1:]) for one in side] for side in (found.inputs, found.outputs)]
        said = [[(one.name, TYPES[one.type], one.shape)] for one in (manifest.sent, manifest.answer)]
        if found.name != manifest.name or real != said:
            raise another_export(self._server, expected=f"'{manifest.name}' with {said}", found=f"'{found.name}' with {real}")

    def infer(self, pictures: NDArray[np.generic], *, batch: int = 16) -> list[Answer]:
        """Return an answer for each picture. Each call draws the noise of its pictures anew, which is another release of them.

        Args:
            pictures: (N, C, H, W), N at least 1, uint8, or float32 in [0, 1].
            batch: pictures in one request, 1 to 1024.

        Returns:
            N answers, in the order of the pictures.

        Raises:
            DataError: the pictures have another shape, another type, or values outside of [0, 1].
            ServiceError: a request was refused or not answered in time.
        """
        if not 1 <= batch <= BATCH_MOST:
            raise ConfigError(f"batch must be from 1 to {BATCH_MOST}, got {batch}")
        if len(pictures) <= batch:
            return self._answer(*self._release(pictures))
        parts = (pictures[at : at + batch] for at in range(0, len(pictures), batch))
        return [answer for answers in self.stream(parts) for answer in answers]

    def stream(self, batches: Iterable[NDArray[np.generic]]) -> Iterator[list[Answer]]:
        """Answer batches as they come, a few at once, in their order. While some are on the way, the head runs on the next.

        Args:
            batches: each as the pictures of `infer`, of at most 1024.

        Yields:
            The answers of each batch.

        Raises:
            DataError: a batch is none; the answers of those before it were yielded.
            ServiceError: a request was refused or not answered in time; likewise.
        """
        ahead: deque[Future[list[Answer]]] = deque()
        ending: Exception | None = None
        waiting = iter(batches)
        try:
            while ending is None or ahead:
                if ending is None and len(ahead) < _IN_FLIGHT:
                    try:
                        ahead.append(self._submit(next(waiting)))
                    except Exception as error:  # raised below, after the answers to what came before it
                        ending = error
                else:
                    yield ahead.popleft().result()
            if not isinstance(ending, StopIteration):
                raise ending
        finally:
            for left in ahead:
                left.cancel()

    def close(self) -> None:
        """End the connection; a request that is on its way ends with a ServiceError."""
        self._closing.set()
        self._connection.close()
        self._pool.shutdown()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _submit(self, pictures: NDArray[np.generic]) -> Future[list[Answer]]:
        """Run the head and send what it returns."""
        if self._closing.is_set():
            raise self._closed()
        released = self._release(pictures)
        try:
            return self._pool.submit(self._answer, *released)
        except RuntimeError as error:  # another thread has just closed it
            raise self._closed() from error

    def _release(self, pictures: NDArray[np.generic]) -> tuple[bytes, int, float]:
        """Return the request for pictures, how many they are, and the milliseconds that the head took for one."""
        manifest = self.edge.manifest
        most = min(BATCH_MOST, (_LARGEST - _SLACK) // manifest.bytes_per_picture)
        if len(pictures) > most:
            raise DataError(f"expected at most {most} pictures in one request, got {len(pictures)}; make smaller batches")
        started = time.perf_counter()
        z = self.edge.features(pictures)
        device_ms = 1e3 * (time.perf_counter() - started) / len(z)
        return request_of(manifest.name, manifest.sent, z).SerializeToString(), len(z), device_ms

    def _answer(self, request: bytes, count: int, device_ms: float) -> list[Answer]:
        """Return the answers to a request."""
        started = time.perf_counter()
        reply, tries = self._ask("ModelInfer", request)
        way_ms = 1e3 * (time.perf_counter() - started)
        manifest = self.edge.manifest
        try:
            response = messages.ModelInferResponse.FromString(reply)
            values = answer_of(response, manifest.answer)
            if response.model_name != manifest.name:
                raise ValueError(f"expected '{manifest.name}' to answer, found {response.model_name[:60]!r}")
            if len(values) != count:
                raise ValueError(f"expected {count} answers, found {len(values)}")
        except (ValueError, DecodeError) as error:
            raise strange(self._server, str(error)) from error
        way = Way(device_ms=device_ms, way_ms=way_ms, bytes_sent=tries * len(request) / count, tries=tries)
        return read_answers(values, manifest, way)

    def _ask(self, method: str, request: bytes) -> tuple[bytes, int]:
        """Return what the server replies, and how often it was asked."""
        end = time.monotonic() + self._deadline
        for tries in itertools.count(1):
            try:
                if self._closing.is_set():
                    break
                left = end - time.monotonic()
                reply = self._connection.call(method, request, timeout=left, metadata=self._access.metadata)
            except grpc.RpcError as error:
                wait = None if tries > self._retries else self._pause(error, tries)
                if wait is None or time.monotonic() + wait >= end:
                    # without its cause, whose frames hold the token, and whose words go to a terminal as the server chose them
                    raise refused(self._server, error.code().name, error.details(), tries=tries) from None
            except ValueError:  # gRPC's word for a channel that another thread has just closed
                break
            else:
                return reply, tries
            self._closing.wait(wait)
        raise self._closed()

    def _closed(self) -> ServiceError:
        return ServiceError(f"the client of {self._server} was closed before an answer came; make a new one", "CANCELLED")

    def _pause(self, error: grpc.RpcError, tries: int) -> float | None:
        told = [value for key, value in error.trailing_metadata() or () if key == PUSHBACK]
        return pause(error.code().name, told[-1] if told else None, tries, said=error.details(), uniform=self._uniform)
