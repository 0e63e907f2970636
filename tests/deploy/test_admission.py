# SPDX-License-Identifier: Apache-2.0
"""Budgets: spent, refilled evenly, never given twice."""

from __future__ import annotations

import grpc
import pytest

from clock import Clock
from sfumato.deploy.serving.admission import Allowance, Budgets, RefusalError, host_of, read_allowance
from sfumato.errors import ConfigError


def test_a_budget_is_spent_and_refills_evenly(clock: Clock) -> None:
    budgets = Budgets(Allowance(10, 60.0), clock=clock)
    budgets.take("a", 7)
    with pytest.raises(RefusalError, match="try again in 6 s") as refused:
        budgets.take("a", 4)
    assert (refused.value.status, refused.value.trailers) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        (("grpc-retry-pushback-ms", "-1"),),
    )
    budgets.take("a", 3)
    budgets.take("b", 10)
    clock.now += 6.0
    budgets.take("a", 1)
    with pytest.raises(RefusalError):
        budgets.take("a", 1)
    clock.now += 1e6
    budgets.take("a", 10)
    with pytest.raises(RefusalError):
        budgets.take("a", 1)


def test_what_was_given_back_can_be_taken_again_and_no_more(clock: Clock) -> None:
    budgets = Budgets(Allowance(10, 60.0), clock=clock)
    budgets.take("a", 10)
    budgets.give_back("a", 4)
    budgets.take("a", 4)
    with pytest.raises(RefusalError):
        budgets.take("a", 1)


def test_more_than_a_budget_holds_never_gets_through(clock: Clock) -> None:
    with pytest.raises(RefusalError, match="send fewer at once"):
        Budgets(Allowance(10, 60.0), clock=clock).take("a", 11)


def test_nobody_gets_a_new_budget_by_being_forgotten(clock: Clock) -> None:
    budgets = Budgets(Allowance(10, 60.0), most=2, clock=clock)
    budgets.take("a", 10)
    budgets.take("b", 10)
    with pytest.raises(RefusalError, match="at most 2 clients"):
        budgets.take("c", 1)
    clock.now += 60.0
    budgets.take("c", 10)
    with pytest.raises(RefusalError):
        budgets.take("c", 1)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:50000", "10.0.0.7"),
        ("ipv6:%5B2001:db8:0:1:ffff::9%5D:1", "2001:db8:0:1::/64"),
        ("ipv6:%5B2001:db8:0:1:7::1%5D:65535", "2001:db8:0:1::/64"),
        ("ipv6:%5B2001:db8:0:2:7::1%5D:65535", "2001:db8:0:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:1", "10.0.0.7"),
        ("ipv6:[::1]:1", "::1"),
        ("unix:", "unix"),
        ("", ""),
    ],
)
def test_whoever_has_many_addresses_has_one_budget(peer: str, host: str) -> None:
    assert host_of(peer) == host


@pytest.mark.parametrize("text", ["", "1000", "0/hour", "-1/hour", "1.5/hour", "10/week", "1e3/hour", "10/", "9" * 13 + "/day"])
def test_what_is_no_allowance_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        read_allowance(text)


@pytest.mark.parametrize(("text", "seconds"), [("5/second", 1), ("5/minute", 60), ("5/hour", 3600), ("5/day", 86400)])
def test_an_allowance_has_a_period(text: str, seconds: float) -> None:
    assert read_allowance(text) == Allowance(5, seconds)
