# SPDX-License-Identifier: Apache-2.0
"""The classes that are shown: the most exposed and a spread of the others, with the pictures that the adversary ranks first."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ConfigError
from sfumato.inversion_exhibits import PRIVATE, JudgedPictures, exhibits, telling_classes
from sfumato.inversion_types import ClassPictures


def judged(right: list[list[int]], attack: str = "gmi", seed: int = 0, unreached: int | None = None) -> JudgedPictures:
    """Pictures whose every pixel is 0.1 times their place, of classes that are right where `right` says so."""
    verdicts = torch.tensor(right, dtype=torch.bool)
    classes, count = verdicts.shape
    x_hat = (0.1 * torch.arange(count))[None, :, None, None, None].expand(classes, count, 3, 8, 8)
    reached = torch.ones(classes, dtype=torch.bool)
    if unreached is not None:
        reached[unreached] = False
    confidence = torch.linspace(0.5, 1.0, count).expand(classes, count)
    return JudgedPictures(attack, seed, ClassPictures(x_hat, reached), confidence, verdicts)


@pytest.mark.parametrize(
    ("classes", "count", "chosen"),
    [
        (6, 4, [0, 1, 2, 5]),
        (20, 12, [0, 1, 2, 3, 4, 5, 6, 9, 11, 14, 16, 19]),
        (3, 12, [0, 1, 2]),
        (10, 2, [0, 9]),
        (10, 1, [0]),
        (1, 5, [0]),
    ],
)
def test_half_are_the_most_exposed_and_half_are_spread_to_the_least(classes: int, count: int, chosen: list[int]) -> None:
    exposure = torch.arange(classes, 0, -1) / classes
    assert telling_classes(exposure, count) == chosen


def test_the_most_exposed_class_comes_first() -> None:
    shown = exhibits(["anna", "ben", "cleo"], [judged([[0, 0], [1, 1], [1, 0]])])
    assert [one.name for one in shown] == ["ben", "cleo", "anna"]


def test_pictures_are_those_that_the_adversary_ranks_first_and_not_those_that_are_right() -> None:
    (shown,) = exhibits(["anna"], [judged([[0, 0, 1, 1]])], pictures=2)
    (made,) = shown.rebuilt
    assert (made.pixels.dtype, tuple(made.pixels.shape)) == (torch.uint8, (2, 3, 8, 8))
    assert made.pixels[:, 0, 0, 0].tolist() == [0, 26]  # 0.1 of 255, rounded
    assert made.right == (False, False)
    assert made.confidence == pytest.approx((0.5, 0.5 + 0.5 / 3))


def test_of_several_seeds_the_best_is_shown() -> None:
    (shown,) = exhibits(["anna"], [judged([[0, 0]]), judged([[1, 0]], seed=1), judged([[0, 0]], "ppa", 2)])
    assert [(one.attack, one.seed) for one in shown.rebuilt] == [("gmi", 1), ("ppa", 2)]


def test_nothing_counts_as_right_in_a_class_that_was_not_reached() -> None:
    first, second = exhibits(["anna", "ben"], [judged([[1, 1], [1, 0]], unreached=0)])
    assert (first.name, second.name) == ("ben", "anna")
    assert (second.rebuilt[0].reached, second.rebuilt[0].right) == (False, (False, False))
    assert first.rebuilt[0].reached


def test_private_pictures_are_read_for_chosen_classes_only_and_only_where_asked_for() -> None:
    read = []

    def private(place: int) -> torch.Tensor:
        read.append(place)
        return torch.full((9, 3, 8, 8), place, dtype=torch.uint8)

    several = judged([[1], [0], [0]])
    assert all(one.private is None for one in exhibits(["a", "b", "c"], [several]))
    shown = exhibits(["a", "b", "c"], [several], private=private, classes=2)
    assert read == [0, 2]
    assert shown[1].private is not None
    assert torch.equal(shown[1].private, torch.full((PRIVATE, 3, 8, 8), 2, dtype=torch.uint8))


def test_names_and_pictures_must_be_of_the_same_classes() -> None:
    with pytest.raises(ConfigError, match="expected pictures of 2 classes by gmi, found 1"):
        exhibits(["anna", "ben"], [judged([[1]])])
