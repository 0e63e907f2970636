# SPDX-License-Identifier: Apache-2.0
"""The counters of a server, and the page that shows them."""

from __future__ import annotations

import socket
import threading
import urllib.request

import pytest

from sfumato.deploy.serving.service_log import Record
from sfumato.deploy.serving.service_metrics import MetricsPage, ServiceMetrics


def test_requests_and_batches_are_counted() -> None:
    metrics = ServiceMetrics()
    metrics.request(Record("ModelInfer", "gate", "demo", 3, 200, 0.004, 0.002))
    metrics.request(Record("ModelInfer", "gate", "demo", 5, 300, status="RESOURCE_EXHAUSTED", reason="queue"))
    metrics.batch("demo", 3, 0.002)
    metrics.failed("demo")
    metrics.watch("demo", lambda: 17)
    value = metrics.registry.get_sample_value
    assert value("sfumato_requests_total", {"call": "ModelInfer", "model": "demo", "status": "OK"}) == 1
    assert value("sfumato_refused_total", {"reason": "queue"}) == 1
    assert value("sfumato_pictures_total", {"model": "demo"}) == 3
    assert value("sfumato_received_bytes_total", {"model": "demo"}) == 500
    assert value("sfumato_queue_seconds_sum", {"model": "demo"}) == 0.004
    assert value("sfumato_run_seconds_sum", {"model": "demo"}) == 0.002
    assert value("sfumato_batch_pictures_bucket", {"model": "demo", "le": "2.0"}) == 0
    assert value("sfumato_batch_pictures_bucket", {"model": "demo", "le": "4.0"}) == 1
    assert value("sfumato_failed_batches_total", {"model": "demo"}) == 1
    assert value("sfumato_queue_pictures", {"model": "demo"}) == 17


def test_a_client_is_in_no_counter() -> None:
    metrics = ServiceMetrics()
    metrics.request(Record("ModelInfer", "gate", "demo", 3, 200, 0.004, 0.002))
    page = MetricsPage(metrics, 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        page.close()
    assert 'sfumato_pictures_total{model="demo"} 3.0' in text
    assert "gate" not in text


def test_a_bucket_holds_all_up_to_its_bound() -> None:
    metrics = ServiceMetrics()
    for pictures in (1, 4, 5, 256, 257):
        metrics.batch("demo", pictures, 0.5)
    value = metrics.registry.get_sample_value
    bounds = ("1.0", "2.0", "4.0", "8.0", "128.0", "256.0", "+Inf")
    counts = [value("sfumato_batch_pictures_bucket", {"model": "demo", "le": bound}) for bound in bounds]
    assert counts == [1, 1, 2, 3, 3, 4, 5]
    assert value("sfumato_batch_pictures_count", {"model": "demo"}) == 5
    assert value("sfumato_batch_pictures_sum", {"model": "demo"}) == 523
    assert value("sfumato_run_seconds_sum", {"model": "demo"}) == 2.5


def test_every_request_counts_and_none_without_its_labels() -> None:
    metrics = ServiceMetrics()
    for _ in range(3):
        metrics.request(Record("ServerLive", "gate", bytes=5))
        metrics.request(Record("other", "gate", status="UNIMPLEMENTED", reason="call"))
        metrics.failed("demo")
    value = metrics.registry.get_sample_value
    assert value("sfumato_requests_total", {"call": "ServerLive", "model": "", "status": "OK"}) == 3
    assert value("sfumato_refused_total", {"reason": "call"}) == 3
    assert value("sfumato_failed_batches_total", {"model": "demo"}) == 3
    assert value("sfumato_refused_total", {"reason": ""}) is None
    assert value("sfumato_received_bytes_total", {"model": ""}) is None


def test_the_page_is_on_the_loopback_alone_and_goes_down() -> None:
    before = set(threading.enumerate())
    page = MetricsPage(ServiceMetrics(), 0)
    port = page.port
    try:
        with pytest.raises(OSError):  # noqa: PT011 -- refused, or no such address
            socket.create_connection(("127.0.0.2", port), 1)  # which 0.0.0.0 would answer
    finally:
        page.close()
    assert not set(threading.enumerate()) - before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
