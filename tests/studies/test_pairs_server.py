# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from example_pairs import telling_pairs
from sfumato.errors import ConfigError
from sfumato.studies.answers import open_answers, read_answers
from sfumato.studies.pairs_server import PairsServer
from sfumato.studies.sittings import Sittings

PAIRS = telling_pairs()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PairsServer]:
    with open_answers(tmp_path / "pairs.jsonl", PAIRS.facts) as book, PairsServer(PAIRS, Sittings(PAIRS, book)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request(server: PairsServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    """What the server answers: status, headers, body. The address of the page is put before a path without a slash."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    path = path if path.startswith("/") else f"/{server.token}/{path}"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    reply = connection.getresponse()
    found = reply.status, reply.headers, reply.read()
    connection.close()
    return found


def post(server: PairsServer, action: str, **values: object) -> tuple[int, dict[str, Any]]:
    """What the server answers to its own page."""
    origin = f"http://127.0.0.1:{server.server_port}"
    body = json.dumps(values).encode()
    status, _, reply = request(server, "POST", action, body, Origin=origin, Content_Type="application/json")
    return status, json.loads(reply)


def test_a_sitting_from_the_first_pair_to_the_last(server: PairsServer, tmp_path: Path) -> None:
    assert post(server, "enter", participant="anna") == (200, {"participant": "anna", "done": 0, "total": 3})
    for done in range(3):
        status, told = post(server, "show", participant="anna")
        assert (status, told["done"], len(told["pictures"])) == (200, done, 3)
        assert 59 < told["seconds"] <= 60
        for name in told["pictures"]:
            status, headers, content = request(server, "GET", f"picture/{name}")
            assert (status, headers["Content-Type"], content[:4]) == (200, "image/png", b"\x89PNG")
        assert post(server, "answer", participant="anna", key=told["key"], said="left")[0] == 200
        assert len(read_answers(tmp_path / "pairs.jsonl")[1]) == done + 1
    assert post(server, "show", participant="anna") == (200, {"participant": "anna", "done": 3, "total": 3})


def test_the_page_needs_nothing_from_elsewhere_and_names_no_row(server: PairsServer) -> None:
    status, headers, page = request(server, "GET", "")
    text = page.decode()
    assert status == 200
    assert "http" not in text
    assert "Plain" not in text
    assert "Smoothed" not in text
    rules = headers["Content-Security-Policy"]
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', text))
    assert f"script-src 'nonce-{nonce}'" in rules
    assert "default-src 'none'" in rules
    assert request(server, "GET", "")[2] != page  # another nonce each time


@pytest.mark.parametrize("path", ["", "nothing", "/", "picture/x"])
def test_nothing_is_kept_and_no_other_page_may_have_it(server: PairsServer, path: str) -> None:
    headers = request(server, "GET", path)[1]
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "/wrong/", "/wrong/picture/x", "/favicon.ico", "/%2e%2e/", "picture/", "picture/x", "show"]
)
def test_without_the_token_or_a_name_nothing_is_found(server: PairsServer, path: str) -> None:
    assert request(server, "GET", path)[0] == 404


def test_the_token_without_its_slash_is_not_found(server: PairsServer) -> None:
    assert request(server, "GET", f"/{server.token}")[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("evil.example:{port}", 403),
        ("127.0.0.1:1", 403),
        ("127.0.0.1", 403),
        ("", 403),
    ],
)
def test_only_a_browser_that_was_sent_here_is_answered(server: PairsServer, host: str, status: int) -> None:
    """A name of elsewhere that points at this machine, as in DNS rebinding, is refused."""
    assert request(server, "GET", "", Host=host.format(port=server.server_port))[0] == status


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_only_the_page_itself_may_send(server: PairsServer, origin: str | None) -> None:
    headers = {"Content_Type": "application/json"} | (
        {} if origin is None else {"Origin": origin.format(port=server.server_port)}
    )
    assert request(server, "POST", "enter", b'{"participant": "eve"}', **headers)[0] == 403
    assert post(server, "show", participant="eve")[0] == 400


@pytest.mark.parametrize(
    ("action", "values", "message"),
    [
        ("show", {"participant": "nobody"}, "a participant who came in"),
        ("show", {"participant": 3}, "expected strings from the page"),
        ("enter", {"participant": "x" * 99}, "at most 60 letters"),
        ("answer", {"participant": "anna", "key": "x", "said": "both"}, "one of left, right, skip, time, got 'both'"),
    ],
)
def test_what_the_page_never_sends_is_refused(server: PairsServer, action: str, values: dict[str, object], message: str) -> None:
    status, told = post(server, action, **values)
    assert status == 400
    assert message in told["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 4000, b"\xff", b"{}" + b" " * 5000])
def test_what_is_no_json_is_refused(server: PairsServer, body: bytes) -> None:
    origin = f"http://127.0.0.1:{server.server_port}"
    assert request(server, "POST", "enter", body, Origin=origin, Content_Type="application/json")[0] == 400


def test_other_kinds_of_content_and_actions_are_refused(server: PairsServer) -> None:
    origin = f"http://127.0.0.1:{server.server_port}"
    assert request(server, "POST", "enter", b"{}", Origin=origin, Content_Type="text/plain")[0] == 400
    assert post(server, "erase")[0] == 404
    assert request(server, "DELETE", "")[0] == 501


def test_a_port_that_is_taken_and_a_host_that_is_not_here_are_said(server: PairsServer) -> None:
    for host, port in (("127.0.0.1", server.server_port), ("192.0.2.1", 0)):
        with pytest.raises(ConfigError, match=f"cannot listen at {host}, port {port}: .*; give --host an address"):
            PairsServer(PAIRS, server.sittings, host=host, port=port)


def test_a_name_with_markup_is_text(server: PairsServer, tmp_path: Path) -> None:
    with PairsServer(PAIRS, server.sittings, participant="</script><b>eve</b>") as other:
        assert "<b>eve" not in other.page()[0]
