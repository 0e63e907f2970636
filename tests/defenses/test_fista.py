# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from sfumato.defenses.fista import Fista, shrink

vectors = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=6)
weights = st.floats(0, 2)


def solved(smooth: object, gradient: object, start: np.ndarray, l1: float, l2: float) -> np.ndarray:
    """The minimum over m >= 0 of a smooth function and l1 |m|_1 + l2 |m|_2, by a general solver from two starts.

    At 0 the l2 norm has no gradient: 0 itself is compared with what the solver finds.
    """

    def whole(m: np.ndarray) -> float:
        return smooth(m) + l1 * m.sum() + l2 * np.linalg.norm(m)  # type: ignore[operator]

    def slope(m: np.ndarray) -> np.ndarray:
        return gradient(m) + l1 + l2 * m / max(np.linalg.norm(m), 1e-30)  # type: ignore[operator]

    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-18, "gtol": 1e-12}
    starts = [np.maximum(start, 0.1), np.full_like(start, 1.0)]
    bounds = [(0, None)] * len(start)
    found = [minimize(whole, one, jac=slope, bounds=bounds, method="L-BFGS-B", options=options).x for one in starts]
    return min([*found, np.zeros_like(start)], key=whole)


@given(v=vectors, step=st.floats(0.05, 2), l1=weights, l2=weights)
@settings(deadline=None, max_examples=150)
def test_the_closed_form_is_what_a_convex_solver_finds(v: list[float], step: float, l1: float, l2: float) -> None:
    near = np.array(v, dtype=np.float64)
    expected = solved(lambda m: 0.5 * ((m - near) ** 2).sum(), lambda m: m - near, near, step * l1, step * l2)
    found = shrink(torch.tensor(near), step=step, l1=l1, l2=l2).numpy()

    def whole(m: np.ndarray) -> float:
        return 0.5 * ((m - near) ** 2).sum() + step * (l1 * m.sum() + l2 * np.linalg.norm(m))

    assert (found >= 0).all()
    assert whole(found) <= whole(expected) + 1e-10
    assert np.allclose(found, expected, atol=2e-5)


def test_a_step_is_that_of_the_paper() -> None:
    """Momentum, proximal point and the next place, in plain Python."""
    rng = np.random.default_rng(0)
    start, gradients = rng.random(5), rng.normal(size=(6, 5))
    fista = Fista(torch.tensor(start), rate=0.3, l1=0.2, l2=0.4)
    y, m, t = start, start, 1.0
    place = torch.tensor(start)
    for gradient in gradients:
        place = fista.step(place, torch.tensor(gradient))
        soft = [max(0.0, a - 0.3 * g - 0.3 * 0.2) for a, g in zip(y, gradient, strict=True)]
        norm = math.sqrt(sum(value**2 for value in soft))
        fresh = np.array([value * max(0.0, 1 - 0.3 * 0.4 / norm) if norm else 0.0 for value in soft])
        following = (1 + math.sqrt(1 + 4 * t**2)) / 2
        y = np.maximum(0, fresh + (t - 1) / following * (fresh - m))
        m, t = fresh, following
        assert np.allclose(fista.m.numpy(), m, atol=1e-12)
        assert np.allclose(place.numpy(), y, atol=1e-12)


def test_the_momentum_is_that_of_the_projected_points() -> None:
    gradient = torch.tensor([-1.0, 0.5, 0.0])
    fista = Fista(torch.ones(3), rate=0.1, l1=0.5, l2=0.0, project=lambda m: m / m.mean())
    place = fista.step(torch.ones(3), gradient)
    first = torch.tensor([1.05, 0.9, 0.95]) / (2.9 / 3)
    assert torch.allclose(place, first)
    place = fista.step(place, gradient)
    second = first - 0.1 * gradient - 0.05
    second = second / second.mean()
    t = (1 + math.sqrt(5)) / 2
    assert torch.allclose(fista.m, second)
    assert torch.allclose(place, second + (t - 1) / ((1 + math.sqrt(1 + 4 * t**2)) / 2) * (second - first))


@pytest.mark.parametrize("seed", range(3))
def test_it_gets_to_the_optimum_faster_than_without_momentum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(30, 20))
    mix[:, 10:] *= 0.2  # badly conditioned: momentum pays
    curvature = mix.T @ mix + 0.01 * np.eye(20)
    pull = rng.normal(size=20) * 5
    l1, l2 = 0.3, 0.5

    def smooth(m: np.ndarray) -> float:
        return float(0.5 * m @ curvature @ m - pull @ m)

    def whole(m: np.ndarray) -> float:
        return smooth(m) + l1 * np.abs(m).sum() + l2 * float(np.linalg.norm(m))

    optimum = solved(smooth, lambda m: curvature @ m - pull, np.ones(20), l1, l2)
    rate = 1 / np.linalg.eigvalsh(curvature)[-1]
    start = torch.ones(20, dtype=torch.float64)
    hessian, slope = torch.tensor(curvature), torch.tensor(pull)
    fista, quick, plain = Fista(start, rate=rate, l1=l1, l2=l2), start, start
    steps: dict[str, int] = {}
    for number in range(1, 3000):
        quick = fista.step(quick, hessian @ quick - slope)
        plain = shrink(plain - rate * (hessian @ plain - slope), step=rate, l1=l1, l2=l2)
        for name, m in (("fista", fista.m), ("plain", plain)):
            if whole(m.numpy()) - whole(optimum) < 1e-6:
                steps.setdefault(name, number)
    assert "fista" in steps
    assert steps["fista"] < 0.8 * steps.get("plain", 3000)
    assert np.allclose(fista.m.numpy(), optimum, atol=1e-3)
    assert (optimum == 0).any()
