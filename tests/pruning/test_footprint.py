# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ConfigError
from sfumato.pruning.footprint import Footprint, Keep, Plan, Term


def cost(parameters: float) -> Footprint:
    return Footprint(parameters, 4 * parameters, 10 * parameters)


# Unit 0 gives 12 parameters and feeds 24 shared with unit 1; half of the inputs of the last term are unit 0's.
TOY = Plan((4, 3), (1, 1), (Term(cost(12), 0), Term(cost(24), 1, ((0, 1.0),)), Term(cost(5)), Term(cost(16), None, ((0, 0.5),))))


def by_hand(kept: tuple[int, int]) -> float:
    a, b = kept[0] / 4, kept[1] / 3
    return 12 * a + 24 * a * b + 5 + 16 * (0.5 + 0.5 * a)


@pytest.mark.parametrize("kept", list(itertools.product(range(5), range(4))))
def test_terms_shrink_with_what_they_give_out_and_take_in(kept: tuple[int, int]) -> None:
    found = TOY.footprint(kept)
    assert found.parameters == pytest.approx(by_hand(kept))
    assert (found.memory, found.macs) == pytest.approx((4 * by_hand(kept), 10 * by_hand(kept)))


@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7, unique=True), budget=st.floats(by_hand((1, 1)) + 0.01, 60)
)
@settings(deadline=None, max_examples=60)
def test_as_many_stay_as_the_limit_allows_and_those_with_the_largest_masks(values: list[float], budget: float) -> None:
    masks, limit = torch.tensor(values).split([4, 3]), Footprint(budget, math.inf, math.inf)
    kept_first = [int(mask.argmax()) + start for mask, start in zip(masks, (0, 4), strict=True)]  # at least one of each stays
    order = kept_first + sorted(set(range(7)) - set(kept_first), key=lambda place: -values[place])

    def sizes(stays: list[int]) -> tuple[int, int]:
        return sum(place < 4 for place in stays), sum(place >= 4 for place in stays)

    fitting = [order[:count] for count in range(2, 8) if by_hand(sizes(order[:count])) <= budget]
    found = torch.cat(TOY.choose(masks, limit)).nonzero()[:, 0].tolist()
    assert found == sorted(max(fitting, key=len))


def test_the_least_of_each_unit_stays_whatever_the_limit() -> None:
    plan = Plan((4, 3), (2, 1), TOY.terms)
    stays = plan.choose([torch.tensor([0.1, 0.4, 0.2, 0.3]), torch.zeros(3)], Footprint())
    assert stays[0].tolist() == [False, True, False, True]
    assert stays[1].sum() == 1


def test_without_a_limit_all_stays() -> None:
    stays = TOY.choose([torch.zeros(4), torch.zeros(3)], Footprint(math.inf, math.inf, math.inf))
    assert all(bool(kept.all()) for kept in stays)


def test_a_limit_that_no_pruning_reaches_is_refused_with_what_it_can_reach() -> None:
    smallest = TOY.footprint((1, 1))
    TOY.require(smallest)
    with pytest.raises(
        ConfigError,
        match=r"keep asks for a head of at most 20 parameters, but the smallest that pruning can make of this one has "
        r"20 parameters, 80 B, 200 MACs \(the whole has 57 parameters, 228 B, 570 MACs\); keep more, or cut earlier",
    ):
        TOY.require(Footprint(smallest.parameters - 0.01, math.inf, math.inf))


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep(parameters=0.25), (250, math.inf, math.inf)),
        (Keep(parameters="1.2k"), (1200, math.inf, math.inf)),
        (Keep(memory="2kB", macs=0.5), (math.inf, 2000, 5000)),
        (Keep(parameters=1), (1000, math.inf, math.inf)),
    ],
)
def test_shares_are_of_the_head_and_amounts_are_not(keep: Keep, expected: tuple[float, ...]) -> None:
    limit = keep.limit(Footprint(1000, 4000, 10000))
    assert (limit.parameters, limit.memory, limit.macs) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "keep must limit parameters, memory or macs"),
        ({"parameters": 0}, "parameters must be a positive number"),
        ({"memory": "much"}, 'memory must be a positive number, or a text such as "4.8MB" or "512KiB", got \'much\''),
        ({"macs": -1.0}, "macs must be a positive number"),
        ({"macs": "4MB"}, "macs must be a positive number"),
    ],
)
def test_budgets_that_are_none_are_refused(arguments: dict[str, float | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Keep(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_between_a_limit_and_the_whole_what_is_not_limited_stays_so(share: float) -> None:
    between = Footprint(100, math.inf, 10).towards(Footprint(500, 900, 50), share)
    assert between.parameters == 100 + share * 400
    assert between.macs == 10 + share * 40
    assert between.memory == (900 if share == 1 else math.inf)


def test_a_footprint_fits_where_no_number_is_above() -> None:
    limit = Footprint(10, 20, 30)
    assert limit.fits(limit)
    assert not any(Footprint(*above).fits(limit) for above in ((11, 20, 30), (10, 21, 30), (10, 20, 31)))


def test_what_is_not_limited_is_left_out_for_people() -> None:
    assert Footprint(math.inf, 4.8e6, math.inf).describe() == "4.8 MB"
