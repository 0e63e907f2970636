# SPDX-License-Identifier: Apache-2.0
"""The server as a whole: it answers what it should, says what it is, writes down nothing of what it saw, and stops well."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from odd_tails import failing_bundle, slow_bundle
from running_server import PATIENCE, ask, good_request, infer, refusal, serving
from toy_bundles import OFFSET, SCALE, answers, write_bundle
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy import protocol
from sfumato.deploy.manifest import Manifest

WIRES = ("float32", "float16", "uint8")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    manifests = {wire: write_bundle(folder / wire, wire=wire, run=wire) for wire in WIRES}
    with serving(folder, [folder / wire for wire in WIRES], "--metrics-port", "0") as server:
        yield server, manifests


@pytest.fixture
def channel(house):
    with grpc.insecure_channel(f"127.0.0.1:{house[0].port}") as made:
        yield made


def real(z: np.ndarray, wire: str) -> np.ndarray:
    return z.astype(np.float32) * np.float32(SCALE) + np.float32(OFFSET) if wire == "uint8" else z.astype(np.float32)


@pytest.mark.parametrize("wire", WIRES)
def test_the_client_of_others_gets_right_answers(house, wire: str) -> None:
    server, manifests = house
    manifest: Manifest = manifests[wire]
    _, z = good_request(manifest, 5, seed=3)
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(manifest.name)
        assert client.get_server_metadata().name == "sfumato"
        told = client.get_model_metadata(manifest.name)
        given = triton.InferInput("z", list(z.shape), protocol.TYPES[wire])
        given.set_data_from_numpy(z)
        answer = client.infer(manifest.name, [given], request_id="seven", client_timeout=PATIENCE)
    assert [(one.name, one.datatype, list(one.shape)) for one in (*told.inputs, *told.outputs)] == [
        ("z", protocol.TYPES[wire], [-1, 1, 4, 4]),
        ("answer", "FP32", [-1, 2]),
    ]
    np.testing.assert_allclose(answer.as_numpy("answer"), answers(real(z, wire)), rtol=1e-3, atol=1e-3)
    assert (answer.get_response().id, answer.get_response().model_version) == ("seven", "1")


def test_every_client_gets_its_own_answers(house, channel) -> None:
    manifest = house[1]["float32"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = [pool.submit(infer, channel, manifest, 1 + seed % 5, seed) for seed in range(200)]
        for one in done:
            one.result(PATIENCE)


def test_the_line_says_what_is_served_and_what_protects_it(house) -> None:
    server, manifests = house
    assert all(manifest.name in server.line for manifest in manifests.values())
    assert f"on 127.0.0.1:{server.port} (no TLS, no tokens, no budget); metrics on 127.0.0.1:" in server.line


def test_the_log_holds_nothing_of_what_was_sent_or_answered(house, channel) -> None:
    server, manifests = house
    manifest = manifests["float32"]
    z = np.full((1, 1, 4, 4), 0.8271828, np.float32)
    request = protocol.request_of(manifest.name, manifest.sent, z)
    request.id = "planted-id"
    request.parameters["planted-parameter"].string_param = "planted-value"
    secret = (("authorization", "Bearer planted-token"), ("x-planted", "planted-header"))
    answer = protocol.answer_of(
        messages.ModelInferResponse.FromString(ask(channel, "ModelInfer", request.SerializeToString(), metadata=secret)),
        manifest.answer,
    )
    request.inputs[0].name = "planted-name"
    refusal(channel, "ModelInfer", request.SerializeToString())
    refusal(channel, "ModelReady", messages.ModelReadyRequest(name="planted-model").SerializeToString())
    refusal(channel, "/planted.Service/Planted", b"planted-bytes")
    server.records("NOT_FOUND")
    server.records("UNIMPLEMENTED")
    text = server.log.read_text()
    assert "planted" not in text
    assert "82718" not in text
    assert f"{float(answer[0, 0]):.3f}" not in text
    record = next(one for one in server.records("ModelInfer") if one["model"] == manifest.name and one["status"] == "OK")
    assert set(record) == {"time", "call", "client", "model", "pictures", "bytes", "queue_ms", "run_ms", "status"}
    assert record["client"] == "127.0.0.1"
    assert record["run_ms"] > 0


def test_the_page_of_metrics_counts(house, channel) -> None:
    server, manifests = house
    name = manifests["float16"].name
    port = int(server.line.rpartition(":")[2])

    def pictures() -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f'sfumato_pictures_total{{model="{name}"}}'))

    before = pictures()
    ask(channel, "ModelInfer", good_request(manifests["float16"], 7)[0].SerializeToString())
    end = time.monotonic() + PATIENCE
    while pictures() == before and time.monotonic() < end:  # a request is counted once its reply is on its way
        time.sleep(0.02)
    assert pictures() - before == 7


def test_a_model_that_fails_fails_that_batch_alone(tmp_path: Path) -> None:
    manifest, other = failing_bundle(tmp_path / "bad"), write_bundle(tmp_path / "good")
    with (
        serving(tmp_path, [tmp_path / "bad", tmp_path / "good"], "--metrics-port", "0") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        infer(channel, manifest)
        for _ in range(3):
            bad = protocol.request_of(manifest.name, manifest.sent, np.full((1, 1, 4, 4), 1e6, np.float32))
            error = refusal(channel, "ModelInfer", bad.SerializeToString())
            assert error.code() == grpc.StatusCode.INTERNAL
            assert error.details() == "the model failed on this batch; tell who runs the server"
            infer(channel, manifest, 3)
            infer(channel, other)
        assert server.records("batch_failed", 3)[0]["model"] == manifest.name
        page = f"http://127.0.0.1:{server.line.rpartition(':')[2]}/metrics"
        with urllib.request.urlopen(page, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
    assert f'sfumato_failed_batches_total{{model="{manifest.name}"}} 3.0' in lines
    assert f'sfumato_batch_pictures_sum{{model="{manifest.name}"}} 10.0' in lines
    assert f'sfumato_run_seconds_count{{model="{other.name}"}} 3.0' in lines
    assert f'sfumato_queue_pictures{{model="{other.name}"}} 0.0' in lines


def test_a_stop_finishes_what_is_in_flight(tmp_path: Path) -> None:
    manifest = slow_bundle(tmp_path / "b")
    with serving(tmp_path, [tmp_path / "b"], "--batch", "1") as server:
        with (
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
            concurrent.futures.ThreadPoolExecutor(12) as pool,
        ):
            asked = [pool.submit(infer, channel, manifest, 2, seed) for seed in range(12)]
            asked[0].result(PATIENCE)
            server.process.send_signal(signal.SIGTERM)
            server.records("stopping")
            late = refusal(channel, "ServerReady", b"")
            for one in asked:
                one.result(PATIENCE)
        assert late.code() == grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(PATIENCE) == 0
    assert [one["event"] for one in server.records('"event"')] == ["listening", "stopping", "stopped"]
    assert [one["status"] for one in server.records("ModelInfer")] == ["OK"] * 12


def test_a_stop_does_not_wait_longer_than_its_grace(tmp_path: Path) -> None:
    manifest = slow_bundle(tmp_path / "b")
    with (
        serving(tmp_path, [tmp_path / "b"], "--batch", "1", "--grace", "50ms") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        concurrent.futures.ThreadPoolExecutor(20) as pool,
    ):
        asked = [pool.submit(infer, channel, manifest, 8, seed) for seed in range(20)]
        asked[0].result(PATIENCE)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - start < 1.5
        ends = [one.exception(PATIENCE) for one in asked]
        assert {end.code().name for end in ends if isinstance(end, grpc.RpcError)} <= {"UNAVAILABLE", "CANCELLED"}
        assert any(ends)


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_well_at_once_when_nothing_is_in_flight(tmp_path: Path, name: signal.Signals) -> None:
    write_bundle(tmp_path / "b")
    with serving(tmp_path, [tmp_path / "b"]) as server:
        start = time.monotonic()
        server.process.send_signal(name)
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - start < 3


def test_a_log_that_nobody_reads_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    filler = os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while os.write(filler, b"x" * 4096):
                pass
        with serving(tmp_path, [tmp_path / "b"], "--log", str(tmp_path / "pipe")) as server:
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE) == 0
    finally:
        os.close(filler)
        os.close(reader)


@pytest.mark.parametrize(
    ("host", "asked"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("[::1]", "[::1]"), ("localhost", "localhost")]
)
def test_it_listens_where_it_is_told(tmp_path: Path, host: str, asked: str) -> None:
    manifest = write_bundle(tmp_path / "b")
    with serving(tmp_path, [tmp_path / "b"], "--host", host, "--insecure") as server:
        assert server.line.endswith(f" on {'[::1]' if '::1' in host else host}:{server.port} (no TLS, no tokens, no budget)")
        with grpc.insecure_channel(f"{asked}:{server.port}") as channel:
            infer(channel, manifest)


def test_a_small_model_takes_no_more_pictures_than_the_largest(tmp_path: Path) -> None:
    write_bundle(tmp_path / "large")
    manifest = write_bundle(tmp_path / "small", wire="uint8")
    with (
        serving(tmp_path, [tmp_path / "small", tmp_path / "large"], "--message", "640B") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        ask(channel, "ModelInfer", good_request(manifest, 10)[0].SerializeToString())
        error = refusal(channel, "ModelInfer", good_request(manifest, 11)[0].SerializeToString())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected at most 10 pictures in a request, found 11" in error.details()
