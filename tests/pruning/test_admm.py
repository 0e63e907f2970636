# SPDX-License-Identifier: Apache-2.0
"""ADMM against slow NumPy: the projection, what happens on ties, and a whole update of Z, U and rho."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfumato.pruning.admm import Admm, along, closed, hold, largest, open_rows, project, prune
from sfumato.pruning.weights import Group, Place, single
from sfumato.split import Split

Array = NDArray[np.float64]


def net() -> Split:
    return Split(nn.Conv2d(2, 5, 3, bias=False).double(), nn.Linear(7, 4, bias=False).double())


def kept(values: Array, count: int) -> Array:
    """The projection by sorting, the first of equal ones first."""
    order = sorted(range(values.size), key=lambda place: (-abs(values.flat[place]), place))
    out = np.zeros_like(values)
    for place in order[:count]:
        out.flat[place] = values.flat[place]
    return out


def kept_rows(values: list[Array], count: int) -> list[Array]:
    """The projection of rows that several layers share."""
    norms = [sum(float((value[row] ** 2).sum()) for value in values) for row in range(len(values[0]))]
    order = sorted(range(len(norms)), key=lambda row: (-norms[row], row))[:count]
    return [np.stack([value[row] if row in order else 0 * value[row] for row in range(len(value))]) for value in values]


@pytest.mark.parametrize("count", [1, 2, 17, 59, 60])
@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "no ties"])
def test_the_projection_is_that_by_sorting(count: int, levels: int) -> None:
    values = (torch.randint(-levels, levels + 1, (5, 4, 3)) + 0.0).double()
    (found,) = project([values], count, rows=False)
    assert np.array_equal(found.numpy(), kept(values.numpy(), count))


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("equal", [True, False])
def test_the_projection_of_rows_is_that_by_sorting(count: int, equal: bool) -> None:
    values = [torch.randn(5, 2, 3).double(), torch.randn(5, 4).double()]
    if equal:
        values = [torch.ones_like(value) for value in values]
    found = project(values, count, rows=True)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(found, kept_rows([v.numpy() for v in values], count), strict=True))


@pytest.mark.parametrize("count", [1, 5, 10, 99])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_of_equal_weights_exactly_so_many_stay(count: int, value: float) -> None:
    mask = largest(torch.full((10,), value), count)
    assert mask.tolist() == [place < count for place in range(10)]


@pytest.mark.parametrize("growth", [1.0, 1.3])
def test_updates_are_those_of_equations_17_and_19(growth: float) -> None:
    split, counts, rho = net(), [13, 5], 0.2
    groups = single(split)
    weights = [group.weights[0].tensor for group in groups]
    admm = Admm(groups, counts, rho=rho)
    z = [kept(w.detach().numpy(), n) for w, n in zip(weights, counts, strict=True)]
    u = [np.zeros_like(value) for value in z]
    for _ in range(3):
        with torch.no_grad():
            for weight in weights:
                weight.add_(torch.randn_like(weight) / 5)
        w = [weight.detach().numpy().copy() for weight in weights]
        expected = rho / 2 * sum(float(((a - b + c) ** 2).sum()) for a, b, c in zip(w, z, u, strict=True))
        assert admm.penalty().item() == pytest.approx(expected, rel=1e-12)
        found = admm.update(counts, growth=growth)
        before, z = z, [kept(a + c, n) for a, c, n in zip(w, u, counts, strict=True)]
        u = [c + a - b for a, b, c in zip(w, z, u, strict=True)]
        primal = sum(float(((a - b) ** 2).sum()) for a, b in zip(w, z, strict=True))
        dual = sum(float(((a - b) ** 2).sum()) for a, b in zip(z, before, strict=True))
        assert found.primal == pytest.approx((primal / sum(float((a**2).sum()) for a in w)) ** 0.5, rel=1e-12)
        assert found.dual == pytest.approx(rho * dual**0.5, rel=1e-12)
        assert found.rho == pytest.approx(rho)
        # the multiplier rho U is what it was
        rho, u = rho * growth, [value / growth for value in u]
        assert admm.rho == pytest.approx(rho)
        assert all(np.allclose(a[0].numpy(), b, atol=1e-12) for a, b in zip(admm.z, z, strict=True))
        assert all(np.allclose(a[0].numpy(), b, atol=1e-12) for a, b in zip(admm.u, u, strict=True))


def test_the_gradient_of_the_penalty_draws_to_z_minus_u() -> None:
    split = net()
    groups = single(split)
    admm = Admm(groups, [13, 5], rho=0.7)
    admm.u[0][0] += 0.3
    admm.penalty().backward()
    weight = split.head.weight
    assert isinstance(weight, nn.Parameter)
    assert torch.allclose(weight.grad, 0.7 * (weight - admm.z[0][0] + 0.3))


def test_the_least_squares_solution_under_a_count_is_found() -> None:
    """Orthonormal inputs: the best k weights are those of the full solution that are largest."""
    inputs = torch.linalg.qr(torch.randn(40, 12, dtype=torch.float64)).Q
    solution = torch.tensor([5.0, -4.0, 3.0, 0.5, -0.4, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1], dtype=torch.float64)
    layer = nn.Linear(12, 1, bias=False).double()
    groups = single(Split(nn.Identity(), layer))
    admm = Admm(groups, [3], rho=0.5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    for _ in range(40):
        for _ in range(20):
            optimizer.zero_grad()
            (0.5 * (layer(inputs) - inputs @ solution[:, None]).square().sum() + admm.penalty()).backward()
            optimizer.step()
        found = admm.update([3], growth=1.0)
    assert found.primal < 1e-3
    with torch.no_grad():
        prune(groups[0], 3)
    wanted = torch.where(solution.abs() > 2, solution, 0)
    assert torch.allclose(layer.weight[0], wanted, atol=1e-2)


def test_what_is_remembered_comes_back() -> None:
    split = net()
    groups = single(split)
    first, second = (Admm(groups, [13, 5], rho=rho) for rho in (0.1, 5.0))
    with torch.no_grad():
        split.head.weight.mul_(2)  # type: ignore[operator, union-attr]
    first.update([13, 5], growth=1.5)
    second.recall({name: value.clone() for name, value in first.memory().items()})
    assert second.rho == first.rho == pytest.approx(0.15)
    assert torch.equal(first.penalty(), second.penalty())
    assert len(first.memory()) == 5


def rows() -> tuple[Group, nn.Linear, nn.Linear, nn.BatchNorm1d]:
    a, b, norm = nn.Linear(3, 4), nn.Linear(2, 4), nn.BatchNorm1d(4)
    beside = tuple(Place(module, key) for module, key in ((a, "bias"), (b, "bias"), (norm, "weight"), (norm, "bias")))
    return Group("rows", 4, (Place(a, "weight"), Place(b, "weight")), beside, rows=True), a, b, norm


@torch.no_grad()
def test_a_row_goes_with_all_that_lies_beside_it() -> None:
    group, a, b, norm = rows()
    norm.bias.fill_(1)
    a.weight.copy_(torch.tensor([3.0, 0.0, 0.5, 1.0])[:, None].expand(4, 3))
    b.weight.copy_(torch.tensor([0.0, 2.0, 0.5, 0.0])[:, None].expand(4, 2))
    prune(group, 2)
    assert open_rows(group).tolist() == [True, True, False, False]
    for tensor in (a.weight, b.weight):
        assert bool((tensor[2:] == 0).all())
    for tensor in (a.bias, b.bias, norm.weight, norm.bias):
        assert bool((tensor[2:] == 0).all())
        assert bool((tensor[:2] != 0).all())
    assert a.weight[0].tolist() == [3.0] * 3
    # a row that is zero in one layer and not in the other is open, and is not held there
    held = closed(group)
    for place, _ in held:
        place.tensor.add_(1)
    hold(held)
    assert open_rows(group).tolist() == [True, True, False, False]
    assert bool((b.weight[0] == 1).all())
    assert bool((norm.bias[2:] == 0).all())


@torch.no_grad()
def test_pruning_again_changes_nothing() -> None:
    split = net()
    (group, _) = single(split)
    prune(group, 20)
    once = group.weights[0].tensor.clone()
    prune(group, 20)
    assert torch.equal(once, group.weights[0].tensor)
    assert int(once.count_nonzero()) == 20


def test_one_number_for_each_row_is_seen_along_it() -> None:
    flags: Tensor = torch.tensor([True, False])
    assert along(flags, torch.zeros(2, 1, 3)).tolist() == [[[True] * 3], [[False] * 3]]
