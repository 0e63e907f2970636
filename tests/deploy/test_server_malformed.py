# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent, the server answers with an error that fits, stays as large as it was, and answers the next good request."""

from __future__ import annotations

import itertools
import random
import socket
import struct
import time
from collections.abc import Callable

import grpc
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from running_server import INFER, PATIENCE, ask, good_request, infer, refusal, serving
from toy_bundles import write_bundle
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy.manifest import Manifest

Request = messages.ModelInferRequest
REFUSED = ["INVALID_ARGUMENT", "NOT_FOUND"]
CLAIM = 100 << 20  # bytes
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("malformed")
    manifest = write_bundle(folder / "b")
    with serving(folder, [folder / "b"], "--timeout", "1s") as server:
        yield server, manifest


@pytest.fixture(scope="module")
def channel(house):
    with grpc.insecure_channel(f"127.0.0.1:{house[0].port}") as made:
        yield made


def outcome(channel: grpc.Channel, method: str, content: bytes) -> str:
    try:
        ask(channel, method, content)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


@pytest.fixture(autouse=True)
def _still_answers(house, channel):
    yield
    infer(channel, house[1])


def shaped(*shape: int, content: bytes = b"\0" * 64) -> Callable[[Request], None]:
    def change(request: Request) -> None:
        request.inputs[0].shape[:] = shape
        request.raw_input_contents[0] = content

    return change


def changed(**fields: str) -> Callable[[Request], None]:
    def change(request: Request) -> None:
        for name, value in fields.items():
            setattr(request.inputs[0], name, value)

    return change


def filled(value: float) -> Callable[[Request], None]:
    def change(request: Request) -> None:
        request.raw_input_contents[0] = np.array([0.0] * 15 + [value], np.float32).tobytes()

    return change


def raw(*contents: bytes) -> Callable[[Request], None]:
    def change(request: Request) -> None:
        request.raw_input_contents[:] = contents

    return change


def typed_alone(request: Request) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.0] * 16)
    del request.raw_input_contents[:]


def two_inputs(request: Request) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


BAD: dict[str, tuple[Callable[[Request], object], str]] = {
    "name": (changed(name="y"), "INVALID_ARGUMENT"),
    "type": (changed(datatype="FP64"), "INVALID_ARGUMENT"),
    "another type": (changed(datatype="UINT8"), "INVALID_ARGUMENT"),
    "long name": (changed(name="z" * 3000), "INVALID_ARGUMENT"),
    "no shape": (shaped(), "INVALID_ARGUMENT"),
    "no picture": (shaped(0, 1, 4, 4, content=b""), "INVALID_ARGUMENT"),
    "shape of another model": (shaped(1, 1, 2, 8), "INVALID_ARGUMENT"),
    "more dimensions": (shaped(1, 1, 1, 4, 4), "INVALID_ARGUMENT"),
    "many dimensions": (shaped(*[1] * 700), "INVALID_ARGUMENT"),
    "negative": (shaped(-1, 1, 4, 4), "INVALID_ARGUMENT"),
    "two negatives": (shaped(-1, 1, -4, 4), "INVALID_ARGUMENT"),
    "huge": (shaped(2**63 - 1, 1, 4, 4), "INVALID_ARGUMENT"),
    "an overflowing product": (shaped(2**60, 1, 4, 4), "INVALID_ARGUMENT"),
    "100 MB in 10 bytes": (shaped(CLAIM // 64, 1, 4, 4, content=b"0123456789"), "INVALID_ARGUMENT"),
    "a byte less": (shaped(1, 1, 4, 4, content=b"\0" * 63), "INVALID_ARGUMENT"),
    "a byte more": (shaped(1, 1, 4, 4, content=b"\0" * 65), "INVALID_ARGUMENT"),
    "NaN": (filled(np.nan), "INVALID_ARGUMENT"),
    "infinity": (filled(np.inf), "INVALID_ARGUMENT"),
    "minus infinity": (filled(-np.inf), "INVALID_ARGUMENT"),
    "no contents": (raw(), "INVALID_ARGUMENT"),
    "two contents": (raw(b"\0" * 32, b"\0" * 32), "INVALID_ARGUMENT"),
    "typed contents": (typed_alone, "INVALID_ARGUMENT"),
    "no input": (lambda request: request.ClearField("inputs"), "INVALID_ARGUMENT"),
    "two inputs": (two_inputs, "INVALID_ARGUMENT"),
    "another output": (lambda request: request.outputs.add(name="z"), "INVALID_ARGUMENT"),
    "model": (lambda request: setattr(request, "model_name", "toy"), "NOT_FOUND"),
    "no model": (lambda request: setattr(request, "model_name", ""), "NOT_FOUND"),
    "version": (lambda request: setattr(request, "model_version", "2"), "NOT_FOUND"),
    "one picture too many": (shaped(65, 1, 4, 4, content=b"\0" * 65 * 64), "INVALID_ARGUMENT"),
    "size": (shaped(1000, 1, 4, 4, content=b"\0" * 64_000), "RESOURCE_EXHAUSTED"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_request_is_refused(house, channel, what: str) -> None:
    manifest: Manifest = house[1]
    change, status = BAD[what]
    request, _ = good_request(manifest)
    change(request)
    error = refusal(channel, INFER, request.SerializeToString())
    assert error.code().name == status
    assert what == "version" or manifest.name not in error.details()  # there it is what the client said itself
    assert len(error.details()) < 400


def test_as_many_pictures_as_may_be_are_answered(house, channel) -> None:
    infer(channel, house[1], 64)


def test_raw_and_typed_contents_together_are_one_too_many(house, channel) -> None:
    request, _ = good_request(house[1])
    request.inputs[0].contents.fp32_contents.extend([0.0] * 16)
    error = refusal(channel, INFER, request.SerializeToString())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"])
@pytest.mark.parametrize("content", [b"\xff" * 9, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 200, b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_refused(channel, method: str, content: bytes) -> None:
    # Messages without fields may be anything: what is unknown in them is skipped.
    assert outcome(channel, method, content) in (["OK", *REFUSED] if method.startswith("Server") else REFUSED)


@pytest.mark.parametrize(
    "method", ["ModelConfig", "ModelStreamInfer", "RepositoryModelLoad", "/a.b/C", "/x", "/grpc.health.v1.Health/Check"]
)
def test_other_calls_are_not_implemented(channel, method: str) -> None:
    assert refusal(channel, method, b"").code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_compressed_message_is_refused_whatever_it_unpacks_to(house) -> None:
    before = psutil.Process(house[0].process.pid).memory_info().rss
    with grpc.insecure_channel(f"127.0.0.1:{house[0].port}", compression=grpc.Compression.Gzip) as channel:
        assert refusal(channel, INFER, b"\0" * (3 << 20)).code() == grpc.StatusCode.UNIMPLEMENTED
    assert psutil.Process(house[0].process.pid).memory_info().rss - before < 8 << 20


def test_too_much_metadata_is_refused(channel) -> None:
    many = tuple((f"k{at}", "v" * 1000) for at in range(40))
    assert refusal(channel, "ServerLive", b"", metadata=many).code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stream_without_a_message_is_refused_and_one_that_never_ends_has_its_time(house, channel) -> None:
    def nothing():
        yield from ()

    def never():
        time.sleep(3.0)
        yield from ()

    call = channel.stream_unary(INFER)
    with pytest.raises(grpc.RpcError) as none:
        call(nothing(), timeout=PATIENCE)
    assert none.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as late:
        call(never(), timeout=PATIENCE)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 2.5


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = frame(
    1,
    4,
    1,
    b"".join(
        itertools.starmap(
            literal,
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", INFER.encode()),
                (b":authority", b"localhost"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            ],
        )
    ),
)
START = PREFACE + frame(4, 0, 0, b"") + HEADERS
STREAMS = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 200,
    "a preface": PREFACE,
    "half a header": START[:-20],
    "no data": START,
    "half a length": START + frame(0, 0, 1, b"\0\0\0"),
    "100 MB claimed, 10 bytes sent": START + frame(0, 0, 1, b"\0" + struct.pack(">I", CLAIM) + b"0123456789"),
    "half a message": START + frame(0, 0, 1, b"\0" + struct.pack(">I", 1000) + b"0123456789"),
    "half a message and the end": START + frame(0, 1, 1, b"\0" + struct.pack(">I", 1000) + b"0123456789"),
    "half a frame": START + frame(0, 0, 1, b"\0" * 50)[:-30],
    "an unknown frame": START + frame(200, 255, 1, b"\7" * 50),
    "a frame of 16 MB": START + b"\xff\xff\xff" + bytes([0, 0]) + struct.pack(">I", 1) + b"\0" * 100,
    "bad compressed headers": PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, b"\xff" * 100),
    "a window of nothing": START + frame(8, 0, 0, b"\0\0\0\0"),
    "a reset": START + frame(3, 0, 1, b"\0\0\0\1"),
}


@pytest.mark.parametrize("how", ["close", "stay"])
@pytest.mark.parametrize("what", STREAMS)
def test_a_truncated_stream_harms_nobody(house, channel, what: str, how: str) -> None:
    with socket.create_connection(("127.0.0.1", house[0].port), timeout=PATIENCE) as raw_socket:
        raw_socket.sendall(STREAMS[what])
        if how == "stay":
            infer(channel, house[1])


def test_many_half_open_connections_harm_nobody(house, channel) -> None:
    server, manifest = house
    process = psutil.Process(server.process.pid)
    before = process.num_fds()
    opened = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(100)]
    for one in opened:
        one.sendall(STREAMS["100 MB claimed, 10 bytes sent"])
    infer(channel, manifest)
    for one in opened:
        one.close()
    end = time.monotonic() + PATIENCE
    while process.num_fds() > before + 5 and time.monotonic() < end:
        time.sleep(0.05)
    assert process.num_fds() <= before + 5


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(
    method=some.sampled_from(["ModelInfer", "ModelMetadata", "ModelReady", "ServerLive"]),
    content=some.binary(max_size=300),
)
@example("ModelInfer", b"")
def test_random_bytes_are_answered_with_a_status(house, channel, method: str, content: bytes) -> None:
    assert outcome(channel, method, content) in ("OK", *REFUSED)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(data=some.data())
def test_a_good_request_with_bytes_changed_is_answered_or_refused(house, channel, data) -> None:
    content = bytearray(good_request(house[1])[0].SerializeToString())
    for _ in range(data.draw(some.integers(1, 4))):
        content[data.draw(some.integers(0, len(content) - 1))] = data.draw(some.integers(0, 255))
    cut = data.draw(some.integers(0, len(content)))
    assert outcome(channel, INFER, bytes(content[:cut] if data.draw(some.booleans()) else content)) in ("OK", *REFUSED)


def test_bad_requests_leave_nothing_behind(house, channel) -> None:
    server, manifest = house
    process = psutil.Process(server.process.pid)
    chance = random.Random(0)
    changes = [change for change, status in BAD.values() if status != "RESOURCE_EXHAUSTED"]  # which gRPC takes its time for

    def bad(times: int) -> int:
        for _ in range(times):
            request, _ = good_request(manifest)
            chance.choice(changes)(request)
            refusal(channel, INFER, request.SerializeToString())
        return process.memory_info().rss

    start = bad(200)
    assert bad(2000) - start < 4 << 20
