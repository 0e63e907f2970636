# SPDX-License-Identifier: Apache-2.0
"""What a server counts, for Prometheus, in a registry of its own.

Numbers are plain ones until somebody reads them: to find one of the library's own counters by its labels, and to lock it, takes
longer than to run a small tail.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from sfumato.deploy.serving.service_log import Record

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Histogram:
    """Numbers counted by their size.

    Args:
        bounds: of the buckets, ascending, each within its own.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, number: float) -> None:
        self._counts[bisect_left(self._bounds, number)] += 1
        self._total += number

    def buckets(self) -> tuple[list[tuple[str, int]], float]:
        """Return how many numbers lie within each bound, and the sum of all."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._total


@dataclass(slots=True)
class _Model:
    """What is counted of one model."""

    pictures: int = 0
    bytes: int = 0
    failed: int = 0
    queue: _Histogram = field(default_factory=lambda: _Histogram(_SECONDS))
    run: _Histogram = field(default_factory=lambda: _Histogram(_SECONDS))
    batch: _Histogram = field(default_factory=lambda: _Histogram(_PICTURES))


class ServiceMetrics(Collector):
    """The counters of a server. One thread counts; another may read, and can see a sum that is one number ahead of its buckets.

    Example:
        >>> metrics = ServiceMetrics()
        >>> metrics.request(Record("ModelInfer", client="gate", model="demo", pictures=3, run=0.002))
        >>> metrics.registry.get_sample_value("sfumato_pictures_total", {"model": "demo"})
        3
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._refused: Counter[tuple[str, ...]] = Counter()
        self._models: defaultdict[str, _Model] = defaultdict(_Model)
        self._depths: dict[str, Callable[[], int]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def request(self, record: Record) -> None:
        """Count a request that is over."""
        self._requests[record.call, record.model, record.status] += 1
        if record.reason:
            self._refused[(record.reason,)] += 1
        if record.model:
            model = self._models[record.model]
            model.bytes += record.bytes
            if record.run:
                model.pictures += record.pictures
                model.queue.observe(record.queue)

    def watch(self, model: str, depth: Callable[[], int]) -> None:
        """Ask for the depth of a queue whenever somebody wants to know it."""
        self._depths[model] = depth

    def batch(self, model: str, pictures: int, seconds: float) -> None:
        """Count a batch."""
        counted = self._models[model]
        counted.batch.observe(pictures)
        counted.run.observe(seconds)

    def failed(self, model: str) -> None:
        """Count a batch that failed."""
        self._models[model].failed += 1

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted, as Prometheus has it, one family after the other."""
        models = dict(self._models)  # in one step: the other thread may be counting

        def of_models(name: str, what: str, count: Callable[[_Model], float]) -> Metric:
            return _counter(name, what, ["model"], {(model,): count(one) for model, one in models.items()})

        def histogram(name: str, what: str, numbers: Callable[[_Model], _Histogram]) -> Metric:
            family = HistogramMetricFamily(name, what, labels=["model"])
            for model, one in models.items():
                family.add_metric([model], *numbers(one).buckets())
            return family

        requests = dict(self._requests)
        yield _counter("sfumato_requests", "Requests that are over, by status.", ["call", "model", "status"], requests)
        yield _counter("sfumato_refused", "Requests that were refused, by reason.", ["reason"], dict(self._refused))
        yield of_models("sfumato_pictures", "Pictures that were answered.", lambda one: one.pictures)
        yield of_models("sfumato_received_bytes", "Bytes of messages that were read.", lambda one: one.bytes)
        yield of_models("sfumato_failed_batches", "Batches that the model failed on.", lambda one: one.failed)
        yield histogram("sfumato_queue_seconds", "Seconds that a request waited.", lambda one: one.queue)
        yield histogram("sfumato_run_seconds", "Seconds that a batch ran.", lambda one: one.run)
        yield histogram("sfumato_batch_pictures", "Pictures in a batch.", lambda one: one.batch)
        depths = GaugeMetricFamily("sfumato_queue_pictures", "Pictures that wait.", labels=["model"])
        for model, depth in self._depths.items():
            depths.add_metric([model], depth())
        yield depths


def _counter(name: str, what: str, labels: list[str], counts: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(name, what, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


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
