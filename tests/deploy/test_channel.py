# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from scripted_server import scripted
from toy_bundles import SHAPE, write_bundle

from sfumato.deploy.asking.channel import Access, channel_maker, is_loopback
from sfumato.deploy.client import Client
from sfumato.errors import ConfigError, ServiceError

PICTURES = np.zeros((1, *SHAPE), np.uint8)


@dataclass(frozen=True)
class Papers:
    """Certificates of a server on loopback and of a device, and of a stranger."""

    folder: Path
    server: grpc.ServerCredentials
    elsewhere: grpc.ServerCredentials
    expired: grpc.ServerCredentials
    mutual: grpc.ServerCredentials

    def path(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    for name in ("own", "foreign"):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / f"{name}-ca.pem")
        for host in ("127.0.0.1", "device"):
            made = authority.issue_cert(host)
            made.private_key_pem.write_to_path(folder / f"{name}-{host}-key.pem")
            made.cert_chain_pems[0].write_to_path(folder / f"{name}-{host}.pem")
        if name == "own":
            past = authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))
            expired = [(past.private_key_pem.bytes(), past.cert_chain_pems[0].bytes())]
    elsewhere = [tuple((folder / f"own-device{end}").read_bytes() for end in ("-key.pem", ".pem"))]
    pair = [tuple((folder / f"own-127.0.0.1{end}").read_bytes() for end in ("-key.pem", ".pem"))]
    ca = (folder / "own-ca.pem").read_bytes()
    return Papers(
        folder,
        grpc.ssl_server_credentials(pair),
        grpc.ssl_server_credentials(elsewhere),
        grpc.ssl_server_credentials(expired),
        grpc.ssl_server_credentials(pair, root_certificates=ca, require_client_auth=True),
    )


def test_tls_with_a_token(tmp_path: Path, papers: Papers) -> None:
    access = Access(token="secret", ca=papers.path("own-ca.pem"))
    with (
        scripted(write_bundle(tmp_path), credentials=papers.server) as server,
        Client(tmp_path, server.address, access=access) as client,
    ):
        client.check()
        assert len(client.infer(PICTURES)) == 1
        assert server.metadata["authorization"] == "Bearer secret"


@pytest.mark.parametrize("ca", ["foreign-ca.pem", None])
def test_a_foreign_server_or_a_plain_client_gets_nothing_across(tmp_path: Path, papers: Papers, ca: str | None) -> None:
    access = Access(token="secret", ca=papers.path(ca) if ca else None)  # without: plain text to a port that speaks TLS
    with (
        scripted(write_bundle(tmp_path), credentials=papers.server) as server,
        Client(tmp_path, server.address, access=access, retries=1) as client,
    ):
        with pytest.raises(ServiceError, match="UNAVAILABLE.*both sides speak TLS"):
            client.infer(PICTURES)
        assert not server.requests


@pytest.mark.parametrize("which", ["elsewhere", "expired"])
def test_a_certificate_of_another_host_or_time_is_refused(tmp_path: Path, papers: Papers, which: str) -> None:
    access = Access(token="secret", ca=papers.path("own-ca.pem"))
    with (
        scripted(write_bundle(tmp_path), credentials=getattr(papers, which)) as server,
        Client(tmp_path, server.address, access=access, deadline=30) as client,
    ):
        with pytest.raises(ServiceError, match="asked once, found UNAVAILABLE"):
            client.infer(PICTURES)
        assert not server.requests


def test_tls_to_a_server_of_plain_text_gets_nothing_across(tmp_path: Path, papers: Papers) -> None:
    access = Access(ca=papers.path("own-ca.pem"))
    with (
        scripted(write_bundle(tmp_path)) as server,
        Client(tmp_path, server.address, access=access, deadline=30) as client,
    ):
        with pytest.raises(ServiceError, match="asked once, found UNAVAILABLE"):
            client.infer(PICTURES)
        assert not server.requests


@pytest.mark.parametrize(("who", "admitted"), [("own-device", True), ("foreign-device", False), (None, False)])
def test_mutual_tls(tmp_path: Path, papers: Papers, who: str | None, admitted: bool) -> None:
    own = {"certificate": papers.path(f"{who}.pem"), "key": papers.path(f"{who}-key.pem")} if who else {}
    access = Access(ca=papers.path("own-ca.pem"), **own)
    with (
        scripted(write_bundle(tmp_path), credentials=papers.mutual) as server,
        Client(tmp_path, server.address, access=access, retries=0) as client,
    ):
        if admitted:
            assert len(client.infer(PICTURES)) == 1
            return
        with pytest.raises(ServiceError, match="UNAVAILABLE"):
            client.infer(PICTURES)
        assert not server.requests


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, int]]]:
    """Note which channels are made instead of making them."""
    found: list[tuple[str, str, dict[str, int]]] = []
    monkeypatch.setattr(grpc, "insecure_channel", lambda target, options: found.append(("plain", target, dict(options))))
    monkeypatch.setattr(grpc, "secure_channel", lambda target, keys, options: found.append(("TLS", target, dict(options))))
    return found


@pytest.mark.parametrize(
    ("server", "insecure", "kind"),
    [
        ("127.0.0.1:1", False, "plain"),
        ("127.9.9.9:1", False, "plain"),
        ("localhost:65535", False, "plain"),
        ("[::1]:8001", False, "plain"),
        ("10.0.0.1:8001", False, "TLS"),
        ("tail.example.org:8001", False, "TLS"),
        ("localhost.example.org:8001", False, "TLS"),
        ("[2001:db8::1]:8001", False, "TLS"),
        ("0.0.0.0:8001", False, "TLS"),
        ("10.0.0.1:8001", True, "plain"),
    ],
)
def test_nothing_leaves_the_device_in_plain_text_unasked(made: list, server: str, insecure: bool, kind: str) -> None:
    channel_maker(server, Access(insecure=insecure), largest=77)()
    ((found, target, options),) = made
    assert (found, target) == (kind, f"dns:///{server}")
    assert options["grpc.max_receive_message_length"] == 77
    assert options["grpc.initial_reconnect_backoff_ms"] <= options["grpc.max_reconnect_backoff_ms"] <= 1000
    assert options["grpc.min_reconnect_backoff_ms"] >= 1000  # the time for one attempt: a slow line needs it
    assert (options["grpc.enable_retries"], options["grpc.service_config_disable_resolution"]) == (0, 1)
    # a proxy would take plain text out of the device
    assert ("grpc.enable_http_proxy" in options) == (kind == "plain" and not insecure)


def test_certificates_make_it_tls_on_loopback_too(made: list, papers: Papers) -> None:
    channel_maker("127.0.0.1:1", Access(ca=papers.path("own-ca.pem")), largest=1)()
    assert made[0][0] == "TLS"


def test_a_token_does_not_go_out_in_plain_text(made: list) -> None:
    with pytest.raises(ConfigError, match="token must not go to 10.0.0.1:1 in plain text"):
        channel_maker("10.0.0.1:1", Access(token="secret", insecure=True), largest=1)()
    assert not made
    channel_maker("10.0.0.1:1", Access(token="secret"), largest=1)()
    assert made[0][0] == "TLS"


@pytest.mark.parametrize(
    "server",
    ["", "host", "host:", ":8001", "host:0", "host:65536", "host:99999", "host:8001 ", "http://host:1", "unix:/tmp/a", "::1:8001"]
    + ["a/b:1", "user@host:1", "host:1\n", "host:٣"],
)
def test_servers_that_are_none(server: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        channel_maker(server, Access(), largest=1)()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "tab\t", "é", "\x00", "x" * 513])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(ConfigError, match="1 to 512 printable ASCII") as caught:
        Access(token=token)
    assert not token or token not in str(caught.value)


def test_what_does_not_go_together(papers: Papers, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give both or neither"):
        Access(certificate="a.pem")
    with pytest.raises(ConfigError, match="give both or neither"):
        Access(key="a.pem")
    with pytest.raises(ConfigError, match="give one or the other"):
        channel_maker("10.0.0.1:1", Access(ca=papers.path("own-ca.pem"), insecure=True), largest=1)()
    with pytest.raises(ConfigError, match=r"expected a PEM file at .*nowhere.pem: No such file"):
        channel_maker("10.0.0.1:1", Access(ca=tmp_path / "nowhere.pem"), largest=1)()
    (tmp_path / "der").write_bytes(b"0\x82")
    with pytest.raises(ConfigError, match="found something else"):
        channel_maker("10.0.0.1:1", Access(ca=tmp_path / "der"), largest=1)()
    (tmp_path / "endless").write_bytes(bytes(1 << 20) + b"-----BEGIN")
    with pytest.raises(ConfigError, match="found something else"):
        channel_maker("10.0.0.1:1", Access(ca=tmp_path / "endless"), largest=1)()


@pytest.mark.parametrize("host", ["", "example.org", "128.0.0.1", "::", "fe80::1", "LOCALHOST.", "127.0.0.1.nip.io", "0x7f.1"])
def test_what_is_not_this_machine(host: str) -> None:
    assert not is_loopback(host)
