# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import pytest

from sfumato.deploy.asking.retries import FIRST, LONGEST, pause


def top(low: float, high: float) -> float:
    return high


def bottom(low: float, high: float) -> float:
    return low


def test_the_random_pause_doubles_up_to_its_longest() -> None:
    found = [pause("UNAVAILABLE", None, tries, uniform=top) for tries in range(1, 9)]
    assert found == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2])
    assert pause("UNAVAILABLE", None, 10_000, uniform=top) == LONGEST


def test_the_whole_pause_is_random() -> None:
    assert pause("UNAVAILABLE", None, 5, uniform=bottom) == 0
    drawn = [pause("UNAVAILABLE", None, 1, uniform=random.Random(0).uniform) for _ in range(3)]
    assert all(one is not None and 0 <= one <= FIRST for one in drawn)


@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_server_that_says_when_is_not_asked_before(status: str) -> None:
    assert pause(status, "0", 1, uniform=bottom) == 0
    assert pause(status, "1500", 4, uniform=bottom) == 1.5
    assert pause(status, "1500", 1, uniform=top) == pytest.approx(1.5 + FIRST)


@pytest.mark.parametrize("said", ["-1", "-0", "", "soon", "1.5", " 1", "1e3", "٣", "9" * 10, "9" * 5000])
@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_server_that_says_anything_else_is_not_asked_again(status: str, said: str) -> None:
    assert pause(status, said, 1, uniform=top) is None


@pytest.mark.parametrize(
    "status",
    ["OK", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED"]
    + ["FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "DATA_LOSS", "UNAUTHENTICATED"],
)
def test_nothing_else_is_asked_again(status: str) -> None:
    assert pause(status, None, 1, uniform=top) is None
    assert pause(status, "1", 1, uniform=top) is None


@pytest.mark.parametrize(
    "said",
    [
        "Tls handshake failed: CERTIFICATE_VERIFY_FAILED: expired",
        "UNAUTHENTICATED: Hostname Verification Check failed.",
        "SSL routines:WRONG_VERSION_NUMBER",
    ],
)
def test_a_server_that_is_not_the_one_meant_is_not_asked_again(said: str) -> None:
    assert pause("UNAVAILABLE", None, 1, said=said, uniform=top) is None
    assert pause("UNAVAILABLE", None, 1, said="Tls handshake failed: Socket closed", uniform=top) is not None


def test_no_room_without_a_time_is_not_asked_again() -> None:
    assert pause("RESOURCE_EXHAUSTED", None, 1, uniform=top) is None


def test_what_a_server_that_ends_cancels_is_asked_again() -> None:
    assert pause("CANCELLED", None, 2, uniform=top) == pause("UNAVAILABLE", None, 2, uniform=top)
