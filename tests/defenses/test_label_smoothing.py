# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sfumato as sf
from memorized import asked, gap, trained, undefended
from sfumato.defenses.label_smoothing import LabelSmoothing
from sfumato.errors import ConfigError
from sfumato.train import assemble, fit
from sfumato.types import Epoch
from steps import step_of


def literal(logits: np.ndarray, y: np.ndarray, r: float) -> float:
    """wei2022smoothing, Eq. (1), and the cross-entropy with that label."""
    total = 0.0
    for row, label in zip(logits.astype(np.float64), y, strict=True):
        smoothed = np.full(len(row), r / len(row))
        smoothed[label] += 1 - r
        total -= sum(smoothed[c] * (row[c] - math.log(sum(math.exp(value) for value in row))) for c in range(len(row)))
    return total / len(y)


@pytest.mark.parametrize("alpha", [-1.5, -0.2, 0.0, 0.1, 0.9])
def test_the_loss_is_that_of_the_equation(alpha: float, small_split: sf.Split) -> None:
    defense = LabelSmoothing(alpha=alpha)
    step = step_of(small_split, defense)
    logits = step.logits.detach() * 5
    expected = literal(logits.numpy(), step.y.numpy(), alpha)
    assert defense.criterion(dataclasses.replace(step, logits=logits)).item() == pytest.approx(expected, rel=1e-5)


def test_an_alpha_of_zero_trains_as_without_it(small_split: sf.Split, blobs: sf.Data) -> None:
    plain, smoothed = (sf.harden(small_split, blobs, defenses=d, epochs=1) for d in ([], [LabelSmoothing(alpha=0.0)]))
    for name, value in plain.split.state_dict().items():
        assert torch.allclose(value, smoothed.split.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_answers_about_members_are_less_sure_with_one_sign_and_surer_with_the_other() -> None:
    targets = {-0.3: trained(LabelSmoothing(alpha=-0.3)), 0.0: undefended(), 0.3: trained(LabelSmoothing(alpha=0.3))}
    sure = {alpha: asked(target, "private")[0].softmax(1).amax(1).mean() for alpha, target in targets.items()}
    assert sure[-0.3] > sure[0.0] > sure[0.3]
    assert gap(targets[0.3]) < 0.7 * gap(targets[0.0])
    assert gap(targets[-0.3]) > 1.3 * gap(targets[0.0])


def test_the_smoothed_label_is_where_the_loss_is_least(small_split: sf.Split) -> None:
    step = step_of(small_split, sf.Compose())
    smoothed = 0.7 * F.one_hot(step.y, 2) + 0.3 / 2
    logits = smoothed.log().requires_grad_()
    LabelSmoothing(alpha=0.3).criterion(dataclasses.replace(step, logits=logits)).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_it_sees_each_picture_for_itself() -> None:
    assert LabelSmoothing().separable


@pytest.mark.parametrize("alpha", [1.0, 2.0, math.nan, -math.inf])
def test_an_alpha_that_leaves_no_label_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha must be finite and below 1"):
        LabelSmoothing(alpha=alpha)


def test_data_with_a_loss_of_its_own_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="label_smoothing needs a data set for classification .* leave label_smoothing out"):
        LabelSmoothing().prepare(small_split, dataclasses.replace(blobs, task="reidentification"))


@pytest.mark.parametrize(("number", "expected"), [(0, 0), (49, 0), (50, 0.02), (62, 0.26), (74, 0.5), (75, 1), (99, 1)])
def test_the_late_schedule_is_that_of_the_release(number: int, expected: float, small_split: sf.Split) -> None:
    defense, step = LabelSmoothing(-0.4, schedule="late"), step_of(small_split, sf.Compose())
    defense.begin_epoch(Epoch(number=number, total=100, model=small_split, batches=lambda: iter(())))
    found = defense.criterion(step)
    assert found.item() == pytest.approx(LabelSmoothing(-0.4 * expected).criterion(step).item(), rel=1e-5)


@pytest.mark.parametrize("total", [2, 3, 5, 7])
def test_a_short_run_ends_with_all_of_alpha(total: int, small_split: sf.Split) -> None:
    defense, shares = LabelSmoothing(-0.4, schedule="late"), []
    for number in range(total):
        defense.begin_epoch(Epoch(number=number, total=total, model=small_split, batches=lambda: iter(())))
        shares.append(defense._share)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert min(shares) >= 0


def test_a_late_alpha_trains_half_a_run_on_the_labels_as_they_are(small_split: sf.Split, blobs: sf.Data) -> None:
    losses = {}
    for schedule in ("constant", "late"):
        target = assemble(small_split, blobs, [LabelSmoothing(-0.5, schedule=schedule)], seed=0)
        losses[schedule] = [facts.loss for facts in fit(target, blobs, sf.Train(epochs=4), seed=0)]
    zero = assemble(small_split, blobs, [LabelSmoothing(0.0)], seed=0)
    plain = [facts.loss for facts in fit(zero, blobs, sf.Train(epochs=4), seed=0)]
    assert losses["late"][:2] == plain[:2]
    assert losses["late"][2] != plain[2]
    assert losses["constant"][0] != plain[0]


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="schedule must be one of constant, late, got 'early'"):
        LabelSmoothing(schedule="early")
