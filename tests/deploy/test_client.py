# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from scripted_server import ScriptedServer, Step, changed, description, hang, refuse, scripted
from toy_bundles import SHAPE, answers, write_bundle
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy import client as client_module
from sfumato.deploy.asking.answers import Way, read_answers
from sfumato.deploy.asking.channel import Access
from sfumato.deploy.asking.refusals import another_export, refused, strange
from sfumato.deploy.client import BATCH_MOST, Client
from sfumato.deploy.edge import Edge
from sfumato.deploy.manifest import Manifest, WireFormat
from sfumato.errors import BundleError, ConfigError, DataError, ServiceError

Code = grpc.StatusCode
PICTURES = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), np.uint8)
TRUTH = answers(2 * PICTURES.astype(np.float32) / 255)
DOWN = refuse(Code.UNAVAILABLE)
FULL = refuse(Code.RESOURCE_EXHAUSTED, "20")


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Manifest]:
    return tmp_path, write_bundle(tmp_path)


@pytest.mark.parametrize("wire", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("batch", [1, 3, 7, 1000])
def test_answers_are_right_and_in_order(tmp_path: Path, wire: WireFormat, batch: int) -> None:
    manifest = write_bundle(tmp_path, wire=wire)
    with scripted(manifest) as server, Client(tmp_path, server.address) as client:
        found = client.infer(PICTURES, batch=batch)
    values = np.stack([one.values for one in found])
    assert np.abs(values - TRUTH).max() < {"float32": 1e-5, "float16": 1e-2, "uint8": 0.1}[wire]
    assert len(server.requests) == -(-7 // batch)
    assert [one.label for one in found] == [("upper", "lower")[at] for at in values.argmax(1)]


def test_an_answer_says_what_it_cost(bundle: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = partial(next, itertools.count(0.0, 0.5))  # half a second each time it is looked at
    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=time.monotonic, perf_counter=clock))
    with scripted(bundle[1], DOWN) as server, Client(bundle[0], server.address) as client:
        (one, other) = client.infer(PICTURES[:2])
    assert one.way.tries == 2
    assert one.way.bytes_sent == len(server.requests[0])  # two tries, two pictures
    assert 64 * 2 < len(server.requests[0]) <= 64 * 2 + 256
    assert (one.way.device_ms, one.way.way_ms) == (250, 500)  # the head's half second is for two pictures
    assert one.way == other.way


def test_the_probability_is_the_softmax(bundle: tuple[Path, Manifest]) -> None:
    logits = np.array([[1000, 999], [-1000, 0], [3, 3]], np.float32)
    way = Way(device_ms=1, way_ms=1, bytes_sent=1, tries=1)
    made = read_answers(logits, bundle[1], way)
    assert [one.label for one in made] == ["upper", "lower", "upper"]
    assert [one.probability for one in made] == pytest.approx([1 / (1 + np.exp(-1)), 1, 0.5])
    for labels in ((), ("one",), ("one", "two", "three")):
        assert [one.label for one in read_answers(logits, replace(bundle[1], labels=labels), way)] == ["0", "1", "0"]
    embedded = read_answers(logits, replace(bundle[1], task="reidentification", labels=()), way)
    assert [(one.label, one.probability) for one in embedded] == [(None, None)] * 3
    assert (np.stack([one.values for one in embedded]) == logits).all()


@pytest.mark.parametrize("script", [[DOWN], [DOWN, DOWN, DOWN], [FULL], [FULL, DOWN, FULL]], ids=len)
def test_what_may_be_asked_again_is_asked_again_with_the_same_bytes(tmp_path: Path, script: list[Step]) -> None:
    manifest = write_bundle(tmp_path, sigma=0.5)  # a second draw would differ
    with scripted(manifest, *script) as server, Client(tmp_path, server.address) as client:
        (found,) = client.infer(PICTURES[:1])
    assert found.way.tries == len(server.requests) == len(script) + 1
    assert len(set(server.requests)) == 1


@pytest.mark.parametrize(
    "step",
    [
        refuse(Code.INVALID_ARGUMENT, "5"),
        refuse(Code.UNAUTHENTICATED, "5"),
        refuse(Code.PERMISSION_DENIED),
        refuse(Code.NOT_FOUND),
        refuse(Code.INTERNAL, "5"),
        refuse(Code.UNIMPLEMENTED),
        refuse(Code.DEADLINE_EXCEEDED),
        refuse(Code.RESOURCE_EXHAUSTED),
        refuse(Code.RESOURCE_EXHAUSTED, "-1"),
        refuse(Code.RESOURCE_EXHAUSTED, "soon"),
        refuse(Code.UNAVAILABLE, "-1"),
        refuse(Code.RESOURCE_EXHAUSTED, "99999"),  # longer than the deadline
    ],
)
def test_what_must_not_be_asked_again_is_one_error_at_once(bundle: tuple[Path, Manifest], step: Step) -> None:
    with scripted(bundle[1], step) as server, Client(bundle[0], server.address) as client:
        with pytest.raises(ServiceError, match="asked once, found .*: scripted; ") as caught:
            client.infer(PICTURES)
        assert len(server.requests) == 1
        assert caught.value.status in str(caught.value)
        assert len(client.infer(PICTURES)) == 7  # the same client goes on


def test_retries_end(bundle: tuple[Path, Manifest]) -> None:
    with scripted(bundle[1], *[FULL] * 9) as server, Client(bundle[0], server.address, retries=2) as client:
        with pytest.raises(ServiceError, match="asked 3 times, found RESOURCE_EXHAUSTED"):
            client.infer(PICTURES)
        assert len(server.requests) == 3


def test_the_deadline_is_for_all_tries_together(bundle: tuple[Path, Manifest]) -> None:
    left: list[float] = []

    def note(server: ScriptedServer, context: grpc.ServicerContext, content: bytes) -> bytes:
        left.append(context.time_remaining())
        return hang(server, context, content)

    script = [*[refuse(Code.RESOURCE_EXHAUSTED, "200")] * 2, note]
    with scripted(bundle[1], *script) as server, Client(bundle[0], server.address, deadline=2) as client:
        started = time.monotonic()
        with pytest.raises(ServiceError, match="asked 3 times, found DEADLINE_EXCEEDED"):
            client.infer(PICTURES)
        assert time.monotonic() - started > 1.9
        assert 0 < left[0] < 1.65  # two pauses of 0.2 s are gone


def _set(field: str, value: object) -> Callable[[messages.ModelInferResponse], object]:
    return lambda response: setattr(response, field, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("model_name", "toy-00000000"), "expected 'toy-.*' to answer, found 'toy-00000000'"),
        (lambda response: response.outputs.add(name="more"), "expected one output"),
        (lambda response: response.outputs[0].shape.__setitem__(1, 3), "expected shape"),
        (lambda response: response.outputs[0].shape.__setitem__(0, 6), "bytes for shape"),
        (lambda response: response.raw_output_contents.__setitem__(0, b"1234"), "expected 56 bytes"),
        (lambda response: response.raw_output_contents.__setitem__(0, np.full(14, np.nan, np.float32).tobytes()), "finite"),
        (lambda response: response.ClearField("raw_output_contents"), "as one raw content, found 0"),
        (_set("model_name", "\x1b[2J\n" * 3), "found '"),
    ],
)
def test_a_wrong_answer_is_an_error(bundle: tuple[Path, Manifest], change: Callable, message: str) -> None:
    with scripted(bundle[1], changed(change)) as server, Client(bundle[0], server.address) as client:
        with pytest.raises(ServiceError, match=message) as caught:
            client.infer(PICTURES)
        assert str(caught.value).isprintable()
        assert len(server.requests) == 1


def test_an_answer_to_another_count_of_pictures_is_an_error(bundle: tuple[Path, Manifest]) -> None:
    def fewer(response: messages.ModelInferResponse) -> None:
        response.outputs[0].shape[0] = 6
        response.raw_output_contents[0] = response.raw_output_contents[0][:48]

    with (
        scripted(bundle[1], changed(fewer)) as server,
        Client(bundle[0], server.address) as client,
        pytest.raises(ServiceError, match="expected 7 answers, found 6"),
    ):
        client.infer(PICTURES)


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"", b"\x0a\x05ab"])
def test_bytes_that_are_no_message_are_an_error(bundle: tuple[Path, Manifest], content: bytes) -> None:
    with (
        scripted(bundle[1], lambda *given: content) as server,
        Client(bundle[0], server.address) as client,
        pytest.raises(ServiceError, match="answered something else"),
    ):
        client.infer(PICTURES)


def test_an_answer_that_is_too_large_is_refused(bundle: tuple[Path, Manifest]) -> None:
    with (
        scripted(bundle[1], lambda *given: bytes(1 << 20)) as server,
        Client(bundle[0], server.address) as client,
        pytest.raises(ServiceError, match="larger than max"),
    ):
        client.infer(PICTURES)


def test_batches_are_in_flight_together_and_stay_in_order(bundle: tuple[Path, Manifest]) -> None:
    meeting = threading.Barrier(3, timeout=8)

    def meet(server: object, context: object, content: bytes) -> bytes:
        meeting.wait()
        return hang(server, context, content)

    with scripted(bundle[1], *[meet] * 3) as server, Client(bundle[0], server.address) as client:
        server.going.set()
        found = client.infer(PICTURES, batch=2)
    assert np.abs(np.stack([one.values for one in found]) - TRUTH).max() < 1e-5


def test_answers_before_an_error_are_yielded(bundle: tuple[Path, Manifest]) -> None:
    def batches() -> Iterator[np.ndarray]:
        yield from (PICTURES[:2], PICTURES[2:4])
        raise DataError("no more")

    with scripted(bundle[1]) as server, Client(bundle[0], server.address) as client:
        came = []
        with pytest.raises(DataError, match="no more"):
            came.extend(client.stream(batches()))
    assert [len(some) for some in came] == [2, 2]


def test_threads_share_a_client(bundle: tuple[Path, Manifest]) -> None:
    with scripted(bundle[1]) as server, Client(bundle[0], server.address) as client, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda at: client.infer(PICTURES[at % 7 : at % 7 + 1])[0].values, range(60), timeout=20))
    assert np.abs(np.stack(found) - TRUTH[np.arange(60) % 7]).max() < 1e-5


@contextmanager
def cutting() -> Iterator[tuple[str, list[int]]]:
    """Listen and cut every connection once something came through it."""
    cut: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2)
                    cut.append(len(connection.recv(100)))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", cut
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(3)


def test_a_connection_that_is_cut_is_one_error(bundle: tuple[Path, Manifest]) -> None:
    with cutting() as (address, cut), Client(bundle[0], address, retries=2) as client:
        with pytest.raises(ServiceError, match="asked 3 times, found UNAVAILABLE"):
            client.infer(PICTURES)
        assert cut


def test_the_check_at_the_start(bundle: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = bundle
    with scripted(manifest) as server, Client(folder, server.address) as client:
        client.check()
        for change in ({"name": "toy-00000000"}, {"type": "FP16"}, {"shape": 5}):
            told = description(manifest)
            told.name = change.get("name", told.name)
            told.inputs[0].datatype = change.get("type", "FP32")
            told.outputs[0].shape[1] = change.get("shape", 2)
            server.described = told
            with pytest.raises(ServiceError, match="does not have this export: .* it has"):
                client.check()
    other = write_bundle(tmp_path / "other", wire="uint8")
    with (
        scripted(manifest) as server,
        Client(tmp_path / "other", server.address) as client,
        pytest.raises(ServiceError, match="found NOT_FOUND: no such model; serve this very bundle"),
    ):
        client.check()
    assert other.name != manifest.name


def test_a_token_goes_with_every_request_and_nowhere_else(bundle: tuple[Path, Manifest]) -> None:
    access = Access(token="very-secret")
    with scripted(bundle[1], refuse(Code.UNAUTHENTICATED)) as server, Client(bundle[0], server.address, access=access) as client:
        with pytest.raises(ServiceError, match="give the token") as caught:
            client.infer(PICTURES)
        assert server.metadata["authorization"] == "Bearer very-secret"
    below = caught.tb.tb_next  # the frame of this test knows the token
    shown = traceback.TracebackException(ServiceError, caught.value, below, capture_locals=True)
    assert "very-secret" not in f"{''.join(shown.format())} {access!r} {client!r}"


def test_words_of_a_server_reach_no_terminal_as_they_are(bundle: tuple[Path, Manifest]) -> None:
    said = "\x1b[2J\x1b]0;mine\x07 two\nlines \u202e"
    with (
        scripted(bundle[1], refuse(Code.INTERNAL, said=said)) as server,
        Client(bundle[0], server.address) as client,
        pytest.raises(ServiceError, match="two lines") as caught,
    ):
        client.infer(PICTURES)
    assert all(line.isprintable() for line in "".join(traceback.format_exception(caught.value)).splitlines())


@pytest.mark.parametrize(
    "error",
    [
        refused("h:1", "INTERNAL", "\x1b[2J" * 9999, tries=1),
        strange("h:1", "\x1b[2J" * 9999),
        another_export("h:1", expected="\x1b[2J", found="\x1b[2J" * 9999),
    ],
    ids=["refused", "strange", "another export"],
)
def test_what_is_said_of_a_server_is_short_and_plain(error: ServiceError) -> None:
    assert str(error).isprintable()
    assert "?[2J" in str(error)
    assert len(str(error)) < 600


def test_the_advice_fits_a_request_that_is_too_large(bundle: tuple[Path, Manifest]) -> None:
    step = refuse(Code.RESOURCE_EXHAUSTED, said="Received message larger than max")
    with (
        scripted(bundle[1], step) as server,
        Client(bundle[0], server.address) as client,
        pytest.raises(ServiceError, match="larger than max; send fewer pictures in a request"),
    ):
        client.infer(PICTURES)


@pytest.mark.parametrize(
    "given",
    [{"deadline": 0}, {"deadline": -1.0}, {"deadline": float("nan")}, {"deadline": float("inf")}, {"retries": -1}],
    ids=str,
)
def test_arguments_out_of_range(bundle: tuple[Path, Manifest], given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        Client(bundle[0], "127.0.0.1:1", **given)


def test_batches_out_of_range(bundle: tuple[Path, Manifest]) -> None:
    with Client(bundle[0], "127.0.0.1:1") as client:
        for batch in (0, BATCH_MOST + 1):
            with pytest.raises(ConfigError, match=f"batch must be from 1 to 1024, got {batch}"):
                client.infer(PICTURES, batch=batch)
        with pytest.raises(DataError, match="at most 1024 pictures"):
            next(client.stream([np.zeros((BATCH_MOST + 1, *SHAPE), np.uint8)]))
        with pytest.raises(DataError, match="N from 1"):
            client.infer(PICTURES[:0])


def test_a_request_that_no_message_can_hold_is_refused_before_its_noise_is_drawn(
    bundle: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_LARGEST", (1 << 16) + 5 * 64 + 1)
    with Client(bundle[0], "127.0.0.1:1") as client:
        monkeypatch.setattr(client.edge, "features", lambda pictures: pytest.fail("noise was drawn"))
        with pytest.raises(DataError, match="at most 5 pictures in one request, got 6; make smaller batches"):
            client.infer(PICTURES[:6])


def test_an_edge_has_decided_what_is_sticky(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path, sigma=0.5)
    with scripted(manifest) as server:
        for given in ({"bundle": tmp_path, "sticky": True}, {"bundle": Edge(tmp_path, sticky=True)}, {"bundle": tmp_path}):
            with Client(server=server.address, **given) as client:
                client.infer(PICTURES[:1])
                client.infer(PICTURES[:1])
    first, again, third, fourth, fifth, sixth = server.requests
    assert first == again != third == fourth != fifth != sixth
    with pytest.raises(ConfigError, match=r"use Edge\(bundle, sticky=True\)"):
        Client(Edge(tmp_path), "127.0.0.1:1", sticky=True)


def test_no_bundle_no_client(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        Client(tmp_path, "127.0.0.1:1")
