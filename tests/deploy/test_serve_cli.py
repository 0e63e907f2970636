# SPDX-License-Identifier: Apache-2.0
"""`sfumato serve`: its options reach the server, what contradicts is said by the option's name, and PyTorch stays out."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from toy_bundles import write_bundle
from tritonclient.grpc import service_pb2 as messages
from typer.testing import CliRunner

from sfumato.cli import app
from sfumato.deploy import server
from sfumato.deploy.bundle import open_bundle
from sfumato.deploy.serving.admission import Allowance, Door
from sfumato.deploy.serving.service_log import ServiceLog
from sfumato.deploy.serving.settings import Settings, credentials
from sfumato.deploy.serving.waiting import Limits
from sfumato.errors import BundleError, ConfigError, StorageError
from sfumato.serve_cli import seconds


def run(*words: str) -> None:
    CliRunner().invoke(app, ["serve", *words], catch_exceptions=False)


@pytest.fixture
def asked(monkeypatch) -> list[tuple[list[Path], Settings]]:
    found: list[tuple[list[Path], Settings]] = []
    monkeypatch.setattr(server, "serve", lambda folders, settings, say: found.append((list(folders), settings)))
    return found


def test_options_reach_the_server(asked) -> None:
    words = (
        "a b --port 0 --batch 8 --window 500us --queue 9 --queue-bytes 1KiB --message 2MB --timeout 3s --grace 1min --threads 2"
    )
    run(*words.split(), "--budget", "7/minute", "--metrics-port", "0", "--log", "l", "--tls-cert", "c", "--tls-key", "k")
    ((folders, found),) = asked
    assert folders == [Path("a"), Path("b")]
    assert found == Settings(
        port=0,
        limits=Limits(size=8, window=5e-4, pictures=9, bytes=1024),
        message=2_000_000,
        timeout=3.0,
        grace=60.0,
        threads=2,
        tls_cert=Path("c"),
        tls_key=Path("k"),
        budget=Allowance(7, 60.0),
        metrics_port=0,
        log=Path("l"),
    )


def test_what_is_not_said_is_safe(asked) -> None:
    run("a")
    assert asked[0][1] == Settings()
    assert Settings().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--host 0.0.0.0", "--host 0.0.0.0 is not the loopback.*found no TLS and no tokens.*--insecure"),
        ("--host 0.0.0.0 --tokens t", "found no TLS;"),
        ("--host 0.0.0.0 --tls-cert c --tls-key k", "found no tokens;"),
        ("--budget 5/week", "for a second or minute or hour or day"),
        ("--host ::", "--host :: is not the loopback"),
        ("--host example.org", "--host example.org is not the loopback"),
        ("--tls-cert c", "found only --tls-cert"),
        ("--tls-key k", "found only --tls-key"),
        ("--client-ca a", "--client-ca needs TLS"),
        ("--budget 5", "--budget must be"),
        ("--window 2", "--window must be a length of time"),
        ("--timeout 0s", "--timeout must be more"),
        ("--timeout -1s", "--timeout must be"),
        ("--grace soon", "--grace must be"),
        ("--queue-bytes 0", "--queue-bytes must be"),
        ("--message x", "--message must be"),
    ],
)
def test_what_contradicts_is_said(asked, words: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run("a", *words.split())
    assert not asked


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_the_loopback_needs_nothing(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize(
    "words",
    [
        {"insecure": True},
        {"tls_cert": Path("c"), "tls_key": Path("k"), "tokens": Path("t")},
        {"tls_cert": Path("c"), "tls_key": Path("k"), "client_ca": Path("a")},
    ],
)
def test_beyond_it_either_what_protects_or_the_word(words) -> None:
    assert Settings(host="0.0.0.0", **words)


def test_files_that_are_no_certificates_are_said(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    (tmp_path / "x").write_text("nothing")
    (tmp_path / "x").chmod(0o600)
    for path in (tmp_path / "x", tmp_path / "missing"):
        with pytest.raises(ConfigError, match="--tls-cert .* --tls-key .*expected PEM files"):
            server.serve([tmp_path / "b"], Settings(port=0, tls_cert=path, tls_key=path))


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    path.write_text("nothing")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"--tls-key .*: expected a file that its owner alone can read, found mode {mode:o}"):
        credentials(Settings(tls_cert=path, tls_key=path))


@pytest.mark.parametrize(
    ("settings", "pictures", "bytes_"),
    [
        (Settings(), 64, 4096 + 64 * 100),
        (Settings(limits=Limits(size=200)), 200, 4096 + 200 * 100),
        (Settings(message=1000), 10, 1000),
        (Settings(message=10), 1, 10),
    ],
)
def test_a_request_is_bounded_in_pictures_and_in_bytes(settings: Settings, pictures: int, bytes_: int) -> None:
    assert (settings.pictures_most(100), settings.message_most(100)) == (pictures, bytes_)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: expected .* that is free.*: Address already in use; choose"):
            server.serve([tmp_path / "b"], Settings(port=port, log=tmp_path / "log"))
        with pytest.raises(ConfigError, match=f"--metrics-port {port}: expected.*: Address already in use; choose"):
            server.serve([tmp_path / "b"], Settings(port=0, metrics_port=port, log=tmp_path / "log"))
    assert (tmp_path / "log").read_text() == ""  # nothing began, so nothing stopped


def test_a_command_that_cannot_listen_says_it_in_one_line(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "sfumato", "serve", str(tmp_path / "b"), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Address already in use" in done.stderr


@pytest.mark.parametrize("host", ["a..b", "no.such.host.invalid"])
def test_a_host_that_is_none_is_said(host: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    with pytest.raises(
        ConfigError, match=f"--host {re.escape(host)} --port 1: expected an address of this machine .*: .+; choose"
    ):
        server.serve([tmp_path / "b"], Settings(host=host, port=1, insecure=True, log=tmp_path / "log"))


def test_bundles_that_cannot_be_served_are_said(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="different models"):
        server.serve([tmp_path / "b", tmp_path / "b"], Settings())
    with pytest.raises(BundleError, match="expected a bundle"):
        server.serve([tmp_path / "nothing"], Settings())
    content = bytearray((tmp_path / "b" / "tail.onnx").read_bytes())
    content[60] ^= 1
    (tmp_path / "b" / "tail.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        server.serve([tmp_path / "b"], Settings())


def test_a_message_that_no_picture_fits_into_is_said(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    with pytest.raises(ConfigError, match="--message must be at least the 64 bytes"):
        server.serve([tmp_path / "b"], Settings(port=0, message=63, log=tmp_path / "log"))


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    with pytest.raises(StorageError, match="--log"):
        server.serve([tmp_path / "b"], Settings(log=tmp_path))


@pytest.mark.parametrize(("text", "expected"), [("2ms", 2e-3), ("0s", 0), ("1.5 s", 1.5), ("1min", 60), ("250us", 2.5e-4)])
def test_lengths_of_time(text: str, expected: float) -> None:
    assert seconds(text, "--window") == pytest.approx(expected)


def test_serving_does_not_import_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import sfumato.cli, sfumato.deploy.server, sfumato.deploy.serving.service\n"
        "print(*[name for name in ('pydantic', 'tritonclient.utils', 'mlserver', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not re.search("pydantic|mlserver|onnx", done.stdout)


@pytest.mark.parametrize(
    ("host", "address"), [("::1", "[::1]:7"), ("[::1]", "[::1]:7"), ("127.0.0.1", "127.0.0.1:7"), ("localhost", "localhost:7")]
)
def test_an_address_has_its_brackets_once(host: str, address: str) -> None:
    assert Settings(host=host).address(7) == address


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "no TLS, no tokens, no budget"),
        ({"tls_cert": Path("c"), "tls_key": Path("k"), "tokens": Path("t")}, "TLS, tokens, no budget"),
        ({"tls_cert": Path("c"), "tls_key": Path("k"), "client_ca": Path("a")}, "mutual TLS, no tokens, no budget"),
        ({"budget": Allowance(7, 60.0)}, "no TLS, no tokens, 7 pictures in 60 s a client"),
    ],
)
def test_what_protects_is_said_as_it_is(words, said: str) -> None:
    assert Settings(**words).protection == said


def test_a_log_is_added_to(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    (tmp_path / "log").write_text("before\n")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="free"):
        server.serve([tmp_path / "b"], Settings(port=taken.getsockname()[1], log=tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "before\n"


def test_the_largest_model_bounds_a_message(tmp_path: Path) -> None:
    write_bundle(tmp_path / "large")
    write_bundle(tmp_path / "small", wire="uint8")
    bundles = [open_bundle(tmp_path / name, "tail") for name in ("small", "large")]

    async def make() -> None:
        server.Server(bundles, Settings(message=63), log)

    log = ServiceLog(io.StringIO())
    with pytest.raises(ConfigError, match="--message must be at least the 64 bytes"):
        asyncio.run(make())
    assert log.close()


def test_a_port_that_was_just_given_back_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        address = before.getsockname()
        with socket.create_connection(address) as client:
            before.accept()[0].close()  # who closes first keeps the port for a minute
            assert client.recv(1) == b""
    assert server._why_not(*address) == "whoever was there has just left it"


def test_a_server_that_stopped_leaves_no_port_and_no_thread(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    before = set(threading.enumerate())

    async def once() -> tuple[int, int | None]:
        one = server.Server([open_bundle(tmp_path, "tail")], Settings(port=0, metrics_port=0), log)
        await one.start()
        ports = one.port, one.metrics_port
        await one.stop()
        return ports

    log = ServiceLog(io.StringIO())
    for port in asyncio.run(once()):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
    assert log.close()
    assert "tail" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_a_server_that_stops_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that began before the stop is answered within the grace, with what is true then."""
    write_bundle(tmp_path)

    async def once() -> bytes:
        heard, stopping = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(Door, "client_of", lambda door, context: heard.set() or "somebody")
        one = server.Server([open_bundle(tmp_path, "tail")], Settings(port=0), log)
        await one.start()

        async def late() -> AsyncIterator[bytes]:
            await stopping.wait()
            yield b""

        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}") as channel:
            asked = channel.stream_unary("/inference.GRPCInferenceService/ServerReady")(late(), timeout=20)
            await asyncio.wait_for(heard.wait(), 20)
            stop = asyncio.create_task(one.stop())
            await asyncio.sleep(0)  # it takes its first step
            stopping.set()
            answer: bytes = await asked
            await stop
        return answer

    log = ServiceLog(io.StringIO())
    assert not messages.ServerReadyResponse.FromString(asyncio.run(once())).ready
    assert log.close()


def test_a_thread_that_does_not_end_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_bundle(tmp_path)
    end = server.Batcher.close
    monkeypatch.setattr(server.Batcher, "close", lambda batcher: end(batcher) and False)

    async def once() -> None:
        one = server.Server([open_bundle(tmp_path, "tail")], Settings(port=0), log)
        await one.start()
        await one.stop()

    file = io.StringIO()
    log = ServiceLog(file)
    asyncio.run(once())
    assert log.close()
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(line["event"], line.get("model")) for line in lines[1:]] == [
        ("stopping", None),
        ("thread_left", manifest.name),
        ("stopped", None),
    ]
