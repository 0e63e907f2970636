# SPDX-License-Identifier: Apache-2.0
"""How a server is run: what it listens on, whom it lets in, and what it refuses to begin with."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from sfumato.deploy.private_file import require_private
from sfumato.deploy.serving.admission import Allowance
from sfumato.deploy.serving.waiting import Limits
from sfumato.errors import ConfigError

_MESSAGE_PICTURES = 64  # that a request may have even where batches are smaller
_MESSAGE_FRAME = 4096  # bytes of a request that are no numbers, at most


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a server. Each is an option of `sfumato serve`, and messages call it by that.

    Attributes:
        host: to listen on.
        port: to listen on; 0 lets the system choose.
        limits: of batches and queues.
        message: bytes of a message at most; None for those of the largest batch.
        timeout: seconds for a request, at most.
        grace: seconds for what is in flight when the server stops.
        threads: of ONNX Runtime for one model; 0 for one for each core.
        tls_cert, tls_key: PEM files of the server's certificate and of its key.
        client_ca: PEM file of who signs the certificates of clients; None asks for none.
        tokens: file of tokens; None asks for none.
        budget: of every client; None counts nothing.
        insecure: listen beyond the loopback without TLS or without asking who is there.
        metrics_port: of the page for Prometheus; None for no page.
        log: file that lines are added to; None for the standard error.

    Raises:
        ConfigError: the settings contradict each other or are not safe.

    Example:
        >>> Settings(tls_cert=Path("server.pem"))
        Traceback (most recent call last):
        sfumato.errors.ConfigError: --tls-cert and --tls-key go together, found only --tls-cert; give both
    """

    host: str = "127.0.0.1"
    port: int = 8001
    limits: Limits = Limits()
    message: int | None = None
    timeout: float = 10.0
    grace: float = 10.0
    threads: int = 0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    tokens: Path | None = None
    budget: Allowance | None = None
    insecure: bool = False
    metrics_port: int | None = None
    log: Path | None = None

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ConfigError(f"--timeout must be more than nothing, got {self.timeout:g} s; 10s is what it is if not said")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError(
                f"--tls-cert and --tls-key go together, found only --tls-{'key' if self.tls_cert is None else 'cert'}; give both"
            )
        if self.client_ca is not None and self.tls_cert is None:
            raise ConfigError("--client-ca needs TLS, found no --tls-cert and --tls-key; give them")
        known = self.tokens is not None or self.client_ca is not None
        if not self.insecure and not _is_loopback(self.host) and not (self.tls_cert and known):
            missing = [word for word, there in (("TLS", self.tls_cert), ("tokens", known)) if not there]
            raise ConfigError(
                f"--host {self.host} is not the loopback: expected --tls-cert, --tls-key and --tokens or --client-ca, found "
                f"no {' and no '.join(missing)}; give them, or say --insecure"
            )

    def address(self, port: int) -> str:
        """Return a port of the host as addresses are written: an IPv6 host in brackets."""
        host = self.host.strip("[]")
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def protection(self) -> str:
        """What protects the server, for people."""
        transport = "no TLS" if self.tls_cert is None else "TLS" if self.client_ca is None else "mutual TLS"
        known = "tokens" if self.tokens is not None else "no tokens"
        budget = "no budget" if self.budget is None else f"{self.budget.pictures} pictures in {self.budget.seconds:g} s a client"
        return f"{transport}, {known}, {budget}"

    def message_most(self, bytes_per_picture: int) -> int:
        """Return the bytes of a message at most, given those of a picture of the largest model."""
        return self.message or _MESSAGE_FRAME + self.pictures_most(bytes_per_picture) * bytes_per_picture

    def pictures_most(self, bytes_per_picture: int) -> int:
        """Return the pictures of a request at most, of whatever model, given the bytes of one of the largest model."""
        if self.message is not None:
            return max(1, self.message // bytes_per_picture)
        return max(self.limits.size, _MESSAGE_PICTURES)


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Read the certificates of a server; None where it has none.

    Raises:
        ConfigError: a file cannot be read, is no certificate, key and certificate do not belong together, or others than its
            owner can read the key.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = f"--tls-cert {settings.tls_cert} --tls-key {settings.tls_key}"
    try:
        require_private(settings.tls_key.stat(), f"--tls-key {settings.tls_key}")
        # gRPC would take anything here and refuse every client later.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
        if settings.client_ca is not None:
            files = f"--client-ca {settings.client_ca}"
            context.load_verify_locations(settings.client_ca)
        pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
        authority = settings.client_ca.read_bytes() if settings.client_ca is not None else None
    except (OSError, ssl.SSLError) as error:
        said = error.strerror or error.__class__.__name__
        raise ConfigError(
            f"{files}: expected PEM files of a certificate and of what belongs to it: {said}; check the files"
        ) from error
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)


def _no_password() -> str:
    """Return no password: OpenSSL would ask for one on the terminal."""
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
