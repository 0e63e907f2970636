# SPDX-License-Identifier: Apache-2.0
"""Where to freeze: accuracies read off by hand, the choice among them, and the search that trains until it knows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.analysis.freezing_advice import FreezeAdvice, _between, _isotonic, search_freeze, suggest_freeze
from sfumato.errors import ConfigError, UnknownNameError
from sfumato.models.freezing import freeze_points

X = torch.zeros(1, 1, 2, 2)
NAMING, REBUILDING = [1.0, 2.0, 3.0, 4.0], [8.0, 1.5, 0.5, 0.0]


def model() -> nn.Sequential:
    """Four layers, so three freeze points, "1", "2" and "3"."""
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))


def profile(values: list[float], names: str = "1234") -> FisherProfile:
    each = torch.tensor([values], dtype=torch.float64)
    return FisherProfile("toy", tuple(names), (20,) * len(values), len(values) - 1, each, torch.tensor([0]))


def advice(measured: dict[str, float], wanted: float, *, rebuilding: list[float] = REBUILDING) -> FreezeAdvice:
    naming, inversion = profile(NAMING), profile(rebuilding)
    return suggest_freeze(model(), X, classification=naming, inversion=inversion, measured=measured, wanted=wanted)


def test_shares_are_those_of_the_layers_before_a_point() -> None:
    table = advice({"": 0.9}, 0.5).table
    assert [one.point.name for one in table] == ["", "1", "2", "3"]
    assert [one.rebuilding_frozen for one in table] == pytest.approx([0, 0.8, 0.95, 1])
    assert [one.naming_kept for one in table] == pytest.approx([1, 0.9, 0.7, 0.4])
    assert [one.point for one in table[1:]] == list(freeze_points(model(), X))
    assert (table[0].point.frozen, table[0].point.trainable) == (0, 70)


def test_accuracy_is_read_off_over_the_share_that_is_kept() -> None:
    found = advice({"": 0.9, "3": 0.6}, 0.7)
    assert [one.accuracy for one in found.table] == pytest.approx([0.9, 0.85, 0.75, 0.6])
    assert [one.measured for one in found.table] == [True, False, False, True]
    assert (found.chosen.point.name, found.chosen.measured, found.wanted) == ("2", False, 0.7)
    assert advice({"": 0.9, "3": 0.6}, 0.6).chosen.point.name == "3"
    assert advice({"": 0.9, "3": 0.6}, 0.76).chosen.point.name == "1"
    assert advice({"": 0.9, "3": 0.6}, 0.9).chosen.point.name == ""


def test_beyond_what_was_measured_accuracy_is_that_of_the_nearest() -> None:
    assert [one.accuracy for one in advice({"2": 0.7}, 0.5).table] == [0.7] * 4
    assert advice({"": 0.9}, 0.9).chosen.point.name == "3"


def test_what_was_measured_is_told_as_it_is_and_smoothed_for_the_others() -> None:
    """Freezing "1" came out better than nothing: both count as 0.85 where others are read off, and each as itself."""
    found = advice({"": 0.8, "1": 0.9, "3": 0.35}, 0.5)
    assert [one.accuracy for one in found.table] == pytest.approx([0.8, 0.9, 0.35 + 0.5 * (0.7 - 0.4) / (0.9 - 0.4), 0.35])
    assert advice({"": 0.8, "1": 0.9, "3": 0.35}, 0.88).chosen.point.name == "1"


def test_of_points_that_freeze_as_much_the_one_with_the_fewest_to_train() -> None:
    assert advice({"": 0.9}, 0.9, rebuilding=[1.0, 0.0, 0.0, 0.0]).chosen.point.name == "3"


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_numbers_are_the_nearest_that_never_fall(seed: int) -> None:
    """The closed form: the largest over starts before of the smallest over ends after of the means between."""
    values = np.random.default_rng(seed).normal(size=9)
    wanted = [max(min(values[i : j + 1].mean() for j in range(k, 9)) for i in range(k + 1)) for k in range(9)]
    fitted = _isotonic([(float(place), value) for place, value in enumerate(values)])
    assert [value for _, value in fitted] == pytest.approx(wanted)
    assert [place for place, _ in fitted] == list(range(9))


def test_numbers_at_one_place_are_averaged() -> None:
    assert _isotonic([(0.5, 1.0), (0.5, 3.0), (0.2, 0.0)]) == [(0.2, 0.0), (0.5, 2.0)]
    assert [_between([(0.2, 0.0), (0.5, 3.0)], place) for place in (0.1, 0.2, 0.3, 0.5, 0.9)] == pytest.approx([0, 0, 1, 3, 3])


@pytest.mark.parametrize(
    ("measured", "wanted", "message"),
    [
        ({}, 0.5, "accuracy of one freeze point at least"),
        ({"": 0.9}, 0.95, r"wanted an accuracy of 0\.95, .*nothing frozen 0\.9 is measured; want less"),
        ({"1": 0.6}, 0.7, r"nothing frozen 0\.6 is expected"),
        ({"": 90.0}, 0.5, "from 0 to 1, got 90.0 of ''; divide percent by 100"),
        ({"": float("nan")}, 0.5, "from 0 to 1, got nan"),
    ],
)
def test_what_cannot_be_suggested_is_told(measured: dict[str, float], wanted: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        advice(measured, wanted)


def test_unknown_names_and_foreign_profiles_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no freeze point '4'.*it has '', '1', '2', '3'"):
        advice({"": 0.9, "4": 0.2}, 0.5)
    told = {"classification": profile(NAMING), "measured": {"": 0.9}, "wanted": 0.5}
    for other in (profile(NAMING[:3], "123"), profile([0.0] * 4)):
        with pytest.raises(ConfigError, match="two profiles of the same layers are compared, each with some information"):
            suggest_freeze(model(), X, inversion=other, **told)  # type: ignore[arg-type]


def test_a_model_of_one_layer_has_nothing_to_freeze() -> None:
    single, one = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), profile([1.0], "1")
    found = suggest_freeze(single, X, classification=one, inversion=one, measured={"": 0.9}, wanted=0.5)
    assert (found.chosen.point.name, found.chosen.point.trainable, len(found.table)) == ("", 10, 1)


def trained(accuracies: dict[str, float]) -> tuple[Callable[[str], float], list[str]]:
    asked: list[str] = []

    def measure(name: str) -> float:
        asked.append(name)
        return accuracies[name]

    return measure, asked


def searched(accuracies: dict[str, float], wanted: float, **options: object) -> tuple[FreezeAdvice, list[str]]:
    measure, asked = trained(accuracies)
    told = {"classification": profile(NAMING), "inversion": profile(REBUILDING), "wanted": wanted, **options}
    return search_freeze(measure, model(), X, **told), asked  # type: ignore[arg-type]


TRUE = {"": 0.9, "1": 0.88, "2": 0.85, "3": 0.3}


@pytest.mark.parametrize(
    ("wanted", "trainings", "asked", "chosen"),
    [
        (0.84, 9, ["", "3", "1", "2"], "2"),  # 0.8 is expected of "1", between 0.9 and 0.3, and then 0.65 of "2"
        (0.86, 9, ["", "3", "1", "2"], "1"),
        (0.6, 9, ["", "3", "2"], "2"),
        (0.2, 9, ["", "3"], "3"),
        (0.9, 9, ["", "3", "1"], ""),
        (0.6, 2, ["", "3"], ""),
        (0.6, 1, [""], ""),
    ],
)
def test_a_search_trains_what_is_suggested_until_it_knows(wanted: float, trainings: int, asked: list[str], chosen: str) -> None:
    found, trained_names = searched(TRUE, wanted, trainings=trainings)
    assert trained_names == asked
    assert (found.chosen.point.name, found.chosen.measured, found.chosen.accuracy) == (chosen, True, TRUE[chosen])


def test_a_search_takes_what_is_known_already() -> None:
    found, asked = searched(TRUE, 0.6, measured={"": 0.9, "3": 0.3})
    assert (asked, found.chosen.point.name) == (["2"], "2")
    assert [one.measured for one in found.table] == [True, False, True, True]


def test_a_search_that_cannot_end_well_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing frozen 0\.9 is measured"):
        searched(TRUE, 0.95)
    with pytest.raises(ConfigError, match="trainings must be at least 1, got 0"):
        searched(TRUE, 0.5, trainings=0)
    measure, asked = trained(TRUE)
    with pytest.raises(UnknownNameError, match="no freeze point 'x'"):
        search_freeze(
            measure, model(), X, classification=profile(NAMING), inversion=profile(REBUILDING), wanted=0.5, measured={"x": 0.1}
        )
    assert asked == []  # refused before anything is trained
