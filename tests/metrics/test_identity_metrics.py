# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.metrics.identity import (
    centroid_distance,
    class_interval,
    class_means,
    factor_error,
    named_within,
    nearest_squared,
    share_interval,
)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embedded(count: int, seed: int, classes: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 7, generator=stream(seed)), torch.arange(count) % classes


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_class_is_named_where_fewer_than_k_others_are_as_probable(k: int) -> None:
    logits, labels = torch.randint(0, 6, (200, 7), generator=stream()).float(), torch.randint(0, 7, (200,), generator=stream(1))
    slow = [
        sum(other >= row[label] for place, other in enumerate(row) if place != label) < k
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert named_within(logits, labels, k).tolist() == [float(one) for one in slow]
    assert 0 < sum(slow) < 200


def test_random_names_are_right_as_often_as_chance() -> None:
    logits, labels = torch.randn(20_000, 40, generator=stream()), torch.arange(20_000) % 40
    assert named_within(logits, labels).mean().item() == pytest.approx(1 / 40, abs=0.004)
    assert named_within(logits, labels, 5).mean().item() == pytest.approx(5 / 40, abs=0.01)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_an_evaluator_that_cannot_tell_names_nothing(value: float) -> None:
    assert named_within(torch.full((6, 3), value), torch.arange(6) % 3).sum() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_answer_that_is_no_number_makes_all_of_them_worthless(value: float) -> None:
    assert named_within(torch.tensor([[3.0, value, 1.0, 0.0]]), torch.tensor([0]), 3).item() == 0


def test_distances_are_those_of_a_search_picture_by_picture() -> None:
    (x, labels), (private, owners) = embedded(23, 0), embedded(40, 1)
    near, center = [], []
    for row, label in zip(x.double().numpy(), labels.tolist(), strict=True):
        own = np.array([other for other, owner in zip(private.double().numpy(), owners.tolist(), strict=True) if owner == label])
        near.append(min(float(((row - other) ** 2).sum()) for other in own))
        center.append(float(np.sqrt(((row - own.mean(0)) ** 2).sum())))
    assert nearest_squared(x, labels, private, owners).numpy() == pytest.approx(near)
    assert centroid_distance(x, labels, private, owners).numpy() == pytest.approx(center)


def test_pictures_that_are_private_ones_are_at_no_distance_however_far_out() -> None:
    x, labels = embedded(20, 0)
    assert nearest_squared(x + 1e4, labels, x + 1e4, labels).tolist() == [0.0] * 20


def test_distances_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    (x, labels), (private, owners) = embedded(23, 0), embedded(40, 1)
    whole = nearest_squared(x, labels, private, owners)
    monkeypatch.setattr("sfumato.metrics.identity._CELLS", 8 * 7 * 2)
    assert torch.equal(nearest_squared(x, labels, private, owners), whole)


@pytest.mark.parametrize("measure", [nearest_squared, centroid_distance])
def test_a_class_without_a_private_picture_is_said(measure: object) -> None:
    (x, labels), (private, owners) = embedded(10, 0), embedded(10, 1, classes=3)
    with pytest.raises(DataError, match=r"found none of 2 of 5 classes \(first: 3\); give private pictures"):
        measure(x, labels, private, owners)  # type: ignore[operator]


def test_the_error_of_factors_is_their_mean_distance() -> None:
    read, true = torch.rand(9, 4, generator=stream()), torch.rand(9, 4, generator=stream(1))
    slow = [np.mean([abs(a - b) for a, b in zip(*rows, strict=True)]) for rows in zip(read.tolist(), true.tolist(), strict=True)]
    assert factor_error(read, true).numpy() == pytest.approx(slow)


def test_classes_count_the_same_however_many_pictures_they_have() -> None:
    values, labels = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([4, 9, 9, 9])
    assert class_means(values, labels)[0].tolist() == [4, 9]
    found = class_interval(values, labels, stream())
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_an_interval_is_over_classes_and_not_over_pictures() -> None:
    """Twenty classes, all pictures of a class alike: a hundred of each, or of five seeds, say no more than one of each."""
    right, labels = (torch.arange(20) < 8).double(), torch.arange(20)
    one = class_interval(right, labels, stream())
    many = class_interval(right.repeat(100), labels.repeat(100), stream())
    assert one == many
    slow = np.random.default_rng(0).choice(right.numpy(), (4000, 20)).mean(1)
    assert one.value == pytest.approx(0.4)
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.051)


def test_seeds_are_pooled_by_class() -> None:
    first, second = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0])
    labels = torch.tensor([2, 0, 1])
    pooled = class_interval(torch.cat([first, second]), torch.cat([labels, labels]), stream())
    assert pooled == class_interval((first + second) / 2, labels, stream())


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_share_that_all_classes_agree_on_has_the_exact_interval_of_so_many_classes(right: float) -> None:
    labels = torch.arange(20).repeat_interleave(5)
    found = share_interval(torch.full((100,), right), labels, torch.Generator().manual_seed(0))
    edge = 0.025 ** (1 / 20)  # Clopper-Pearson of 20 of 20
    expected = (right, edge, 1.0) if right else (right, 0.0, 1 - edge)
    np.testing.assert_allclose((found.value, found.low, found.high), expected, atol=1e-9)


def test_a_share_on_which_classes_differ_is_bootstrapped_over_them() -> None:
    labels, values = torch.arange(20).repeat_interleave(5), (torch.arange(100) % 3 == 0).float()
    shares, means = (f(values, labels, torch.Generator().manual_seed(0)) for f in (share_interval, class_interval))
    assert shares == means
