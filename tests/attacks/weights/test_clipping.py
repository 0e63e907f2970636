# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.attacks.weights.clipping import PSpace, l1_ball, to_p, to_w
from sfumato.errors import DataError
from style_toys import drawn


def test_p_space_and_back_is_the_same_style() -> None:
    w = drawn(50, 6, seed=0)
    torch.testing.assert_close(to_w(to_p(w)), w)
    torch.testing.assert_close(to_p(to_w(w)), w)
    np.testing.assert_allclose(to_p(w).numpy(), np.where(w < 0, 5 * w, w), rtol=1e-6)


def test_the_box_is_the_mean_and_the_biased_deviation_however_styles_come() -> None:
    w = drawn(101, 6, seed=0) + 3 * torch.arange(6)
    p = np.where(w < 0, 5 * w.double(), w.double())
    for size in (101, 10, 1):
        space = PSpace.of(w.split(size), 1.5)
        np.testing.assert_allclose(space.low, p.mean(0) - 1.5 * p.std(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(space.high, p.mean(0) + 1.5 * p.std(0), rtol=1e-5, atol=1e-5)


def test_clipped_styles_are_in_the_box_and_others_stay() -> None:
    space = PSpace(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.5]), 2.0)
    w = [torch.tensor([[-9.0, 9.0], [-0.3, 2.5], [1.0, -1.0]])]
    space.clip(w)
    torch.testing.assert_close(w[0], torch.tensor([[-0.4, 3.0], [-0.3, 2.5], [1.0, 1.0]]))


def test_a_box_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="found none"):
        PSpace.of([], 1.0)


def slow_projection(x: np.ndarray, radius: float) -> np.ndarray:
    """The soft threshold that brings the norm to the radius, by bisection."""
    if np.abs(x).sum() <= radius:
        return x
    low, high = 0.0, np.abs(x).max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(np.abs(x) - middle, 0).sum() > radius else (low, middle)
    return np.sign(x) * np.maximum(np.abs(x) - high, 0)


@pytest.mark.parametrize("radius", [0.1, 3.0, 20.0, 1e4])
def test_the_projection_is_the_nearest_point_of_the_ball(radius: float) -> None:
    x = drawn(7, 3, 4, 2, seed=0).double() * torch.arange(7).view(7, 1, 1, 1)
    found = l1_ball(x, radius)
    np.testing.assert_allclose(found.numpy(), np.stack([slow_projection(one, radius) for one in x.numpy()]), atol=1e-9)
    norms = found.abs().flatten(1).sum(1)
    assert float(norms.max()) <= radius * (1 + 1e-9)
    outside = x.abs().flatten(1).sum(1) > radius
    torch.testing.assert_close(norms[outside], torch.full_like(norms[outside], radius))


def test_rows_inside_of_the_ball_keep_their_bits() -> None:
    x = drawn(4, 5, seed=0)
    assert torch.equal(l1_ball(x, 1e3), x)
