# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato import seeds
from sfumato.priors import losses
from sfumato.priors.settings import LOSSES, Loss

TRUE, MADE = np.array([2.0, 0.5, -1.0]), np.array([-3.0, 0.25])


def _logits(*size: int, name: str = "logits") -> torch.Tensor:
    return 3 * torch.randn(*size, generator=seeds.generator(0, name), dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "critic", "generator"),
    [
        ("wgan-gp", MADE.mean() - TRUE.mean(), -MADE.mean()),
        ("hinge", np.mean([0, 0.5, 2]) + np.mean([0, 1.25]), -MADE.mean()),
        ("logistic", np.log1p(np.exp(-TRUE)).mean() + np.log1p(np.exp(MADE)).mean(), np.log1p(np.exp(-MADE)).mean()),
    ],
)
def test_gaps_are_those_of_the_papers(loss: Loss, critic: float, generator: float) -> None:
    true, made = torch.tensor(TRUE), torch.tensor(MADE)
    assert losses.critic_gap(loss, true, made).item() == pytest.approx(critic)
    assert losses.generator_gap(loss, made).item() == pytest.approx(generator)


@pytest.mark.parametrize("loss", LOSSES)
def test_critic_and_generator_want_the_opposite(loss: Loss) -> None:
    true, made = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    losses.critic_gap(loss, true, made).backward()
    assert true.grad is not None
    assert made.grad is not None
    assert (true.grad < 0).all()
    assert (made.grad > 0).all()
    made = torch.zeros(2, requires_grad=True)
    losses.generator_gap(loss, made).backward()
    assert made.grad is not None
    assert (made.grad < 0).all()


def test_the_penalty_at_true_pictures_is_that_of_the_paper() -> None:
    a = torch.tensor(0.3, requires_grad=True, dtype=torch.float64)
    x = torch.rand(4, 2, 3, 3, generator=seeds.generator(0, "x"), dtype=torch.float64).requires_grad_()
    found = losses.slope_penalty((a * x.square() / 2).sum((1, 2, 3)), x)
    wanted = 0.3**2 * (x.detach().numpy() ** 2).sum((1, 2, 3)).mean() / 2
    assert found.item() == pytest.approx(wanted)
    found.backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(2 * wanted / 0.3)


def test_truth_is_the_logsumexp_of_the_classes() -> None:
    true, made = _logits(4, 3), _logits(5, 3, name="made")
    odds = {name: np.log(np.exp(logits.numpy()).sum(1)) for name, logits in (("true", true), ("made", made))}
    sure = 1 / (1 + np.exp(-odds["true"]))
    found = 1 / (1 + np.exp(-odds["made"]))
    wanted = (-np.log(sure).mean() - np.log(1 - found).mean()) / 2
    assert losses.truth_loss(true, made).item() == pytest.approx(wanted)


def test_soft_labels_and_entropy_are_sums_over_classes() -> None:
    logits, labels = _logits(4, 3), _logits(4, 3, name="labels").softmax(1)
    named = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    wanted = np.mean([-(p * np.log(q)).sum() for p, q in zip(labels.numpy(), named, strict=True)])
    assert losses.soft_label_loss(logits, labels).item() == pytest.approx(wanted)
    assert losses.entropy(logits).item() == pytest.approx(-(named * np.log(named)).sum())
    assert losses.entropy(torch.tensor([[200.0, -200.0]])).item() == 0


def test_matching_is_of_means() -> None:
    made, true = _logits(4, 6), _logits(7, 6, name="true")
    wanted = np.mean([abs(made[:, f].mean() - true[:, f].mean()) for f in range(6)])
    assert losses.matching_loss(made, true).item() == pytest.approx(wanted)


def test_the_margin_is_to_the_highest_other_class() -> None:
    logits, y = _logits(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    rows = zip(logits.tolist(), y.tolist(), strict=True)
    wanted = np.mean([max(value for k, value in enumerate(row) if k != label) - row[label] for row, label in rows])
    assert losses.max_margin(logits, y).mean().item() == pytest.approx(wanted)
