# SPDX-License-Identifier: Apache-2.0
"""Load for a server of the Open Inference Protocol: clients that wait for each answer, and devices that wait for nobody.

Requests are bytes that were made before, and answers are not read: what is timed is the server and the way to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np
from numpy.typing import NDArray

from sfumato.deploy.protocol import SERVICE

INFER = f"/{SERVICE}/ModelInfer"
WARMING = 1 / 3
"""Of the time that is measured, what is asked before."""
_MOST = 64 << 20
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each client, as devices have
    ("grpc.max_receive_message_length", _MOST),
    ("grpc.max_send_message_length", _MOST),
]


@dataclass
class Load:
    """What came of a load.

    Attributes:
        milliseconds: of each request that was answered, from when it was due.
        errors: by gRPC status.
        seconds: that it took.
    """

    milliseconds: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers for each second."""
        return len(self.milliseconds) / self.seconds

    def quantile(self, share: float) -> float:
        """Return a quantile of the milliseconds."""
        return float(np.quantile(self.milliseconds, share))


def closed(address: str, request: bytes, *, clients: int, seconds: float, path: str = INFER) -> Load:
    """Let clients ask one request after the other.

    Args:
        address: host and port, in plain text.
        request: serialized.
        clients: how many, each with a connection.
        seconds: for how long; a third of it is asked before, untimed.
        path: of the method.
    """

    async def ask(call: _Call, load: Load, end: float) -> None:
        while (start := time.perf_counter()) < end:
            await _timed(call, request, start, load)

    async def run(calls: Sequence[_Call]) -> Load:
        for length in (WARMING * seconds, seconds):
            load, start = Load(), time.perf_counter()
            await asyncio.gather(*(ask(call, load, start + length) for call in calls))
            load.seconds = time.perf_counter() - start
        return load

    return asyncio.run(_connected(address, path, clients, run))


def opened(address: str, request: bytes, *, due: NDArray[np.float64], connections: int = 8, path: str = INFER) -> Load:
    """Ask at given times, whether or not what was asked before is answered.

    Args:
        address: host and port, in plain text.
        request: serialized.
        due: seconds from the start, (N,), ascending.
        connections: that the requests take in turn.
        path: of the method.
    """

    async def run(calls: Sequence[_Call]) -> Load:
        load, start = Load(), time.perf_counter()
        # A group forgets what is done: a list of all would keep the garbage collector for a second.
        async with asyncio.TaskGroup() as group:
            for number, moment in enumerate(due):
                await asyncio.sleep(max(0.0, start + moment - time.perf_counter()))
                group.create_task(_timed(calls[number % connections], request, start + moment, load))
        load.seconds = time.perf_counter() - start
        return load

    return asyncio.run(_connected(address, path, connections, run))


_Call = Callable[[bytes], "asyncio.Future[bytes]"]


async def _timed(call: _Call, request: bytes, start: float, load: Load) -> None:
    try:
        await call(request)
        load.milliseconds.append(1e3 * (time.perf_counter() - start))
    except grpc.aio.AioRpcError as error:
        status = error.code().name
        load.errors[status] = load.errors.get(status, 0) + 1


async def _connected(
    address: str, path: str, count: int, run: Callable[[Sequence[_Call]], Coroutine[object, object, Load]]
) -> Load:
    channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(count)]
    try:
        return await run([channel.unary_unary(path) for channel in channels])
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
