# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import sfumato as sf
from memorized import TRAIN, gap, losses, trained, undefended
from sfumato.defenses.relaxloss import RelaxLoss
from sfumato.errors import ConfigError
from sfumato.types import Step
from steps import step_of

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.4, 0.2], [-1.0, 3.0, 0.0], [1.0, -0.5, 1.2]])
LABELS = torch.tensor([0, 0, 1, 2])  # the second is named wrong


def batch(split: sf.Split, logits: torch.Tensor, epoch: int) -> Step:
    return dataclasses.replace(step_of(split, sf.Compose()), logits=logits, y=LABELS, epoch=epoch)


def literal(logits: np.ndarray, y: np.ndarray, *, alpha: float, upper: float, epoch: int) -> tuple[float, np.ndarray]:
    """chen2022relaxloss, Algorithm 1: the loss of a batch, and its gradient with respect to the logits."""
    count, classes = logits.shape
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    one_hot = np.eye(classes)[y]
    each = np.array([-math.log(p[i, y[i]]) for i in range(count)])
    down = (p - one_hot) / count
    if epoch % 2 == 0:
        return abs(each.mean() - alpha), down if each.mean() > alpha else -down
    if each.mean() > alpha:
        return each.mean(), down
    loss, gradient = 0.0, np.zeros_like(logits)
    for i in range(count):
        label = min(p[i, y[i]], upper)
        t = np.full(classes, (1 - label) / (classes - 1))
        t[y[i]] = label
        wrong = float(p[i].argmax() != y[i])
        loss += (wrong * -(t * np.log(p[i])).sum() - each[i]) / count
        gradient[i] = (wrong * (p[i] - t) - (p[i] - one_hot[i])) / count
    return loss, gradient


@pytest.mark.parametrize("epoch", [0, 1, 6, 7])
@pytest.mark.parametrize("alpha", [0.2, 2.0])  # the loss of the batch is between
@pytest.mark.parametrize("upper", [1.0, 0.25])
def test_the_loss_and_its_gradient_are_those_of_the_algorithm(
    epoch: int, alpha: float, upper: float, small_split: sf.Split
) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = RelaxLoss(alpha=alpha, upper=upper).criterion(batch(small_split, logits, epoch))
    loss.backward()
    expected, gradient = literal(LOGITS.double().numpy(), LABELS.numpy(), alpha=alpha, upper=upper, epoch=epoch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad is not None
    assert np.allclose(logits.grad.numpy(), gradient, atol=1e-6)


def test_flattening_spreads_what_the_label_leaves_and_no_more(small_split: sf.Split) -> None:
    """The gradient of the flattening term leaves the posterior of the label alone: t has the same."""
    logits = LOGITS.clone().requires_grad_()
    RelaxLoss(alpha=2.0).criterion(batch(small_split, logits, 1)).backward()
    assert logits.grad is not None
    p = LOGITS.softmax(1)
    ascent = (torch.nn.functional.one_hot(LABELS, 3) - p) / 4
    assert torch.allclose(logits.grad[[0, 2, 3]], ascent[[0, 2, 3]], atol=1e-6)
    assert (logits.grad - ascent)[1, 0].abs() < 1e-6
    assert (logits.grad - ascent)[1].abs().max() > 5e-3


def test_members_keep_the_loss_that_was_asked_for_and_the_gap_shrinks() -> None:
    # after an odd number of epochs the last one was even, and held the level
    relaxed = trained(RelaxLoss(alpha=0.8), train=dataclasses.replace(TRAIN, epochs=61))
    assert losses(relaxed)[0].mean().item() == pytest.approx(0.8, abs=0.1)
    assert gap(relaxed) < 0.5 * gap(undefended())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -0.1}, "alpha must be >= 0 and finite"),
        ({"alpha": math.nan}, "alpha must be >= 0 and finite"),
        ({"upper": 0.0}, r"upper must be in \(0, 1\]"),
        ({"upper": 1.1}, r"upper must be in \(0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RelaxLoss(**arguments)


def test_a_level_that_guessing_reaches_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match=r"below the loss of a guess among 2 classes, 0\.69, got 0\.7"):
        RelaxLoss(alpha=0.7).prepare(small_split, blobs)
    RelaxLoss(alpha=0.69).prepare(small_split, blobs)


def test_data_with_a_loss_of_its_own_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="relaxloss needs a data set for classification"):
        RelaxLoss(alpha=0.1).prepare(small_split, dataclasses.replace(blobs, task="reidentification"))


def test_a_batch_is_not_a_sum_of_its_pictures() -> None:
    assert not RelaxLoss().separable
