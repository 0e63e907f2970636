# SPDX-License-Identifier: Apache-2.0
"""What becomes of requests when their client is closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from scripted_server import Step, hang, refuse, scripted
from toy_bundles import SHAPE, write_bundle

from sfumato.deploy.client import Client
from sfumato.deploy.manifest import Manifest
from sfumato.errors import ServiceError

PICTURES = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Manifest]:
    return tmp_path, write_bundle(tmp_path)


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not there() and time.monotonic() < end:
        time.sleep(0.01)
    assert there()


@pytest.mark.parametrize("step", [hang, refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "25000")], ids=["on its way", "in a pause"])
def test_closing_ends_what_waits(step: Step, bundle: tuple[Path, Manifest]) -> None:
    with scripted(bundle[1], step) as server, ThreadPoolExecutor(1) as pool:
        client = Client(bundle[0], server.address, deadline=60)
        asked = pool.submit(client.infer, PICTURES)
        wait_until(lambda: bool(server.requests))
        client.close()
        with pytest.raises(ServiceError):
            asked.result(timeout=15)
        with pytest.raises(ServiceError, match="was closed"):
            client.infer(PICTURES)
    assert not [one.name for one in threading.enumerate() if one.name.startswith("sfumato-client")]


def test_closing_ends_every_stream_with_our_error(bundle: tuple[Path, Manifest]) -> None:
    def ask(client: Client) -> list:
        return list(client.stream(PICTURES[at : at + 1] for at in range(7)))

    with scripted(bundle[1], *[hang] * 8) as server, ThreadPoolExecutor(2) as pool:
        client = Client(bundle[0], server.address, deadline=30)
        asked = [pool.submit(ask, client)]
        wait_until(lambda: len(server.requests) == 4)
        asked.append(pool.submit(ask, client))
        wait_until(lambda: client._pool._work_queue.qsize() == 4)
        client.close()  # four requests are on their way, four more wait
        for one in asked:
            with pytest.raises(ServiceError):
                one.result(timeout=20)
        with pytest.raises(ServiceError, match="was closed"):
            client.infer(PICTURES, batch=2)
        client.close()  # once more does no harm
