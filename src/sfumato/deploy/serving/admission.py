# SPDX-License-Identifier: Apache-2.0
"""Who may ask a server, and how much: tokens, certificates and budgets.

A budget is a bucket that holds so many pictures and refills evenly. It is there for privacy more than for load: who may ask the
tail without end can copy it, or search with it.
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

import grpc

from sfumato.deploy.protocol import PUSHBACK
from sfumato.deploy.serving.tokens import Tokens
from sfumato.errors import ConfigError

CLIENTS_MOST = 10_000
"""Clients whose budgets are remembered at once."""

_PERIODS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_SCHEME = "Bearer "
_CERTIFIED_NAMES = ("x509_common_name", "x509_subject_alternative_name")
_NAME_MOST = 64  # letters of a client's name


class RefusalError(Exception):
    """A request that is not answered.

    Args:
        status: of gRPC.
        message: what was expected, what was found, what to do; nothing of a model to whom has no right to it.
        reason: one word for logs and metrics.
        pushback: milliseconds after which to try again, -1 for not at all, None where nothing is said of it.
    """

    def __init__(self, status: grpc.StatusCode, message: str, *, reason: str, pushback: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.pushback = pushback

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """The metadata that goes with it: what gRPC's own retries obey."""
        return () if self.pushback is None else ((PUSHBACK, str(self.pushback)),)


class Door:
    """Lets in whom it knows, and says who it is.

    Args:
        tokens: that are accepted; None where none is asked for.
        certified: whether clients show certificates.
    """

    def __init__(self, tokens: Tokens | None, *, certified: bool = False) -> None:
        self.tokens = tokens
        self._certified = certified

    def client_of(self, context: grpc.aio.ServicerContext) -> str:
        """Return the name of a client: its token's, else its certificate's, else its host.

        Raises:
            RefusalError: a token is asked for, and there is none or a wrong one.
        """
        if self.tokens is not None:
            return self._token_of(context.invocation_metadata() or (), self.tokens)
        shown = context.auth_context() if self._certified else {}
        # Certificates of today have their names in the extension alone, and the common name is there and empty.
        names = [name for key in _CERTIFIED_NAMES for name in shown.get(key, ()) if name]
        return names[0].decode(errors="replace")[:_NAME_MOST] if names else host_of(context.peer())

    def _token_of(self, metadata: Iterable[tuple[str, str | bytes]], tokens: Tokens) -> str:
        offered = [value for key, value in metadata if key == "authorization"]
        name = None
        if len(offered) == 1 and isinstance(offered[0], str) and offered[0].startswith(_SCHEME):
            name = tokens.name_of(offered[0][len(_SCHEME) :])
        if name is None:
            raise RefusalError(
                grpc.StatusCode.UNAUTHENTICATED,
                'expected the metadata "authorization: Bearer TOKEN" with a token of this server, found none or another; ask who '
                "runs it for one",
                reason="token",
            )
        return name


@lru_cache(1024)
def host_of(peer: str) -> str:
    """Return the host in gRPC's name of a peer. One of IPv6 is its network of 64 bits: whoever has one address has them all.

    Example:
        >>> host_of("ipv4:127.0.0.1:5000"), host_of("ipv6:%5B::1%5D:5000"), host_of("unix:/run/s")
        ('127.0.0.1', '::1', 'unix')
        >>> host_of("ipv6:%5B2001:db8::5%5D:5000"), host_of("ipv6:%5B::ffff:10.0.0.7%5D:5000")
        ('2001:db8::/64', '10.0.0.7')
    """
    found = re.fullmatch(r"ipv[46]:\[?([^\[\]]+)\]?:\d+", unquote(peer))
    if not found:
        return peer.partition(":")[0]
    host = ipaddress.ip_address(found.group(1).partition("%")[0])
    if host.version == 4 or host.is_loopback:
        return str(host)
    return str(host.ipv4_mapped or ipaddress.ip_network((host, 64), strict=False))


@dataclass(frozen=True)
class Allowance:
    """How much every client may ask.

    Attributes:
        pictures: at once, and in every period.
        seconds: of the period.
    """

    pictures: int
    seconds: float


def read_allowance(text: str) -> Allowance:
    """Read an allowance such as "1000/hour".

    Raises:
        ConfigError: it is no number of pictures for a second, a minute, an hour or a day.

    Example:
        >>> read_allowance("1000/hour")
        Allowance(pictures=1000, seconds=3600.0)
    """
    found = re.fullmatch(r"([1-9][0-9]{0,11})/([a-z]+)", text.strip())
    if not found or found.group(2) not in _PERIODS:
        raise ConfigError(f'--budget must be pictures for a {" or ".join(_PERIODS)}, such as "1000/hour", got {text!r}')
    return Allowance(int(found.group(1)), _PERIODS[found.group(2)])


class Budgets:
    """What every client has left.

    Args:
        allowance: of every client.
        most: clients that are remembered. Who has asked longest ago is forgotten for a new one, if that changes nothing.
        clock: in seconds, never going back.

    Example:
        >>> budgets = Budgets(Allowance(10, 60.0), clock=lambda: 0.0)
        >>> budgets.take("gate", 10)
        >>> budgets.take("gate", 3)
        Traceback (most recent call last):
        sfumato.deploy.serving.admission.RefusalError: expected at most 10 pictures in 60 s, found 3 more; try again in 18 s
    """

    def __init__(self, allowance: Allowance, *, most: int = CLIENTS_MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._most = most
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # pictures, and when that was

    def take(self, client: str, pictures: int) -> None:
        """Take pictures from a client's budget.

        Raises:
            RefusalError: it has not so many left, or there are more clients than are remembered.
        """
        now, allowance = self._clock(), self._allowance
        left = self._now(client, now)
        if left is None:
            if len(self._left) >= self._most:
                self._forget_one(now)
            left = float(allowance.pictures)
        if pictures > left:
            raise self._refusal(pictures, left)
        self._left[client] = (left - pictures, now)
        self._left.move_to_end(client)

    def give_back(self, client: str, pictures: int) -> None:
        """Return what was taken for a request that was not run."""
        left, when = self._left[client]
        self._left[client] = (left + pictures, when)

    def _now(self, client: str, now: float) -> float | None:
        if client not in self._left:
            return None
        left, when = self._left[client]
        whole = self._allowance.pictures
        return min(float(whole), left + (now - when) * whole / self._allowance.seconds)

    def _forget_one(self, now: float) -> None:
        oldest = next(iter(self._left))
        if self._now(oldest, now) != self._allowance.pictures:  # forgetting would give it a new budget
            raise RefusalError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"expected at most {self._most} clients with a budget, found one more; try again later",
                reason="clients",
                pushback=-1,
            )
        del self._left[oldest]

    def _refusal(self, pictures: int, left: float) -> RefusalError:
        allowance = self._allowance
        wait = math.ceil((pictures - left) * allowance.seconds / allowance.pictures)
        remedy = f"try again in {wait} s" if pictures <= allowance.pictures else "send fewer at once"
        return RefusalError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"expected at most {allowance.pictures} pictures in {allowance.seconds:.0f} s, found {pictures} more; {remedy}",
            reason="budget",
            pushback=-1,
        )
