# SPDX-License-Identifier: Apache-2.0
"""Axes have round ticks that enclose what they show, and every number has its place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.scale import can_draw, scale
from sfumato.types import Interval


def exact(*values: float) -> list[Interval]:
    return [Interval(value, value, value) for value in values]


@given(st.lists(st.floats(-1e11, 1e11), min_size=1, max_size=5), st.booleans())
def test_ticks_are_round_and_enclose_everything(values: list[float], log: bool) -> None:
    axis = scale(exact(*values), 0, 100, log=log)
    slack = 1e-6 * (axis.ticks[-1] - axis.ticks[0])
    assert axis.ticks[0] <= min(values) + slack
    assert axis.ticks[-1] >= max(values) - slack
    assert 2 <= len(axis.ticks) <= 16
    assert all(low < high for low, high in zip(axis.ticks, axis.ticks[1:], strict=False))
    if not axis.log:
        step = axis.ticks[1] - axis.ticks[0]
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-6), 3) in {1, 2, 5, 10}


def test_places_are_those_of_numpy() -> None:
    values = np.array([0.03, 0.05, 0.08])
    axis = scale(exact(*values), 10, 110)
    np.testing.assert_allclose([axis(value) for value in values], np.interp(values, [axis.ticks[0], axis.ticks[-1]], [10, 110]))
    values = np.array([0.001, 0.004, 0.05])
    axis = scale(exact(*values), 110, 10, log=True)
    ends = np.log([axis.ticks[0], axis.ticks[-1]])
    np.testing.assert_allclose([axis(value) for value in values], np.interp(np.log(values), ends, [110, 10]))


@pytest.mark.parametrize(
    ("values", "log"), [((0.001, 0.019), False), ((0.001, 0.021), True), ((0.0, 1.0), False), ((-1.0, 9.0), False)]
)
def test_a_logarithm_where_positive_values_span_a_factor_above_20(values: tuple[float, float], log: bool) -> None:
    assert scale(exact(*values), 0, 1, log=True).log is log
    assert not scale(exact(*values), 0, 1).log


def test_bounds_belong_to_the_axis_unless_they_cannot_be_drawn() -> None:
    assert scale([Interval(90.0, 88.0, 92.0)], 0, 1).labels == ("88", "89", "90", "91", "92")
    assert scale([Interval(90.0, math.nan, math.inf)], 0, 1) == scale(exact(90.0), 0, 1)
    assert [can_draw(value) for value in (0.0, -5.0, math.nan, math.inf, -1e300)] == [True, True, False, False, False]


def test_a_bound_of_zero_leaves_a_logarithmic_axis_room() -> None:
    axis = scale([Interval(0.001, 0.0, 0.002), *exact(0.1)], 0, 1, log=True)
    assert axis.ticks[0] == pytest.approx(1e-4)
    assert axis(0.0) == 0


def test_zero_is_shown_where_it_is_near_and_negative_numbers_have_a_true_minus() -> None:
    assert scale(exact(0.1, 0.9), 0, 1).labels[0] == "0.0"
    assert scale(exact(90.0, 95.0), 0, 1).labels[0] == "90"
    assert scale(exact(-3.0, -1.0), 0, 1).labels[0] == "−3.0"
