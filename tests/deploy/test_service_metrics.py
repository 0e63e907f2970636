# SPDX-License-Identifier: Apache-2.0
"""The counters of a server, and the page that shows them."""

from __future__ import annotations

import urllib.request

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


def test_a_bucket_holds_its_bound_and_the_last_one_everything() -> None:
    metrics = ServiceMetrics()
    for pictures in (3, 4, 256, 257, 1000):
        metrics.batch("demo", pictures, 0.002)
    value = metrics.registry.get_sample_value
    bounds = ("2.0", "4.0", "128.0", "256.0", "+Inf")
    assert [value("sfumato_batch_pictures_bucket", {"model": "demo", "le": le}) for le in bounds] == [0, 2, 2, 3, 5]
    assert value("sfumato_batch_pictures_count", {"model": "demo"}) == 5
    assert value("sfumato_batch_pictures_sum", {"model": "demo"}) == 1520


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
