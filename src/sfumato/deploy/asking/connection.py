# SPDX-License-Identifier: Apache-2.0
"""A connection that is left for a new one when nothing comes back through it.

A device that changes its network, or whose router forgets it, keeps a connection on which everything is sent and nothing arrives.
The system notices after many minutes. With gRPC's own pings (keepalive, 10 s) requests still ran into their deadlines after 48 s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from sfumato.deploy.protocol import SERVICE


@dataclass(eq=False)
class _Line:
    """One channel, who uses it, and when something came through it.

    Attributes:
        channel: of gRPC.
        users: requests that are under way.
        heard: when the last answer came, of whatever kind.
        left: whether new requests go elsewhere.
    """

    channel: grpc.Channel
    users: int = 0
    heard: float = field(default=float("-inf"))
    left: bool = False


class Connection:
    """Sends messages and returns what comes back. Threads may share it.

    Args:
        make: makes a channel, which must share its connection with no other.

    Example:
        >>> from sfumato.deploy.asking.channel import Access, channel_maker
        >>> connection = Connection(channel_maker("localhost:8001", Access(), largest=1 << 16))
        >>> connection.close()
    """

    def __init__(self, make: Callable[[], grpc.Channel]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._line = _Line(make())
        self._lines = {self._line}
        self._closed = False

    def call(self, method: str, request: bytes, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> bytes:
        """Send a request.

        Args:
            method: of the protocol, such as "ModelInfer".
            request: the bytes of its message.
            timeout: seconds to wait.
            metadata: that goes with it.

        Returns:
            The bytes of the reply.

        Raises:
            grpc.RpcError: it was refused, or not answered in time.
            ValueError: the connection is closed.
        """
        with self._lock:
            line = self._line
            line.users += 1
        started = time.monotonic()
        silent = False
        try:
            reply: bytes = line.channel.unary_unary(f"/{SERVICE}/{method}")(request, timeout=timeout, metadata=metadata)
            return reply
        except grpc.RpcError as error:
            # A server that says so itself does so before; the timers of gRPC are a little early at times.
            spent = time.monotonic() - started > 0.9 * timeout
            silent = spent and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        finally:
            self._leave(line, started, silent=silent)

    def close(self) -> None:
        """End it, and with it every request that is under way."""
        with self._lock:
            self._closed = True
            lines = list(self._lines)
        for line in lines:
            line.channel.close()

    def _leave(self, line: _Line, started: float, *, silent: bool) -> None:
        """Note the end of a request; if nothing was heard since its start, the next ones take another line."""
        with self._lock:
            line.users -= 1
            if not silent:
                line.heard = time.monotonic()
            elif line.heard < started and line is self._line and not self._closed:
                line.left = True
                self._line = _Line(self._make())
                self._lines.add(self._line)
            done = line.left and not line.users
            if done:
                self._lines.discard(line)
        if done:
            line.channel.close()
