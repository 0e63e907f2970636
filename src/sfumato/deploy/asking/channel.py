# SPDX-License-Identifier: Apache-2.0
"""A connection to a server: encrypted unless it stays inside of the device, and back within a second when the server is.

What leaves a device in plain text can be read and answered by everybody on the way, a token included. Plain text is therefore for
loopback, or for who asks for it; a token goes nowhere in plain text but to loopback.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from sfumato.errors import ConfigError

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
_TOKEN = re.compile(r"[!-~]{1,512}")
TOKEN_SHAPE = "1 to 512 printable ASCII characters without spaces"  # noqa: S105 -- what one looks like
_LARGEST_FILE = 1 << 20  # bytes of a certificate or key
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # named so, it is how long one attempt to connect may take
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel to the same server would take the connection of the old one
    # Neither the channel nor the owner of a domain name decides what is sent twice: the client does.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
]


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a server is reached, and as whom.

    Args:
        token: shown with every request.
        ca: file with the certificates, PEM, that the server's must descend from; None takes those that gRPC trusts.
        certificate: file with the device's own certificate, PEM, for a server that asks for it.
        key: file with its private key, PEM.
        insecure: speak plain text to a server that is not on loopback.

    Raises:
        ConfigError: the token has other characters than printable ASCII, or only one of certificate and key is given.

    Example:
        >>> Access(token="secret")
        Access(ca=None, certificate=None, key=None, insecure=False)
    """

    token: str | None = field(default=None, repr=False)
    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.token is not None and not is_token(self.token):
            raise ConfigError(f"a token must be {TOKEN_SHAPE}; check where it comes from")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a certificate needs its key and a key its certificate; give both or neither")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every request."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


def channel_maker(server: str, access: Access, *, largest: int) -> Callable[[], grpc.Channel]:
    """Return what makes channels to a server. A channel connects when it is first used.

    Args:
        server: "host:port"; an IPv6 address is in brackets.
        access: how and as whom; its files are read now.
        largest: bytes of an answer that are accepted.

    Raises:
        ConfigError: the server is not written so, plain text and certificates are both asked for, a token would go over the
            network in plain text, or a file cannot be read.
    """
    found = _SERVER.fullmatch(server)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise ConfigError(f"expected a server as HOST:PORT, such as tail.example.org:8001, got {server[:80]!r}")
    local = is_loopback(found[1].strip("[]"))
    options = [*_OPTIONS, ("grpc.max_receive_message_length", largest)]
    target = f"dns:///{server}"
    if not _encrypted(server, access, local=local):
        if local:
            options.append(("grpc.enable_http_proxy", 0))  # a proxy would take it out of the device
        return lambda: grpc.insecure_channel(target, options)
    roots, key, certificate = (_content(path) for path in (access.ca, access.key, access.certificate))
    credentials = grpc.ssl_channel_credentials(roots, key, certificate)
    return lambda: grpc.secure_channel(target, credentials, options)


def is_token(text: str) -> bool:
    """Return whether a text can be a token.

    Example:
        >>> is_token("secret"), is_token("gate secret")
        (True, False)
    """
    return _TOKEN.fullmatch(text) is not None


def is_loopback(host: str) -> bool:
    """Return whether a host is this very machine.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("127.0.0.1.example.org")
        (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _encrypted(server: str, access: Access, *, local: bool) -> bool:
    """Decide whether a server is spoken to by TLS, or refuse."""
    wanted = access.ca is not None or access.certificate is not None
    if not access.insecure:
        return wanted or not local
    if wanted:
        raise ConfigError("insecure is plain text, which has no certificates; give one or the other")
    if access.token is not None and not local:
        raise ConfigError(f"a token must not go to {server} in plain text; leave insecure away, and give the server's ca")
    return False


def _content(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_FILE)
    except OSError as error:
        raise ConfigError(f"expected a PEM file at {path}: {error.strerror or error}; check the path") from error
    if b"-----BEGIN" not in content:
        raise ConfigError(f"expected a PEM file at {path}, found something else; it begins with -----BEGIN")
    return content
