# SPDX-License-Identifier: Apache-2.0
"""What a service does with a call, without a network: what goes wrong inside stays inside."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from toy_bundles import write_bundle
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy import protocol
from sfumato.deploy.manifest import Manifest
from sfumato.deploy.serving.admission import Allowance, Budgets, Door
from sfumato.deploy.serving.batching import Batcher
from sfumato.deploy.serving.service import Served, Service
from sfumato.deploy.serving.service_log import ServiceLog
from sfumato.deploy.serving.service_metrics import ServiceMetrics
from sfumato.deploy.serving.waiting import Limits


class AbortedError(Exception):
    pass


@dataclass
class Context:
    """As much of gRPC's context as a service uses."""

    content: object
    said: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    async def read(self) -> object:
        if isinstance(self.content, Exception):
            raise self.content
        return self.content

    async def abort(self, code, details, trailers) -> None:
        self.said.append((code.name, details, dict(trailers)))
        raise AbortedError

    def invocation_metadata(self):
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5000"


class Watch:
    def batch(self, pictures: int, seconds: float) -> None: ...
    def failed(self, error: BaseException) -> None: ...


def run(manifest: Manifest, scenario: Callable, tail=None, limits=None, **how) -> list[dict[str, object]]:
    """Run a scenario with a service, and return the lines of its log."""
    file = io.StringIO()

    async def go() -> None:
        batcher = Batcher(tail or (lambda z: z.reshape(len(z), 2, 8).sum(2)), limits or Limits(), Watch())
        log = ServiceLog(file)
        settings = {"door": Door(None), "budgets": None, "log": log, "metrics": ServiceMetrics(), "timeout": 5.0, **how}
        try:
            async with asyncio.timeout(10):
                await scenario(Service({manifest.name: Served(manifest, batcher, 64)}, **settings))
        finally:
            assert batcher.close()
            log.close()

    asyncio.run(go())
    return [json.loads(line) for line in file.getvalue().splitlines()]


async def call(service: Service, method: str, content: object) -> bytes | tuple[str, str, dict[str, str]]:
    context = Context(content)
    handler = service.service(SimpleNamespace(method=f"/{protocol.SERVICE}/{method}"))
    try:
        return await handler.stream_unary(None, context)
    except AbortedError:
        return context.said[0]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    return write_bundle(tmp_path_factory.mktemp("b"))


def question(manifest: Manifest, pictures: int = 1) -> bytes:
    z = np.zeros((pictures, *manifest.sent.shape), np.float32)
    return protocol.request_of(manifest.name, manifest.sent, z).SerializeToString()


def test_a_server_that_stops_is_not_ready(manifest) -> None:
    async def scenario(service: Service) -> None:
        name = messages.ModelReadyRequest(name=manifest.name).SerializeToString()
        for ready in (True, False):
            service.ready = ready
            assert messages.ServerReadyResponse.FromString(await call(service, "ServerReady", b"")).ready is ready
            assert messages.ModelReadyResponse.FromString(await call(service, "ModelReady", name)).ready is ready
            assert messages.ServerLiveResponse.FromString(await call(service, "ServerLive", b"")).live

    run(manifest, scenario)


def test_an_error_of_ours_tells_nothing(manifest) -> None:
    async def scenario(service: Service) -> None:
        status, details, _ = await call(service, "ModelInfer", RuntimeError("planted"))
        assert status == "INTERNAL"
        assert "planted" not in details

    lines = run(manifest, scenario)
    assert "planted" not in json.dumps(lines)
    assert [line.get("error", line.get("status")) for line in lines] == ["RuntimeError", "INTERNAL"]


def test_the_time_of_a_request_is_bounded(manifest) -> None:
    async def scenario(service: Service) -> None:
        status, details, _ = await call(service, "ModelInfer", question(manifest))
        assert (status, "within 0.05 s" in details) == ("DEADLINE_EXCEEDED", True)

    def slow(z):
        import time

        time.sleep(0.3)
        return z.reshape(len(z), 2, 8).sum(2)

    (line,) = run(manifest, scenario, tail=slow, timeout=0.05)
    assert (line["status"], line["reason"]) == ("DEADLINE_EXCEEDED", "timeout")


def test_who_leaves_is_written_down_and_forgotten(manifest) -> None:
    async def scenario(service: Service) -> None:
        task = asyncio.ensure_future(call(service, "ModelInfer", question(manifest)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def slow(z):
        import time

        time.sleep(0.3)
        return z.reshape(len(z), 2, 8).sum(2)

    (line,) = run(manifest, scenario, tail=slow)
    assert (line["status"], line["pictures"]) == ("CANCELLED", 1)


def test_what_the_queue_refuses_costs_no_budget(manifest) -> None:
    budgets = Budgets(Allowance(10, 1e9))

    async def scenario(service: Service) -> None:
        asked = [asyncio.ensure_future(call(service, "ModelInfer", question(manifest, 2))) for _ in range(5)]
        found = [await one for one in asked]
        refused = [one for one in found if isinstance(one, tuple)]
        assert [(status, int(trailers["grpc-retry-pushback-ms"]) >= 10) for status, _, trailers in refused] == [
            ("RESOURCE_EXHAUSTED", True)
        ] * 3
        budgets.take("127.0.0.1", 6)

    run(manifest, scenario, limits=Limits(size=1, pictures=2), budgets=budgets)
