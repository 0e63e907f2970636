# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.attacks.weights.variational import Family, Flow, Gaussian

B, LAYERS = 3, 2


def streams(count: int = B) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def moved(family: Family, width: int, size: float = 0.3) -> list[Tensor]:
    """Variables away from the start, float64."""
    stream = torch.Generator().manual_seed(9)
    start = family.start(LAYERS, width, streams())
    return [(one + size * torch.randn(one.shape, generator=stream)).double() for one in start]


@pytest.mark.parametrize("family", [Gaussian(), Flow(couplings=3, hidden=5)], ids=["gaussian", "flow"])
def test_it_starts_as_the_prior(family: Family) -> None:
    variables, noise = family.start(LAYERS, 5, streams()), torch.randn(B, 400, LAYERS, 5)
    torch.testing.assert_close(family.divergence(variables, noise), torch.zeros(B))
    z = family.draw(variables, noise)
    torch.testing.assert_close(z.square().sum(-1), noise.square().sum(-1))  # the couplings reverse the entries
    assert [len(one) for one in variables] == [B] * len(variables)


def test_the_gaussian_divergence_is_the_closed_form() -> None:
    width = 4
    mean, free = moved(Gaussian(), width)
    found = Gaussian().divergence([mean, free], torch.zeros(B, 1, LAYERS, width))
    for row in range(B):
        total = 0.0
        for layer in range(LAYERS):
            root = np.tril(free[row, layer].numpy(), -1) / width + np.diag(np.exp(np.diag(free[row, layer].numpy())))
            covariance, m = root @ root.T, mean[row, layer].numpy()
            total += 0.5 * (np.trace(covariance) + m @ m - width - np.log(np.linalg.det(covariance)))
        assert found[row].item() == pytest.approx(total)


def test_gaussian_draws_have_the_mean_and_the_covariance() -> None:
    mean, free = moved(Gaussian(), 3)
    z = Gaussian().draw([mean, free], torch.randn(B, 40_000, LAYERS, 3).double())
    root = free[1, 0].tril(-1) / 3 + free[1, 0].diagonal().exp().diag()
    torch.testing.assert_close(z.mean(1), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(z[1, :, 0].T.cov(), root @ root.T, atol=0.1, rtol=0)


def literal_inverse(variables: list[np.ndarray], z: np.ndarray, couplings: int) -> np.ndarray:
    """Undo the couplings of one class and layer on one latent."""
    given = len(z) // 2
    for number in reversed(range(couplings)):
        first, bias, last, shift = (one[number] for one in variables)
        z = z[::-1]
        a, b = z[:given], z[given:]
        inside = first @ a + bias
        inside = np.where(inside > 0, inside, np.expm1(np.minimum(inside, 0)))
        out = last @ inside + shift
        scale, move = np.split(out, 2)
        z = np.concatenate([a, (b - move) / np.exp(2 * np.tanh(scale / 2))])
    return z


@pytest.mark.parametrize("width", [2, 5, 6])
def test_the_flow_can_be_undone(width: int) -> None:
    flow, noise = Flow(couplings=3, hidden=4), torch.randn(B, 2, LAYERS, width).double()
    variables = moved(flow, width)
    z = flow.draw(variables, noise).numpy()
    for row in range(B):
        for layer in range(LAYERS):
            own = [one[row, layer].numpy() for one in variables]
            for draw in range(2):
                np.testing.assert_allclose(literal_inverse(own, z[row, draw, layer], 3), noise[row, draw, layer], atol=1e-9)


@pytest.mark.parametrize("width", [2, 5, 6])
def test_the_flow_s_volume_is_that_of_its_jacobian(width: int) -> None:
    flow, noise = Flow(couplings=3, hidden=4), torch.randn(B, 1, LAYERS, width).double()
    variables = moved(flow, width)
    found = flow.divergence(variables, noise)
    for row in range(B):
        own, total = [one[row : row + 1] for one in variables], 0.0
        e = noise[row : row + 1]
        z = flow.draw(own, e)
        jacobian = torch.autograd.functional.jacobian(lambda e, own=own: flow.draw(own, e).flatten(), e)
        volume = torch.linalg.slogdet(jacobian.view(LAYERS * width, LAYERS * width)).logabsdet
        total = (z.square().sum() - e.square().sum()).item() / 2 - volume.item()
        assert found[row].item() == pytest.approx(total)


def test_what_the_flow_estimates_is_a_divergence() -> None:
    flow = Flow(couplings=2, hidden=4)
    far = flow.divergence(moved(flow, 4, 1.0), torch.randn(B, 4000, LAYERS, 4).double())
    near = flow.divergence(moved(flow, 4, 0.05), torch.randn(B, 4000, LAYERS, 4).double())
    assert bool((far > near).all())
    assert bool((near > -0.01).all())


@pytest.mark.parametrize("family", [Gaussian(), Flow(couplings=2, hidden=4)], ids=["gaussian", "flow"])
def test_classes_do_not_see_each_other(family: Family) -> None:
    variables, noise = moved(family, 4), torch.randn(B, 3, LAYERS, 4).double()
    for row in range(B):
        own = [one[row : row + 1] for one in variables]
        torch.testing.assert_close(family.draw(own, noise[row : row + 1])[0], family.draw(variables, noise)[row])
        torch.testing.assert_close(family.divergence(own, noise[row : row + 1])[0], family.divergence(variables, noise)[row])
