# SPDX-License-Identifier: Apache-2.0
"""What may be asked again, and after what time.

A request is asked again only where the server did not answer it: it was not reached, or it said itself when to come back. A
thousand devices whose server restarts must not come back at one time, hence the whole pause is random.

Source: grpc2017retry for the pushback of a server; brooker2015jitter for the pause, "full jitter".
Equations: pause ~ U(0, min(longest, first 2^tries)) -> pause
Departures: a server that refuses for want of room is asked again only if it says when: it may mean a budget that is spent.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.1
"""Seconds, at most, of the first pause."""
LONGEST = 2.0
"""Seconds, at most, of any random pause."""
# In what gRPC says of a server whose certificate is none for it, or that speaks no TLS. A server that refuses our own certificate
# looks like one that starts again, and is asked again.
_HOPELESS = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "WRONG_VERSION_NUMBER")
_UNANSWERED = ("UNAVAILABLE", "CANCELLED")  # the second is what a server's end makes of a request that has just come


def pause(
    status: str, pushback: str | None, tries: int, *, said: str | None = None, uniform: Callable[[float, float], float]
) -> float | None:
    """Return how long to wait before a request is asked again.

    Args:
        status: the name of the gRPC status that it got.
        pushback: what the server said, if anything.
        tries: how often it was asked, at least 1.
        said: what gRPC said beside the status.
        uniform: draws a number between two others.

    Returns:
        Seconds; None where it must not be asked again.

    Example:
        >>> top = lambda low, high: high
        >>> pause("UNAVAILABLE", None, 3, uniform=top), pause("RESOURCE_EXHAUSTED", "250", 1, uniform=top)
        (0.4, 0.35)
        >>> pause("RESOURCE_EXHAUSTED", None, 1, uniform=top), pause("INVALID_ARGUMENT", "250", 1, uniform=top)
        (None, None)
    """
    if status not in (*_UNANSWERED, "RESOURCE_EXHAUSTED") or any(word in (said or "") for word in _HOPELESS):
        return None
    if pushback is None:
        told = 0.0 if status in _UNANSWERED else None
    else:
        told = int(pushback) / 1000 if pushback.isascii() and pushback.isdigit() and len(pushback) < 10 else None
    if told is None:
        return None
    return told + uniform(0, min(LONGEST, FIRST * 2 ** min(tries - 1, 10)))
