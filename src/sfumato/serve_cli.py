# SPDX-License-Identifier: Apache-2.0
"""The command that serves the tails of exported bundles. PyTorch is never imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from sfumato.deploy.quiet import quiet_grpc
from sfumato.display import say
from sfumato.errors import ConfigError
from sfumato.quantity import read_bytes

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_FILE = {"show_default": False, "metavar": "FILE"}


def serve(
    bundle: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Folders that `sfumato export` wrote.")],
    host: Annotated[
        str, typer.Option(help="Listen here; beyond the loopback only with TLS and tokens or --client-ca.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen here; 0 lets the system choose.", min=0, max=65535)] = 8001,
    batch: Annotated[int, typer.Option(help="Pictures that are run at once, at most; 1 runs every request alone.", min=1)] = 32,
    window: Annotated[str, typer.Option(help="How long to wait for a batch to fill, at most.", metavar="TIME")] = "2ms",
    queue: Annotated[int, typer.Option(help="Pictures that wait, at most; more are refused.", min=1)] = 512,
    queue_bytes: Annotated[str, typer.Option(help="Bytes that wait, at most; more are refused.", metavar="SIZE")] = "64MiB",
    message: Annotated[
        str | None,
        typer.Option(
            help="Bytes of a request, at most; those of the largest batch if not said.", metavar="SIZE", show_default=False
        ),
    ] = None,
    timeout: Annotated[str, typer.Option(help="For one request, at most.", metavar="TIME")] = "10s",
    grace: Annotated[str, typer.Option(help="For what is in flight when the server stops.", metavar="TIME")] = "10s",
    threads: Annotated[int, typer.Option(help="Of ONNX Runtime, for each model; 0 for one for each core.", min=0, max=1024)] = 0,
    tls_cert: Annotated[Path | None, typer.Option(help="The server's certificate, PEM.", **_FILE)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The key of the certificate, PEM.", **_FILE)] = None,
    client_ca: Annotated[Path | None, typer.Option(help="Who signs the certificates of clients, PEM.", **_FILE)] = None,
    tokens: Annotated[Path | None, typer.Option(help='Lines "name token"; SIGHUP reads them again.', **_FILE)] = None,
    budget: Annotated[
        str | None, typer.Option(help='Pictures of every client, such as "1000/hour".', metavar="RATE", show_default=False)
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond the loopback without TLS or tokens.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="A page for Prometheus, on the loopback.", min=0, max=65535, show_default=False)
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Where lines of JSON go; the standard error if not said.", **_FILE)] = None,
) -> None:
    """Serve the tails of bundles, for heads of the same bundles on devices.

    Needs the extra "serve" of the package.
    """
    quiet_grpc()
    try:
        from sfumato.deploy.server import serve as serve_bundles
        from sfumato.deploy.serving.admission import read_allowance
        from sfumato.deploy.serving.settings import Settings
        from sfumato.deploy.serving.waiting import Limits
    except ModuleNotFoundError as error:
        raise ConfigError(f"sfumato serve needs {error.name}, which is not installed; pip install 'sfumato[serve]'") from error
    limits = Limits(
        size=batch,
        window=seconds(window, "--window"),
        pictures=queue,
        bytes=int(read_bytes(queue_bytes, "--queue-bytes")),
    )
    settings = Settings(
        host=host,
        port=port,
        limits=limits,
        message=None if message is None else int(read_bytes(message, "--message")),
        timeout=seconds(timeout, "--timeout"),
        grace=seconds(grace, "--grace"),
        threads=threads,
        tls_cert=tls_cert,
        tls_key=tls_key,
        client_ca=client_ca,
        tokens=tokens,
        budget=None if budget is None else read_allowance(budget),
        insecure=insecure,
        metrics_port=metrics_port,
        log=log,
    )
    serve_bundles(bundle, settings, say)


def seconds(text: str, name: str) -> float:
    """Return a length of time in seconds.

    Args:
        text: such as "2ms".
        name: what it is, for the message.

    Raises:
        ConfigError: it is no such text.

    Example:
        >>> seconds("2ms", "--window")
        0.002
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*", text)
    if not found or found.group(2) not in _SECONDS:
        raise ConfigError(f'{name} must be a length of time such as "2ms", "10s" or "1min", got {text!r}')
    return float(found.group(1)) * _SECONDS[found.group(2)]
