# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.analysis.dependence import distance_correlation
from sfumato.errors import DataError


def slow_distance_correlation(a: np.ndarray, b: np.ndarray, squared: bool) -> float:
    """The definition, sum by sum."""

    def centered(samples: np.ndarray) -> list[list[float]]:
        n = len(samples)
        d = [[float(np.sqrt(((p - q) ** 2).sum())) ** (2 if squared else 1) for q in samples] for p in samples]
        row = [sum(d[i]) / n for i in range(n)]
        every = sum(row) / n
        return [[d[i][j] - row[i] - row[j] + every for j in range(n)] for i in range(n)]

    def covariance(p: list[list[float]], q: list[list[float]]) -> float:
        n = len(p)
        return sum(p[i][j] * q[i][j] for i in range(n) for j in range(n)) / n**2

    left, right = centered(a), centered(b)
    return math.sqrt(covariance(left, right) / math.sqrt(covariance(left, left) * covariance(right, right)))


def pairs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    a = torch.rand(9, 2, 3, generator=stream, dtype=dtype)
    return a, a.flatten(1)[:, :4].sin() + 0.5 * torch.rand(9, 4, generator=stream, dtype=dtype)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_distance_correlation_is_its_definition(squared: bool, dtype: torch.dtype, tolerance: float) -> None:
    a, b = pairs(dtype)
    expected = slow_distance_correlation(a.flatten(1).double().numpy(), b.double().numpy(), squared)
    assert 0.1 < expected < 0.99
    assert distance_correlation(a, b, squared).item() == pytest.approx(expected, abs=tolerance)


def test_a_turn_a_shift_and_a_scale_change_nothing() -> None:
    a, b = pairs()
    turn = torch.linalg.qr(torch.rand(4, 4, dtype=torch.float64)).Q
    assert distance_correlation(a, 7 * b @ turn - 100).item() == pytest.approx(distance_correlation(a, b).item(), abs=1e-9)
    assert distance_correlation(b, 7 * b @ turn).item() == pytest.approx(1)


def test_only_plain_distances_see_a_dependence_that_is_not_linear() -> None:
    a = torch.linspace(-1, 1, 41)[:, None]
    assert distance_correlation(a, a.square(), squared=True).item() == pytest.approx(0, abs=1e-3)
    assert distance_correlation(a, a.square()).item() > 0.4


@pytest.mark.parametrize("squared", [False, True])
def test_the_gradient_is_that_of_the_definition_and_finite_where_samples_coincide(squared: bool) -> None:
    a, b = pairs()
    b.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: distance_correlation(a, z, squared), b)
    twins = torch.cat([b.detach(), b.detach()[:2]]).requires_grad_()
    distance_correlation(torch.cat([a, a[:2]]), twins, squared).backward()
    assert twins.grad is not None
    assert twins.grad.isfinite().all()
    assert twins.grad.abs().max() < 10


@pytest.mark.parametrize("squared", [False, True])
def test_features_that_are_all_the_same_depend_on_nothing(squared: bool) -> None:
    z = torch.full((6, 3), 0.3, requires_grad=True)
    found = distance_correlation(torch.rand(6, 5), z, squared)
    found.backward()
    assert found.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_half_precision_is_widened() -> None:
    a, b = pairs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = distance_correlation(a, b.bfloat16())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(distance_correlation(a, b.bfloat16().float()).item(), abs=1e-7)


def test_sets_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="found 3 and 4; pass them in pairs"):
        distance_correlation(torch.rand(3, 2), torch.rand(4, 2))
