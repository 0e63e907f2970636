# SPDX-License-Identifier: Apache-2.0
"""A small server of tails: the Open Inference Protocol over gRPC, with batches, bounds, TLS, tokens, logs and metrics.

For one machine, without a cluster around it. The same bundles run on Triton, KServe and MLServer, and the same client asks them.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import grpc

from sfumato.deploy.bundle import Bundle, open_bundle
from sfumato.deploy.manifest import Manifest
from sfumato.deploy.serving.admission import Budgets, Door
from sfumato.deploy.serving.batching import Batcher, Run
from sfumato.deploy.serving.service import Served, Service
from sfumato.deploy.serving.service_log import ServiceLog
from sfumato.deploy.serving.service_metrics import MetricsPage, ServiceMetrics
from sfumato.deploy.serving.settings import Settings, credentials
from sfumato.deploy.serving.tails import load_tail
from sfumato.deploy.serving.tokens import read_tokens
from sfumato.errors import BundleError, ConfigError, StorageError

_CALLS_MOST = 1024  # at once, those that wait for their message included
_CONNECTIONS_MOST = 1024
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two servers on one port would share its clients in silence
    ("grpc.max_concurrent_streams", 256),
    ("grpc.max_allowed_incoming_connections", _CONNECTIONS_MOST),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.absolute_max_metadata_size", 16 << 10),
    # A compressed message is refused: a few kilobytes of it could unpack to gigabytes.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
    # Half-open connections are found by pings, idle and old ones are closed; milliseconds.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
)


@dataclass(frozen=True)
class _ModelWatch:
    """Tells metrics and log of the batches of one model."""

    model: str
    metrics: ServiceMetrics
    log: ServiceLog

    def batch(self, pictures: int, seconds: float) -> None:
        self.metrics.batch(self.model, pictures, seconds)

    def failed(self, error: BaseException) -> None:
        self.metrics.failed(self.model)
        self.log.event("batch_failed", model=self.model, error=type(error).__name__)


class Server:
    """Tails behind a port. It is made, started and stopped inside of one event loop.

    Args:
        bundles: that are served, checked.
        settings: what it listens on, whom it lets in, and so on.
        log: where lines go.

    Raises:
        BundleError: two bundles have one name, or a tail is not what its manifest says.
        ConfigError: tokens or certificates cannot be used, or no picture fits into a message.
    """

    def __init__(self, bundles: Sequence[Bundle], settings: Settings, log: ServiceLog) -> None:
        names = [bundle.manifest.name for bundle in bundles]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BundleError(f"expected bundles of different models, found {', '.join(twice)} twice; give each once")
        self._settings = settings
        self._log = log
        self._metrics = ServiceMetrics()
        tokens = read_tokens(settings.tokens) if settings.tokens is not None else None
        self._door = Door(tokens, certified=settings.client_ca is not None)
        self._credentials = credentials(settings)
        tails = [(bundle.manifest, load_tail(bundle, settings.threads, most=settings.limits.size)) for bundle in bundles]
        self._largest = max(bundle.manifest.bytes_per_picture for bundle in bundles)
        if settings.message is not None and settings.message < self._largest:
            raise ConfigError(
                f"--message must be at least the {self._largest} bytes of a picture of the largest model, got "
                f"{settings.message}; without it, a batch fits"
            )
        self._models: dict[str, Served] = {}
        for manifest, tail in tails:
            self._models[manifest.name] = self._serve(manifest, tail)
        self._service = Service(
            self._models,
            door=self._door,
            budgets=Budgets(settings.budget) if settings.budget is not None else None,
            log=log,
            metrics=self._metrics,
            timeout=settings.timeout,
        )
        options = [*_OPTIONS, ("grpc.max_receive_message_length", settings.message_most(self._largest))]
        self._grpc = grpc.aio.server(handlers=[self._service], options=options, maximum_concurrent_rpcs=_CALLS_MOST)
        self._page: MetricsPage | None = None
        self.port = 0
        self._started = False

    def _serve(self, manifest: Manifest, tail: Run) -> Served:
        watch = _ModelWatch(manifest.name, self._metrics, self._log)
        batcher = Batcher(tail, self._settings.limits, watch)
        self._metrics.watch(manifest.name, lambda: batcher.depth)
        return Served(manifest, batcher, self._settings.pictures_most(self._largest))

    @property
    def metrics_port(self) -> int | None:
        """Where the page for Prometheus is, if there is one."""
        return None if self._page is None else self._page.port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the port is taken or the host is none of this machine.
        """
        settings = self._settings
        address = settings.address(settings.port)
        try:
            if self._credentials is None:
                self.port = self._grpc.add_insecure_port(address)
            else:
                self.port = self._grpc.add_secure_port(address, self._credentials)
            if settings.metrics_port is not None:
                self._page = MetricsPage(self._metrics, settings.metrics_port)
        except (RuntimeError, OSError) as error:
            option = (
                f"--host {settings.host} --port {settings.port}" if not self.port else f"--metrics-port {settings.metrics_port}"
            )
            why = error.strerror if isinstance(error, OSError) else _why_not(settings.host.strip("[]"), settings.port)
            raise ConfigError(
                f"{option}: expected an address of this machine and a port that is free, could not listen there: {why}; choose "
                "another, or --port 0"
            ) from error
        await self._grpc.start()
        self._started = True
        self._log.event("listening", host=settings.host, port=self.port, models=list(self._models))

    async def stop(self) -> None:
        """Take no more requests, finish those in flight within the grace, and end every thread."""
        self._service.ready = False
        if self._started:
            self._log.event("stopping")
        await self._grpc.stop(self._settings.grace)
        for served in self._models.values():
            if not served.batcher.close():
                self._log.event("thread_left", model=served.manifest.name)
        if self._page is not None:
            self._page.close()
        if self._started:
            self._log.event("stopped")

    def read_tokens(self) -> None:
        """Read the file of tokens again; where it is wrong, those of before stay."""
        if self._settings.tokens is None:
            return
        try:
            self._door.tokens = read_tokens(self._settings.tokens)
        except ConfigError as error:
            self._log.event("tokens_refused", error=str(error))
        else:
            self._log.event("tokens_read")

    def describe(self) -> str:
        """Return one line for people: where it listens, what it serves, what protects it."""
        page = f"; metrics on 127.0.0.1:{self.metrics_port}" if self._page else ""
        return f"serving {', '.join(self._models)} on {self._settings.address(self.port)} ({self._settings.protection}){page}"


def serve(folders: Sequence[Path], settings: Settings, say: Callable[[str], None] = print) -> None:
    """Serve bundles until SIGTERM or SIGINT; SIGHUP reads the tokens again.

    Args:
        folders: of the bundles.
        settings: what it listens on, whom it lets in, and so on.
        say: who is told, in one line, that it listens.

    Raises:
        BundleError: a bundle is none, or two are one.
        ConfigError: a setting cannot be used.
        StorageError: the log cannot be written.
    """
    bundles = [open_bundle(folder, "tail") for folder in folders]
    file = _log_file(settings.log)
    log = ServiceLog(file)
    try:
        asyncio.run(_until_stopped(bundles, settings, log, say))
    finally:
        if log.close() and file is not sys.stderr:  # to close a pipe that nobody reads would take for ever
            file.close()


async def _until_stopped(bundles: Sequence[Bundle], settings: Settings, log: ServiceLog, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    server = Server(bundles, settings, log)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, server.read_tokens)
    try:
        await server.start()
        say(server.describe())
        await stopped.wait()
    finally:
        await server.stop()


def _why_not(host: str, port: int) -> str:
    """Return why an address cannot be listened at, which gRPC keeps to itself."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError as error:
        return str(error)
    return "whoever was there has just left it"


def _log_file(path: Path | None) -> TextIO:
    if path is None:
        return sys.stderr
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"--log {path}: expected a file that can be written: {error.strerror}; choose another") from error
