# SPDX-License-Identifier: Apache-2.0
"""The losses of latent searches against literal NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.attacks.weights.objectives import IDENTITY, Identity, cross_entropy, logit, poincare
from sfumato.priors.losses import max_margin

LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, 1, 2])


def slow_poincare(logits: np.ndarray, label: int) -> float:
    u = logits / sum(abs(value) for value in logits)
    v = np.zeros(len(logits))
    v[label] = 1 - 1e-4
    apart = sum((a - b) ** 2 for a, b in zip(u, v, strict=True))
    return float(np.arccosh(1 + 2 * apart / ((1 - sum(u**2)) * (1 - sum(v**2)))))


def slow_margin(logits: np.ndarray, label: int) -> float:
    return float(max(value for place, value in enumerate(logits) if place != label) - logits[label])


def slow_cross_entropy(logits: np.ndarray, label: int) -> float:
    return float(-np.log(np.exp(logits[label]) / sum(np.exp(logits))))


@pytest.mark.parametrize(
    ("loss", "slow"),
    [
        (cross_entropy, slow_cross_entropy),
        (logit, lambda logits, label: -logits[label]),
        (max_margin, slow_margin),
        (poincare, slow_poincare),
    ],
)
def test_losses_of_identity(loss: Identity, slow: object) -> None:
    expected = [slow(row.numpy(), int(label)) for row, label in zip(LOGITS, LABELS, strict=True)]  # type: ignore[operator]
    np.testing.assert_allclose(loss(LOGITS, LABELS).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("row", [[7.0, 0.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.0, 0.0], [1e30, 1e-30, 0.0], [1.0, 1.0, 1.0]])
def test_the_distance_of_poincare_is_finite_everywhere(row: list[float], label: int) -> None:
    logits = torch.tensor([row], requires_grad=True)
    distance = poincare(logits, torch.tensor([label]))
    distance.sum().backward()
    assert bool(distance.isfinite().all())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("name", IDENTITY)
def test_every_identity_loss_falls_toward_its_class(name: str) -> None:
    nearer = LOGITS.clone()
    nearer[torch.arange(5), LABELS] = 6.0
    assert bool((IDENTITY[name](nearer, LABELS) < IDENTITY[name](LOGITS, LABELS)).all())
