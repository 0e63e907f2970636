# SPDX-License-Identifier: Apache-2.0
"""What a device says of a server that refused, did not answer, or answered something else."""

from __future__ import annotations

from sfumato.errors import ServiceError

_SHOWN = 300  # characters of what a server says that are shown
_ADVICE = {
    "UNAVAILABLE": "check the address, whether the server runs, and whether both sides speak TLS: a certificate of one's own "
    "needs --ca, a server that asks for certificates --certificate and --key",
    "DEADLINE_EXCEEDED": "raise the deadline, or ask the server for less at once",
    "RESOURCE_EXHAUSTED": "send fewer pictures in a request, try again later, or ask the server's owner for a larger budget",
    "UNAUTHENTICATED": "give the token, or the certificate and key, that the server's owner gave you",
    "PERMISSION_DENIED": "ask the server's owner for access to this model",
    "NOT_FOUND": "serve this very bundle there, or use the bundle that is served",
    "INVALID_ARGUMENT": "check that the server's bundle and this one are of the same export",
}
_ELSE = "ask the server's owner, whose log says more"


def refused(server: str, status: str, said: str | None, *, tries: int) -> ServiceError:
    """Return the error of a request that was not answered.

    Args:
        server: that was asked.
        status: the name of the gRPC status.
        said: what the server said beside it, if anything.
        tries: how often it was asked.

    Example:
        >>> print(refused("host:8001", "NOT_FOUND", "no such model", tries=1))  # doctest: +ELLIPSIS
        expected an answer from host:8001, asked once, found NOT_FOUND: no such model; serve this very bundle there, or ...
    """
    asked = "once" if tries == 1 else f"{tries} times"
    return ServiceError(
        f"expected an answer from {server}, asked {asked}, found {status}: {plain((said or 'nothing more')[:_SHOWN])}; "
        f"{_ADVICE.get(status, _ELSE)}",
        status,
    )


def strange(server: str, found: str) -> ServiceError:
    """Return the error of an answer that is none to what was asked."""
    said = plain(found[:_SHOWN])
    return ServiceError(f"the server {server} answered something else: {said}; {_ADVICE['NOT_FOUND']}", "INTERNAL")


def another_export(server: str, *, expected: str, found: str) -> ServiceError:
    """Return the error of a server that describes another model than the manifest."""
    said = f"expected {plain(expected)}, it has {plain(found[:_SHOWN])}; {_ADVICE['NOT_FOUND']}"
    return ServiceError(f"the server {server} does not have this export: {said}", "NOT_FOUND")


def plain(text: str) -> str:
    r"""Return foreign words as a terminal, which obeys control characters, may be given them.

    Example:
        >>> plain("two\nlines, \x1b[2J and all is gone")
        'two lines, ?[2J and all is gone'
    """
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)
