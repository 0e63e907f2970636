# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import quadrants
from quadrants import SHAPE
from sfumato.court import Court
from sfumato.errors import DataError, ModelError
from sfumato.evaluator import Evaluator
from sfumato.factors import Reader
from test_factors import Brightness


def test_pictures_are_measured_by_hand() -> None:
    court = quadrants.court(evaluator=Evaluator(model="quadrants:brightest", face="quadrants:pooled"))
    quarters, labels = torch.rand(6, 4), torch.tensor([0, 1, 2, 3, 1, 2])
    found = court.measure(quadrants.shown(quarters), labels)
    private = court.data.part("private")
    near = quadrants.brightest(4, SHAPE)[:2](private.read(torch.arange(len(private))) / 255).double().numpy()  # type: ignore[index]
    own = [near[private.labels.numpy() == label] for label in labels.tolist()]
    squares = [((row - some) ** 2).sum(1).min() for row, some in zip(quarters.double().numpy(), own, strict=True)]
    centers = [np.sqrt(((row - some.mean(0)) ** 2).sum()) for row, some in zip(quarters.double().numpy(), own, strict=True)]
    assert found.values["top1"].tolist() == (quarters.argmax(1) == labels).double().tolist()
    assert found.values["top5"].tolist() == [1.0] * 6
    assert found.values["knn"].numpy() == pytest.approx(squares, rel=1e-4)
    assert found.values["centroid"].numpy() == pytest.approx(centers, rel=1e-4)
    assert found.values["face"].numpy() == pytest.approx(4 * np.array(squares), rel=1e-4)
    assert "factors" not in found.values
    assert found.frechet > 0.1


def test_private_pictures_are_at_no_distance_from_themselves() -> None:
    court = quadrants.court()
    private = court.data.part("private")
    found = court.measure_stored(private, private.labels)
    assert found.values["knn"].abs().max() == 0
    assert found.frechet == pytest.approx(0, abs=1e-9)
    seen = court.measure(private.read(torch.arange(len(private))) / 255, private.labels)
    assert {name: value.tolist() for name, value in seen.values.items()} == {
        name: value.tolist() for name, value in found.values.items()
    }


def test_distributions_are_compared_with_the_private_pictures_of_the_same_classes() -> None:
    court = quadrants.court()
    private = court.data.part("private")
    some = private.subset((private.labels < 2).nonzero()[:, 0])
    assert court.measure_stored(some, some.labels).frechet == pytest.approx(0, abs=1e-9)
    assert court.measure_stored(some, some.labels + 2).frechet > 0.5


def test_factors_are_those_of_the_class_that_a_picture_is_to_show() -> None:
    data = quadrants.people(factors=True)
    court = replace(quadrants.court(data), reader=Reader(("quarter", "gray"), Brightness()))
    x, labels = torch.full((4, *SHAPE), 0.25), torch.arange(4)
    true = torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.5, 0.0], [0.75, 0.0]])
    wrong = (torch.tensor([0.25, 0.5]) - true).abs().mean(1)
    assert court.measure(x, labels).values["factors"].numpy() == pytest.approx(wrong.numpy())


def test_the_target_is_asked_as_deployed() -> None:
    court, quarters = quadrants.court(), torch.rand(5, 4)
    labels = torch.tensor([0, 1, 2, 3, 0])
    found = court.ask(quadrants.shown(quarters), labels, 0)
    wanted: Tensor = (10 * quarters).softmax(1)[torch.arange(5), labels]
    assert found.confidence.numpy() == pytest.approx(wanted.numpy(), rel=1e-4)
    assert found.named.tolist() == (quarters.argmax(1) == labels).double().tolist()


def test_a_target_of_another_width_is_refused() -> None:
    court = quadrants.court()
    with pytest.raises(ModelError, match=r"the target must answer two pictures with float logits of shape \(2, 4\)"):
        Court(quadrants.target(3), court.data, court.judge)


def test_private_pictures_of_other_classes_are_refused() -> None:
    court = quadrants.court()
    private = court.data.part("private")
    fewer = private.subset((private.labels > 0).nonzero()[:, 0])
    with pytest.raises(DataError, match="must show the classes 0 to 3, found 3 classes from 1 to 3; number them"):
        Court(court.target, court.data.with_parts(private=fewer), court.judge)
