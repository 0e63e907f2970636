# SPDX-License-Identifier: Apache-2.0
"""Four times the load that a server can take: waiting is bounded, who is refused is told, and it is over soon."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from odd_tails import slow_bundle
from running_server import INFER, PATIENCE, good_request, infer, refusal, serving

QUEUE = 16  # pictures


@dataclass(frozen=True)
class Outcome:
    status: str
    seconds: float
    pushback: str | None


def flood(channel: grpc.Channel, content: bytes, rate: float, seconds: float) -> list[Outcome]:
    """Send at a rate, whatever comes back, and wait for everything."""
    call = channel.unary_unary(INFER)
    outcomes: list[Outcome] = []
    sent = []
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        if len(sent) < now * rate:
            begun = time.monotonic()
            future = call.future(content, timeout=PATIENCE)
            future.add_done_callback(lambda done, begun=begun: outcomes.append(outcome(done, time.monotonic() - begun)))
            sent.append(future)
        time.sleep(max(0.0, len(sent) / rate - (time.monotonic() - start)))
    end = time.monotonic() + PATIENCE
    while len(outcomes) < len(sent) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(outcomes) == len(sent)
    return outcomes


def outcome(done: grpc.Future, seconds: float) -> Outcome:
    trailers = dict(done.trailing_metadata() or ())
    return Outcome(done.code().name, seconds, trailers.get("grpc-retry-pushback-ms"))


def test_overload_is_bounded_told_and_over_soon(tmp_path: Path) -> None:
    manifest = slow_bundle(tmp_path / "b")
    request = good_request(manifest)[0].SerializeToString()
    with (
        serving(tmp_path, [tmp_path / "b"], "--queue", str(QUEUE), "--batch", "4") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        process = psutil.Process(server.process.pid)
        infer(channel, manifest)
        start = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            for one in [pool.submit(infer, channel, manifest) for _ in range(24)]:
                one.result(PATIENCE)
        capacity = 24 / (time.monotonic() - start)
        before = process.memory_info().rss
        outcomes = flood(channel, request, 4 * capacity, 1.0)
        assert process.memory_info().rss - before < 32 << 20
        counts = Counter(one.status for one in outcomes)
        assert set(counts) == {"OK", "RESOURCE_EXHAUSTED"}
        assert counts["RESOURCE_EXHAUSTED"] > len(outcomes) / 3
        assert all(one.pushback and int(one.pushback) > 0 for one in outcomes if one.status != "OK")
        # Who was let in waited for the queue, the batch that ran and its own; 3 is for a machine that does something else too.
        assert max(one.seconds for one in outcomes if one.status == "OK") < 3 * (QUEUE + 8) / capacity
        waits = [float(str(one["queue_ms"])) for one in server.records('"ModelInfer"') if one["status"] == "OK"]
        assert max(waits) / 1e3 < 3 * (QUEUE + 4) / capacity
        start = time.monotonic()
        infer(channel, manifest)
        assert time.monotonic() - start < 1.0


@pytest.mark.parametrize("limit", ["client", "server"])
def test_what_waits_longer_than_its_time_is_not_run(tmp_path: Path, limit: str) -> None:
    manifest = slow_bundle(tmp_path / "b", layers=16)
    options = ("--timeout", "150ms") if limit == "server" else ()
    with (
        serving(tmp_path, [tmp_path / "b"], "--batch", "1", *options) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        infer(channel, manifest)
        call = channel.unary_unary(INFER)
        content = good_request(manifest, 2)[0].SerializeToString()
        asked = [call.future(content, timeout=PATIENCE if limit == "server" else 0.15) for _ in range(40)]
        codes = Counter(one.code().name for one in asked if one.exception(PATIENCE) or True)
        assert set(codes) == {"OK", "DEADLINE_EXCEEDED"}
        assert codes["DEADLINE_EXCEEDED"] > 10
        start = time.monotonic()
        infer(channel, manifest)  # what was given up is not in its way
        assert time.monotonic() - start < 1.0
        ran = [one for one in server.records('"ModelInfer"', 42) if one["run_ms"]]
        assert len(ran) <= codes["OK"] + 3


def test_bytes_that_wait_are_bounded_too(tmp_path: Path) -> None:
    manifest = slow_bundle(tmp_path / "b")
    content = good_request(manifest, 8)[0].SerializeToString()
    with (
        serving(tmp_path, [tmp_path / "b"], "--batch", "1", "--queue-bytes", "2KiB") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        infer(channel, manifest)
        call = channel.unary_unary(INFER)
        asked = [call.future(content, timeout=PATIENCE) for _ in range(12)]
        codes = Counter(one.code().name for one in asked if one.exception(PATIENCE) or True)
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    assert 4 <= codes["OK"] <= 8  # one runs, four of 512 bytes wait


def test_a_message_has_the_size_that_was_said(tmp_path: Path) -> None:
    manifest = slow_bundle(tmp_path / "b", layers=1)
    with (
        serving(tmp_path, [tmp_path / "b"], "--message", "1000B") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        infer(channel, manifest, 8)
        content = good_request(manifest, 16)[0].SerializeToString()
        assert len(content) > 1000
        assert refusal(channel, INFER, content).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        np.testing.assert_equal(len(server.records('"ModelInfer"', 2)), 2)
