# SPDX-License-Identifier: Apache-2.0
"""Traces of attacks on weights: shares of layers as they are measured, and the confidence of hits and misses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato import fisher_samples
from sfumato.analysis.fisher import classification_fisher, inversion_fisher
from sfumato.data.base import Data
from sfumato.data.partition import partition
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.inversion_exhibits import JudgedPictures
from sfumato.inversion_types import ClassPictures
from sfumato.seeds import generator
from sfumato.split import whole
from sfumato.studies import rebuilt
from sfumato.studies.subject import Subject, Trace
from sfumato.studies.trace import read_trace, record
from sfumato.target import Target

CLASSES = torch.tensor([0, 1])
ALL = ("fisher/task", "fisher/gmi", "fisher/gmi/l1", "fisher/gmi/perceptual")


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 2))


def judged(name: str = "gmi", *, reached: tuple[bool, bool] = (True, True), seed: int = 0) -> JudgedPictures:
    """Two pictures of each of two classes: two right with 0.95 and 0.55, two wrong with 0.97 and 0.13."""
    made = ClassPictures(torch.rand(2, 2, 1, 8, 8, generator=generator(seed, name)), torch.tensor(reached))
    confidence, right = torch.tensor([[0.95, 0.97], [0.55, 0.13]]), torch.tensor([[True, False], [True, False]])
    return JudgedPictures(name, 0, made, confidence, right)


@pytest.fixture
def data(blobs: Data) -> Data:
    return partition(blobs)


def subject(data: Data, *made: JudgedPictures) -> Subject:
    pictures = {one.attack: one for one in made}
    return Subject(Target(whole(net()), Compose()), data, [], None, 0, CLASSES if made else None, pictures)


def test_layers_have_their_shares_and_those_without_any_are_left_out(data: Data) -> None:
    taken = record(ALL, subject(data, judged()))
    x_hat, labels, private = judged().pictures.x_hat.flatten(0, 1), CLASSES.repeat_interleave(2), data.part("private")
    naming = classification_fisher(net(), data.part("test"))
    assert taken["fisher/task"].y == pytest.approx([100 * share.value for share in naming.shares])
    assert (taken["fisher/task"].x, taken["fisher/task"].labels) == ((1.0, 2.0, 3.0), ("0", "3", "5"))
    for name, distance, layers in (
        ("fisher/gmi", "l2", 2),
        ("fisher/gmi/l1", "l1", 2),
        ("fisher/gmi/perceptual", "perceptual", 1),
    ):
        found = inversion_fisher(net(), x_hat, labels, private, distance=distance)  # type: ignore[arg-type]
        trace = taken[name]
        assert trace.y == pytest.approx([100 * share.value for share in found.shares][:layers], rel=1e-3)
        assert (trace.x, trace.labels) == ((1.0, 2.0)[:layers], ("0", "3")[:layers])
    assert taken["fisher/gmi"].low[0] <= taken["fisher/gmi"].y[0] <= taken["fisher/gmi"].high[0]
    assert taken["fisher/gmi"] != taken["fisher/gmi/l1"]


def test_classes_that_were_not_reached_show_nothing_of_the_target(data: Data) -> None:
    one = record(["fisher/gmi"], subject(data, judged(reached=(False, True))))["fisher/gmi"]
    x_hat = judged().pictures.x_hat[1]
    alone = inversion_fisher(net(), x_hat, torch.tensor([1, 1]), data.part("private"))
    assert one.y == pytest.approx([100 * share.value for share in alone.shares[:2]])
    assert record(["fisher/gmi"], subject(data, judged(reached=(False, False)))) == {}


def test_of_many_pictures_some_are_measured(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(model: nn.Module, pictures: object, **rest: object) -> object:
        seen.append(len(pictures))  # type: ignore[arg-type]
        return classification_fisher(model, pictures, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rebuilt, "classification_fisher", counted)
    monkeypatch.setattr(fisher_samples, "SAMPLES", 3)
    record(["fisher/task"], subject(data))
    assert seen == [3]


def test_hits_and_misses_each_have_their_confidence(data: Data) -> None:
    taken = record(["gmi/likelihood/hits", "gmi/likelihood/misses"], subject(data, judged()))
    assert taken["gmi/likelihood/hits"] == Trace(x=(0.55, 0.95), y=(50.0, 50.0))
    assert taken["gmi/likelihood/misses"] == Trace(x=(0.15, 0.95), y=(50.0, 50.0))
    lost = record(["gmi/likelihood/hits", "gmi/likelihood/misses"], subject(data, judged(reached=(True, False))))
    assert lost["gmi/likelihood/hits"] == Trace(x=(0.95,), y=(100.0,))
    assert sum(lost["gmi/likelihood/misses"].y) == pytest.approx(100)
    assert lost["gmi/likelihood/misses"].x == (0.15, 0.55, 0.95)


def test_each_label_is_an_attack_of_its_own(data: Data) -> None:
    both = subject(data, judged("kedmi-30", seed=1), judged("kedmi-300", seed=2))
    taken = record(["fisher/kedmi-30", "fisher/kedmi-300", "fisher/kedmi", "kedmi/likelihood/hits"], both)
    assert set(taken) == {"fisher/kedmi-30", "fisher/kedmi-300"}
    assert taken["fisher/kedmi-30"].y != taken["fisher/kedmi-300"].y
    for text in ("fisher/kedmi", "fisher/kedmi/l1", "kedmi/likelihood/misses"):
        kind = read_trace(text)
        assert (kind.of("kedmi"), kind.of("kedmi-30"), kind.attack) == (True, False, "kedmi")


def test_nothing_of_weights_is_no_trace(data: Data) -> None:
    assert record([*ALL[1:], "gmi/likelihood/hits"], subject(data)) == {}


@pytest.mark.parametrize("text", ["fisher", "fisher/", "fisher/gmi/l2", "fisher/a/b", "gmi/likelihood", "gmi/likelihood/miss"])
def test_a_trace_of_weights_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"fisher/task, fisher/ATTACK, .*ATTACK/likelihood/misses, .*, found"):
        read_trace(text)
