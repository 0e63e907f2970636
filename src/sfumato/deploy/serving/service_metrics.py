# SPDX-License-Identifier: Apache-2.0
"""What a server counts, for Prometheus, in a registry of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from sfumato.deploy.serving.service_log import Record

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServiceMetrics:
    """The counters of a server.

    Example:
        >>> metrics = ServiceMetrics()
        >>> metrics.request(Record("ModelInfer", client="gate", model="demo", pictures=3, run=0.002))
        >>> metrics.registry.get_sample_value("sfumato_pictures_total", {"model": "demo"})
        3.0
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "sfumato_requests", "Requests that are over, by status.", ["call", "model", "status"], registry=self.registry
        )
        self._refused = Counter("sfumato_refused", "Requests that were refused, by reason.", ["reason"], registry=self.registry)
        self._pictures = Counter("sfumato_pictures", "Pictures that were answered.", ["model"], registry=self.registry)
        self._bytes = Counter("sfumato_received_bytes", "Bytes of messages that were read.", ["model"], registry=self.registry)
        self._queue = self._histogram("sfumato_queue_seconds", "Seconds that a request waited.", _SECONDS)
        self._run = self._histogram("sfumato_run_seconds", "Seconds that a batch ran.", _SECONDS)
        self._batch = self._histogram("sfumato_batch_pictures", "Pictures in a batch.", _PICTURES)
        self._failed = Counter("sfumato_failed_batches", "Batches that the model failed on.", ["model"], registry=self.registry)
        self._depth = Gauge("sfumato_queue_pictures", "Pictures that wait.", ["model"], registry=self.registry)
        # Finding a counter by its labels costs more than counting: the few that there are are kept.
        self._counter = lru_cache(256)(self._requests.labels)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, what, ["model"], buckets=buckets, registry=self.registry)

    def request(self, record: Record) -> None:
        """Count a request that is over."""
        self._counter(record.call, record.model, record.status).inc()
        if record.reason:
            self._refused.labels(record.reason).inc()
        if record.model:
            self._bytes.labels(record.model).inc(record.bytes)
        if record.run:
            self._pictures.labels(record.model).inc(record.pictures)
            self._queue.labels(record.model).observe(record.queue)

    def watch(self, model: str, depth: Callable[[], int]) -> None:
        """Ask for the depth of a queue whenever somebody wants to know it."""
        self._depth.labels(model).set_function(depth)

    def batch(self, model: str, pictures: int, seconds: float) -> None:
        """Count a batch."""
        self._batch.labels(model).observe(pictures)
        self._run.labels(model).observe(seconds)

    def failed(self, model: str) -> None:
        """Count a batch that failed."""
        self._failed.labels(model).inc()


class MetricsPage:
    """The page that Prometheus reads, on the loopback alone.

    Args:
        metrics: that it shows.
        port: of the page; 0 lets the system choose.
    """

    def __init__(self, metrics: ServiceMetrics, port: int) -> None:
        self._server, self._thread = start_http_server(port, addr="127.0.0.1", registry=metrics.registry)

    @property
    def port(self) -> int:
        """Where it is."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Take the page down."""
        # Its loop looks twice a second whether to stop.
        closer = threading.Thread(target=self._server.shutdown)
        closer.start()
        closer.join(5.0)
        self._server.server_close()
        self._thread.join(5.0)
