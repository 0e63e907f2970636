# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

import sfumato as sf
from example_reid import street, street_split
from sfumato.defenses.compose import Compose
from sfumato.errors import DataError
from sfumato.metrics.reid import Embedded, rank
from sfumato.modules import eval_mode
from sfumato.target import Target
from sfumato.utility import accuracy, retrieval


def embedded(split: sf.Split, pictures: sf.data.base.Pictures) -> Embedded:
    x = pictures.read(torch.arange(len(pictures))) / 255
    with torch.no_grad(), eval_mode(split):
        z = nn.Sequential(*list(split.tail.children())[:-1])(split.head(x))
    return Embedded(z, pictures.labels, pictures.tags["camera"])


def test_queries_are_searched_for_by_what_the_last_layer_is_given() -> None:
    data, split = street(), street_split()
    found = retrieval(Target(split, Compose()), data, 0)
    expected = rank(embedded(split, data.part("query")), embedded(split, data.part("gallery")))
    assert found["mAP"].value == pytest.approx(expected.precision.mean().item())
    assert [found[f"rank-{k}"].value for k in (1, 5, 10)] == pytest.approx([expected.within(k).mean().item() for k in (1, 5, 10)])
    assert all(one.low <= one.value <= one.high for one in found.values())


def test_a_target_is_measured_as_deployed() -> None:
    data, split = street(), street_split()
    plain, noisy = (retrieval(Target(split, Compose(*some)), data, 0) for some in ([], [sf.Noise(sigma=1000.0)]))
    assert noisy["rank-1"].value < plain["rank-1"].value
    assert noisy["mAP"].value < 0.45
    assert retrieval(Target(split, Compose(sf.Noise(sigma=1000.0))), data, 0) == noisy
    assert retrieval(Target(split, Compose(sf.Noise(sigma=1000.0))), data, 1) != noisy


def test_a_target_is_left_as_it_was_found() -> None:
    target = Target(street_split(), Compose()).train()
    retrieval(target, street(), 0)
    assert all(module.training for module in target.modules())
    assert not any(module._forward_pre_hooks for module in target.modules())


def test_accuracy_is_that_on_the_pictures(small_split: sf.Split, blobs: sf.Data) -> None:
    pictures = blobs.part("test")
    with torch.no_grad(), eval_mode(small_split):
        answers = small_split(pictures.read(torch.arange(len(pictures))) / 255).argmax(1)
    expected = (answers == pictures.labels).float().mean().item()
    assert accuracy(Target(small_split, Compose()), pictures, 0).value == pytest.approx(expected)


def test_queries_that_nobody_can_answer_are_an_error() -> None:
    data = street()
    with pytest.raises(DataError, match="none of 12 queries"):
        retrieval(Target(street_split(), Compose()), data.with_parts(gallery=data.part("query")), 0)
