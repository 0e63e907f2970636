# SPDX-License-Identifier: Apache-2.0
"""The page of pairs, served to a browser on this machine.

It shows private pictures, so: nothing is found without the token in the address; only a browser that was sent to this machine by
name or number is answered, which a page elsewhere that points its own name here is not; only the page itself may send anything;
nothing is kept by the browser or loaded from elsewhere. The standard library's server will do for the few people of a study, and
makes nobody install another.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
import socketserver
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args

from sfumato.errors import ConfigError, StorageError
from sfumato.page import render
from sfumato.studies.pairs import Pairs
from sfumato.studies.sittings import LONGEST, Said, Sittings

_MOST = 4096  # bytes that the page may send at once
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address has the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class PairsServer(ThreadingHTTPServer):
    """The server of one set of pairs. `serve_forever` answers until `shutdown` is called.

    Args:
        pairs: what is shown.
        sittings: who answers.
        host: a name or number of this machine; "127.0.0.1" is heard by nobody else.
        port: 0 takes one that is free.
        seconds: how long a pair is shown at most.
        participant: who answers; "" lets the page ask.

    Raises:
        ConfigError: host and port are not to be had.
    """

    daemon_threads = True
    stopped = False

    def __init__(
        self,
        pairs: Pairs,
        sittings: Sittings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seconds: float = 60,
        participant: str = "",
    ) -> None:
        self.sittings, self.token, self.host = sittings, secrets.token_urlsafe(24), host
        self._values = {"question": pairs.question, "pairs": len(pairs), "seconds": seconds, "participant": participant}
        self._values |= {"people": "person" in pairs.question, "longest": LONGEST}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen at {host}, port {port}: {error}; give --host an address of this machine and --port one that is "
                "free, or leave them out"
            ) from error

    @property
    def url(self) -> str:
        """The address of the page, token included."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """Take the port; the base would also ask the network for the full name of the machine."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def server_close(self) -> None:
        """Give the port back, and answer no more on connections that browsers hold open."""
        self.stopped = True
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that is gone; anything else is a defect and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def page(self) -> tuple[str, str]:
        """Return the page, and what alone it may load."""
        nonce = secrets.token_urlsafe(16)
        own = f"'nonce-{nonce}'"
        rules = f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src {own}; script-src {own}; "
        return render(
            "pairs.html.j2", nonce=nonce, **self._values
        ), rules + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    def knows(self, host: str) -> bool:
        """Return whether a browser was sent here on purpose: by the name given, "localhost" or the number of an address.

        Args:
            host: the header of that name.
        """
        name, _, port = host.rpartition(":")
        if port != str(self.server_port):
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in (self.host, "localhost")
        return True

    def act(self, action: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what the page asks for.

        Args:
            action: "enter", "show" or "answer".
            asked: what it sent.

        Raises:
            ConfigError: it asks for something else.
            StorageError: an answer cannot be stored.
        """
        name, key, said = (asked.get(word, "") for word in ("participant", "key", "said"))
        if not (isinstance(name, str) and isinstance(key, str) and isinstance(said, str)):
            raise ConfigError("expected strings from the page, got something else; load it again")
        if action == "enter":
            name = self.sittings.enter(name)
        elif action == "answer":
            if said not in get_args(Said):
                raise ConfigError(f"an answer must be one of {', '.join(get_args(Said))}, got '{said}'; load the page again")
            self.sittings.answer(name, key, said)  # type: ignore[arg-type]  # just looked at
        shown = self.sittings.show(name) if action == "show" else None
        done, total = self.sittings.progress(name)
        told: dict[str, Any] = {"participant": name, "done": done, "total": total}
        return told if shown is None else {**told, "key": shown.key, "pictures": shown.pictures, "seconds": shown.seconds}


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PairsServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sfumato", ""
    timeout = 60

    def do_GET(self) -> None:  # noqa: N802 -- the name that the standard library looks for
        where = self._inside()
        if where is None:
            return
        if where == "":
            page, rules = self.server.page()
            self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": rules})
            return
        kind, _, name = where.partition("/")
        picture = self.server.sittings.picture(name) if kind == "picture" else None
        if picture is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        self._send(HTTPStatus.OK, picture, "image/png")

    def do_POST(self) -> None:  # noqa: N802
        self.close_connection = True  # what was not read must not be taken for the next request
        where = self._inside()
        if where is None:
            return
        if where not in ("enter", "show", "answer"):
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            self._refuse(HTTPStatus.FORBIDDEN, "only the page itself may send anything here")
            return
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > _MOST or self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.BAD_REQUEST, f"expected at most {_MOST} bytes of JSON")
            return
        self._act(where, self.rfile.read(int(size)))

    def _act(self, action: str, body: bytes) -> None:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "expected JSON")
            return
        try:
            told = self.server.act(action, asked if isinstance(asked, dict) else {})
        except ConfigError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except StorageError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        else:
            self._send(HTTPStatus.OK, json.dumps(told).encode(), "application/json")

    def _inside(self) -> str | None:
        """Return what is asked for below the token; where that may not be, refuse it and return None."""
        if self.server.stopped:
            raise ConnectionAbortedError
        if not self.server.knows(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that the command printed")
            return None
        token, slash, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not (hmac.compare_digest(token.encode(), self.server.token.encode()) and slash):
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return None
        return rest

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **(more or {}), "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name of the base
        """Say nothing: an address has the token, and the terminal is for people."""
