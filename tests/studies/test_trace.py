# SPDX-License-Identifier: Apache-2.0
"""What a study records along an axis: histograms against NumPy, curves of attacks whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from example_audits import inference, membership, near
from example_study import small_study
from sfumato.checkpoint import EpochFacts
from sfumato.data.base import Data
from sfumato.data.game import play
from sfumato.data.partition import partition
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.membership_types import Membership, Slice
from sfumato.split import whole
from sfumato.studies.load import read_study
from sfumato.studies.report import save_study, study_html, traced
from sfumato.studies.results import Cell, Results, read_results
from sfumato.studies.subject import Subject, Trace
from sfumato.studies.trace import read_trace, record
from sfumato.target import Target


def linear(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def subject(data: Data, net: nn.Module | None = None, found: Membership | None = None) -> Subject:
    history = [EpochFacts(number, 1.0 / (number + 1), 0.5 + 0.1 * number, 0.1, 1.0) for number in range(3)]
    return Subject(Target(whole(net or linear()), Compose()), data, history, found, seed=0)


@pytest.fixture
def data(blobs: Data) -> Data:
    return play(partition(blobs), members=40)


def test_training_is_recorded_epoch_by_epoch(data: Data) -> None:
    taken = record(["loss", "accuracy"], subject(data))
    assert taken["loss"] == Trace(x=(1.0, 2.0, 3.0), y=(1.0, 0.5, 1 / 3))
    assert taken["accuracy"].y == pytest.approx((50.0, 60.0, 70.0))


def test_weights_are_counted_by_their_size_without_zeros_and_without_biases(data: Data) -> None:
    net = linear()
    values = np.zeros(192)
    values[:150] = 10 ** np.random.default_rng(0).uniform(-5.5, 1.5, 150) * np.where(np.arange(150) % 2, 1, -1)
    values[150:152] = 1e-9, -1e9  # beyond both ends
    net[1].weight.data = torch.from_numpy(values.reshape(3, 64)).float()
    trace = record(["weights"], subject(data, net))["weights"]
    kept = np.clip(np.log10(np.abs(np.float32(values[values != 0])).astype(float)), -5.9999, 1.9999)
    counts, edges = np.histogram(kept, bins=80, range=(-6, 2))
    assert trace.x == pytest.approx(((edges[1:] + edges[:-1]) / 2)[counts > 0])
    assert trace.y == tuple(counts[counts > 0])
    assert sum(trace.y) == 152


def test_confidence_is_that_of_the_true_class_on_each_side(data: Data) -> None:
    net = linear()
    taken = record(["members/confidence", "nonmembers/confidence"], subject(data, net))
    for name, part in (("members/confidence", "private"), ("nonmembers/confidence", "nonmembers")):
        pictures = data.part(part)
        x = pictures.read(torch.arange(len(pictures))).numpy().reshape(len(pictures), 64) / 255.0
        logits = x @ net[1].weight.detach().numpy().T + net[1].bias.detach().numpy()
        p = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[np.arange(len(x)), pictures.labels.numpy()]
        counts = np.histogram(p, bins=10, range=(0, 1))[0]
        assert taken[name].y == pytest.approx(100 * counts[counts > 0] / len(x))
        assert taken[name].x == pytest.approx((np.arange(10) / 10 + 0.05)[counts > 0])
    assert taken["members/confidence"] != taken["nonmembers/confidence"]


def test_data_without_a_game_have_no_non_members_to_show(blobs: Data) -> None:
    assert set(record(["members/confidence", "nonmembers/confidence"], subject(partition(blobs)))) == {"members/confidence"}


def test_an_attack_over_its_epochs_is_in_order_and_no_other_attack() -> None:
    def trained(name: str, epochs: int, share: float, **changes: object) -> object:
        return inference(name, settings={"epochs": epochs}, balanced_accuracy=near(share, 0.02), **changes)

    found = membership(
        trained("nasr-20", 20, 0.62),  # type: ignore[arg-type]
        trained("nasr-5", 5, 0.55),  # type: ignore[arg-type]
        trained("nasr", 50, 0.7),  # type: ignore[arg-type]
        trained("nasr-sorted", 1, 0.9),  # type: ignore[arg-type]
        trained("nasr-5", 5, 0.99, seed=1),  # type: ignore[arg-type]
        trained("nasr-5", 5, 0.98, targets=4),  # type: ignore[arg-type]
        inference("loss"),
    )
    trace = record(["nasr/epochs"], subject(Data("none", ("a", "b"), {}), found=found))["nasr/epochs"]
    assert trace.x == (5.0, 20.0, 50.0)
    assert trace.y == pytest.approx((55.0, 62.0, 70.0))
    assert (trace.low[0], trace.high[0]) == pytest.approx((54.0, 56.0), abs=1.1)


def test_a_point_for_each_class_and_for_no_other_slice() -> None:
    slices = {
        "class 3": Slice(50, 52, 0.2, near(0.8), near(0.7)),
        "class 4": Slice(50, 48, -0.01, near(0.9), near(0.4)),
        "women": Slice(50, 48, 0.5, near(0.9), near(0.8)),
    }
    found = membership(inference("nasr-5"), inference("nasr", slices=slices))
    trace = record(["nasr/classes"], subject(Data("none", ("a", "b"), {}), found=found))["nasr/classes"]
    assert (trace.x, trace.y, trace.labels) == (pytest.approx((20, -1)), pytest.approx((70, 40)), ("class 3", "class 4"))


def test_what_nobody_measured_is_no_trace(data: Data) -> None:
    assert record(["nasr/epochs", "nasr/classes"], subject(data)) == {}
    assert record(["nasr/epochs"], subject(data, found=membership(inference("loss")))) == {}


@pytest.mark.parametrize("text", ["los", "nasr", "/epochs", "nasr/epoch", "members/accuracy", ""])
def test_a_trace_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a trace such as loss, accuracy, weights, .*ATTACK/classes, found"):
        read_trace(text)


def results(*cells: Cell, seeds: tuple[int, ...] = (0,)) -> Results:
    table = small_study().table
    size = {**table["size"]["smoke"], "attacks": [{"name": "nasr"}, {"name": "gap"}]}
    rows = [{key: row[key] for key in row if key != "published"} for row in table["rows"][:2]]
    shown = {"columns": ["accuracy", "nasr/attack_accuracy"], "traces": ["loss", "nasr/classes"], "gain": {}}
    study = read_study({**table, **shown, "rows": rows, "averages": [], "size": {"smoke": size}}, name="traced")
    return Results(study=study, size="smoke", reading="scored", seeds=seeds, cells=cells)


LOSS = Trace(x=(1.0, 2.0), y=(0.5, 0.25))
CLASSES = Trace(x=(1.0, 4.0), y=(51.0, 52.0), low=(49.0, 50.0), high=(53.0, 54.0), labels=("class 0", "class 1"))


def test_the_first_seed_is_drawn_and_the_record_holds_all(tmp_path: Path) -> None:
    both = {"loss": LOSS, "nasr/classes": CLASSES}
    found = results(
        Cell(row="Plain", seed=0, traces=both),
        Cell(row="Noise", seed=0, traces={"loss": LOSS}),
        Cell(row="Plain", seed=1, traces={"loss": Trace(x=(9.0,), y=(9.0,))}),
        seeds=(0, 1),
    )
    drawn = {kind.title: series for kind, series in traced(found)}
    loss, classes = drawn["Loss of training, with the penalties of the defenses"], drawn["nasr: attack accuracy in each class"]
    assert [(one.name, len(one.points), one.joined, one.marked) for one in loss] == [
        ("Plain", 2, True, False),
        ("Noise", 2, True, False),
    ]
    assert [(one.joined, one.marked) for one in classes] == [(False, True)]
    assert (classes[0].points[1].label, classes[0].points[1].y.low) == ("class 1", 50.0)
    page = study_html(found)
    assert page.count("<svg") == 4  # each for wide and for narrow pages
    assert "Of seed 0." in page
    assert ">class 1<" in page
    save_study(found, tmp_path)
    assert read_results(tmp_path / "study.json") == found


def test_a_study_without_traces_has_no_section_of_them() -> None:
    assert "Along an axis" not in study_html(results(Cell(row="Plain", seed=0)))
    assert "Along an axis" in study_html(results(Cell(row="Plain", seed=0, traces={"loss": LOSS})))


def test_points_without_labels_have_no_column_for_them() -> None:
    plain = study_html(results(Cell(row="Plain", seed=0, traces={"loss": LOSS})))
    labeled = study_html(results(Cell(row="Plain", seed=0, traces={"nasr/classes": CLASSES})))
    assert ">Point<" not in plain
    assert ">Point<" in labeled
    bare = replace(CLASSES, labels=())
    assert "; ;" not in study_html(results(Cell(row="Plain", seed=0, traces={"nasr/classes": bare})))
