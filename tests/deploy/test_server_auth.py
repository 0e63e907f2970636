# SPDX-License-Identifier: Apache-2.0
"""Who has no right to ask is refused before anything of a model is said; who has one is known by a name, and has a budget."""

from __future__ import annotations

import datetime
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization as forms
from running_server import INFER, Served, ask, good_request, infer, refusal, serving
from toy_bundles import write_bundle
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy.manifest import Manifest
from sfumato.deploy.serving.settings import Settings, credentials
from sfumato.errors import ConfigError

GATE, YARD, NEW = "gate" * 8, "yard" * 9, "new-" * 8
BEARER = (("authorization", f"Bearer {GATE}"),)
CALLS = {
    "ServerLive": b"",
    "ServerReady": b"",
    "ServerMetadata": b"",
    "ModelReady": b"name",
    "ModelMetadata": b"name",
    "ModelInfer": b"infer",
    "RepositoryIndex": b"",
    "/any.Service/Call": b"",
}
WRONG_TOKENS = {
    "none": (),
    "another": (("authorization", f"Bearer {'x' * 32}"),),
    "shorter": (("authorization", f"Bearer {GATE[:-1]}"),),
    "empty": (("authorization", "Bearer "),),
    "no scheme": (("authorization", GATE),),
    "another scheme": (("authorization", f"Basic {GATE}"),),
    "a name for a token": (("authorization", "Bearer gate"),),
    "in another place": (("x-token", GATE),),
    "two": (*BEARER, ("authorization", f"Bearer {YARD}")),
}


@dataclass(frozen=True)
class Keys:
    """Files of certificates, and what clients show."""

    folder: Path
    ca: trustme.CA

    @classmethod
    def make(cls, folder: Path) -> Keys:
        keys = cls(folder, trustme.CA())
        keys.ca.cert_pem.write_to_path(folder / "ca.pem")
        server = keys.ca.issue_cert("127.0.0.1", "localhost")
        server.private_key_pem.write_to_path(folder / "key.pem")
        (folder / "key.pem").chmod(0o600)
        (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        return keys

    @property
    def tls(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.folder / "cert.pem"), "--tls-key", str(self.folder / "key.pem"))

    @property
    def mutual(self) -> tuple[str, ...]:
        return (*self.tls, "--client-ca", str(self.folder / "ca.pem"))

    def shown(self, leaf: trustme.LeafCert | None = None, trusted: trustme.CA | None = None) -> grpc.ChannelCredentials:
        root = (trusted or self.ca).cert_pem.bytes()
        if leaf is None:
            return grpc.ssl_channel_credentials(root)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return grpc.ssl_channel_credentials(root, leaf.private_key_pem.bytes(), chain)


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return folder, write_bundle(folder, run="secretname")


def tokens(folder: Path, text: str = f"gate {GATE}\nyard {YARD}\n") -> Path:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def locked(keys: Keys, bundle, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("locked")
    with serving(folder, [bundle[0]], *keys.tls, "--tokens", str(tokens(folder))) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(keys: Keys, bundle, tmp_path_factory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("mutual"), [bundle[0]], *keys.mutual) as server:
        yield server


@contextmanager
def connected(server: Served, credentials: grpc.ChannelCredentials | None) -> Iterator[grpc.Channel]:
    address = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials) as channel:
        yield channel


def content_of(call: str, manifest: Manifest) -> bytes:
    kinds = {"ModelReady": messages.ModelReadyRequest, "ModelMetadata": messages.ModelMetadataRequest}
    if call in kinds:
        return bytes(kinds[call](name=manifest.name).SerializeToString())
    return good_request(manifest)[0].SerializeToString() if call == "ModelInfer" else b""


def tells_nothing(error: grpc.RpcError, manifest: Manifest) -> bool:
    said = f"{error.details()} {error.trailing_metadata()}"
    return not any(word in said for word in (manifest.name, manifest.run, "answer", "(1, 4, 4)", "upper", "onnx"))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", WRONG_TOKENS)
def test_without_a_right_token_no_call_is_answered(locked, keys, bundle, what: str, call: str) -> None:
    with connected(locked, keys.shown()) as channel:
        error = refusal(channel, call, content_of(call, bundle[1]), metadata=WRONG_TOKENS[what])
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert tells_nothing(error, bundle[1])
    assert locked.records("UNAUTHENTICATED")[-1]["client"] == "127.0.0.1"


def test_who_is_not_known_is_refused_unheard(locked, keys) -> None:
    """A message of any size, or none, gets the same answer: nothing is read."""

    def never() -> Iterator[bytes]:
        time.sleep(0.5)
        yield b""

    with connected(locked, keys.shown()) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.stream_unary(INFER)(never(), timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        errors = [refusal(channel, INFER, content) for content in (b"", b"\xff" * 50)]
    assert {(error.code(), error.details()) for error in errors} == {(refused.value.code(), refused.value.details())}


def test_a_right_token_is_answered_and_known_by_its_name(locked, keys, bundle) -> None:
    with connected(locked, keys.shown()) as channel:
        infer(channel, bundle[1], metadata=BEARER)
        for call in ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata"):
            assert ask(channel, call, content_of(call, bundle[1]), metadata=BEARER)
    assert len(locked.records('"client": "gate"', 6)) == 6
    text = locked.log.read_text()
    assert GATE not in text
    assert YARD not in text


def expired(keys: Keys) -> trustme.LeafCert:
    return keys.ca.issue_cert("127.0.0.1", not_after=datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1))


FOREIGNERS = {
    "none": lambda keys: keys.shown(),
    "expired": lambda keys: keys.shown(expired(keys)),
    "of a foreign authority": lambda keys: keys.shown(trustme.CA().issue_cert("127.0.0.1")),
    "plaintext": lambda keys: None,
}


@pytest.mark.parametrize("who", FOREIGNERS)
def test_without_a_right_certificate_nobody_gets_through(mutual, keys, bundle, who: str) -> None:
    with connected(mutual, FOREIGNERS[who](keys)) as channel:
        error = refusal(channel, "ModelMetadata", content_of("ModelMetadata", bundle[1]))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert tells_nothing(error, bundle[1])


def test_a_certificate_has_a_name(mutual, keys, bundle) -> None:
    with connected(mutual, keys.shown(keys.ca.issue_cert("yard.example", common_name="yard-camera"))) as channel:
        infer(channel, bundle[1])
    assert mutual.records('"client": "yard-camera"')[0]["call"] == "ModelInfer"


def test_a_certificate_without_a_common_name_has_the_other_one(mutual, keys, bundle) -> None:
    with connected(mutual, keys.shown(keys.ca.issue_cert("gate.example"))) as channel:
        infer(channel, bundle[1])
    assert mutual.records('"client": "gate.example"')[0]["call"] == "ModelInfer"


def test_a_client_does_not_take_another_server_for_this_one(mutual, keys, bundle) -> None:
    with connected(mutual, keys.shown(keys.ca.issue_cert("c"), trusted=trustme.CA())) as channel:
        assert refusal(channel, "ServerLive", b"").code() == grpc.StatusCode.UNAVAILABLE


def test_plaintext_and_tls_do_not_understand_each_other(locked, keys, bundle, tmp_path: Path) -> None:
    with connected(locked, None) as channel:
        error = refusal(channel, "ServerLive", b"", metadata=BEARER)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert tells_nothing(error, bundle[1])
    with serving(tmp_path, [bundle[0]]) as plain:
        with connected(plain, keys.shown()) as channel:
            assert refusal(channel, "ServerLive", b"").code() == grpc.StatusCode.UNAVAILABLE
        with connected(plain, None) as channel:
            infer(channel, bundle[1])


def test_tokens_are_read_again_and_wrong_files_change_nothing(bundle, tmp_path: Path) -> None:
    path = tokens(tmp_path)
    new = (("authorization", f"Bearer {NEW}"),)
    with serving(tmp_path, [bundle[0]], "--tokens", str(path)) as server, connected(server, None) as channel:
        infer(channel, bundle[1], metadata=BEARER)
        refusal(channel, "ServerLive", b"", metadata=new)
        tokens(tmp_path, "broken\n")
        server.process.send_signal(signal.SIGHUP)
        (refused,) = server.records("tokens_refused")
        assert "line 1" in str(refused["error"])
        infer(channel, bundle[1], metadata=BEARER)
        tokens(tmp_path, f"newcomer {NEW}\n")
        server.process.send_signal(signal.SIGHUP)
        server.records("tokens_read")
        infer(channel, bundle[1], metadata=new)
        assert refusal(channel, "ServerLive", b"", metadata=BEARER).code() == grpc.StatusCode.UNAUTHENTICATED


def test_every_client_has_a_budget_of_its_own(bundle, tmp_path: Path) -> None:
    yard = (("authorization", f"Bearer {YARD}"),)
    options = ("--tokens", str(tokens(tmp_path)), "--budget", "10/day")
    with serving(tmp_path, [bundle[0]], *options) as server, connected(server, None) as channel:
        infer(channel, bundle[1], 8, metadata=BEARER)
        error = refusal(channel, INFER, good_request(bundle[1], 3)[0].SerializeToString(), metadata=BEARER)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "try again in 86" in error.details()
        assert ("grpc-retry-pushback-ms", "-1") in [tuple(pair) for pair in error.trailing_metadata()]
        infer(channel, bundle[1], 2, metadata=BEARER)
        infer(channel, bundle[1], 10, metadata=yard)
        assert "10 pictures in 86400 s a client" in server.line
        assert server.records('"reason": "budget"')[0]["client"] == "gate"


@pytest.mark.parametrize("content", [b"nothing", b""])
def test_an_authority_that_is_none_is_said(keys, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(ConfigError, match="^--client-ca .*ca.pem: expected PEM files"):
        credentials(Settings(tls_cert=keys.folder / "cert.pem", tls_key=keys.folder / "key.pem", client_ca=tmp_path / "ca.pem"))


def test_a_key_with_a_password_is_refused_and_nobody_asked_for_it(keys, tmp_path: Path) -> None:
    key = forms.load_pem_private_key((keys.folder / "key.pem").read_bytes(), None)
    hidden = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.BestAvailableEncryption(b"word"))
    (tmp_path / "key.pem").touch(0o600)
    (tmp_path / "key.pem").write_bytes(hidden)
    code = (
        "import sys; from pathlib import Path; from sfumato.deploy.serving.settings import Settings, credentials\n"
        "credentials(Settings(tls_cert=Path(sys.argv[1]), tls_key=Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(keys.folder / "cert.pem"), str(tmp_path / "key.pem")]
    # Without a terminal, OpenSSL would ask on the standard input.
    done = subprocess.run(command, input="word\n", capture_output=True, text=True, timeout=60, start_new_session=True)
    assert "ConfigError: --tls-cert" in done.stderr
    assert "pass phrase" not in done.stderr
