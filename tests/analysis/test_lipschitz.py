# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from nets import small_net
from sfumato.analysis.lipschitz import chain, local_constants

SHAPE = (3, 16, 16)


def stages() -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [
            nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Conv2d(5, 4, 3, stride=2), nn.Tanh()),
            nn.Sequential(nn.Flatten(), nn.Linear(196, 6)),
        ]
        blocks[0][1].running_mean.normal_()
        return [block.eval() for block in blocks]


def stream(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_ratios(blocks: list[nn.Module], x: Tensor) -> np.ndarray:
    """Eq. 4 and 5 for each block and picture, in double precision, a picture at a time."""
    noise = torch.randn(x.shape, generator=stream())
    doubles = [copy.deepcopy(block).double() for block in blocks]
    ratios = np.zeros((len(blocks), len(x)))
    for i in range(len(blocks)):
        for n in range(len(x)):
            clean, moved = x[n : n + 1].double(), (x[n : n + 1] + noise[n : n + 1]).double()
            for block in doubles[:i]:
                clean, moved = block(clean), block(moved)
            below = np.abs((moved - clean).detach().numpy()).sum()
            ratios[i, n] = np.abs((doubles[i](moved) - doubles[i](clean)).detach().numpy()).sum() / below
    return ratios


@pytest.mark.parametrize("supremum", ["max", "mean"])
def test_the_constants_are_those_of_equations_4_and_5(supremum: str) -> None:
    blocks, x = stages(), torch.rand(6, *SHAPE, generator=stream(1))
    found = local_constants(blocks, x, generator=stream(), supremum=supremum)
    assert found.tolist() == pytest.approx(getattr(slow_ratios(blocks, x), supremum)(1), rel=1e-5)


def test_the_gradient_of_the_largest_is_that_of_the_whole_batch() -> None:
    blocks, x = stages(), torch.rand(6, *SHAPE, generator=stream(1))
    weights = [parameter for block in blocks for parameter in block.parameters()]
    found = torch.autograd.grad((local_constants(blocks, x, generator=stream()) * torch.tensor([1.0, 2.0, 3.0])).sum(), weights)

    noise = torch.randn(x.shape, generator=stream())
    whole = x.new_zeros(())
    for i, factor in enumerate((1.0, 2.0, 3.0)):
        clean, moved = x, x + noise
        for block in blocks[:i]:
            clean, moved = block(clean), block(moved)
        below = (moved - clean).abs().flatten(1).sum(1)
        whole = whole + factor * ((blocks[i](moved) - blocks[i](clean)).abs().flatten(1).sum(1) / below).max()
    expected = torch.autograd.grad(whole, weights)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_a_linear_block_has_the_constant_that_it_has() -> None:
    """A scaled permutation stretches every difference alike."""
    mix = nn.Linear(12, 12)
    mix.weight.data = 2.5 * torch.eye(12)[torch.randperm(12, generator=stream())]
    halve = nn.Linear(12, 12, bias=False)
    halve.weight.data = -0.5 * torch.eye(12)
    blocks = [nn.Flatten(), mix, halve]
    found = local_constants(blocks, torch.rand(4, 3, 2, 2), generator=stream())
    assert found.tolist() == pytest.approx([1.0, 2.5, 0.5], rel=1e-5)


def test_a_block_that_says_nothing_has_the_constant_0_and_a_finite_gradient() -> None:
    silent = nn.Linear(12, 4)
    nn.init.zeros_(silent.weight)
    found = local_constants([nn.Flatten(), silent, nn.Linear(4, 2)], torch.rand(3, 3, 2, 2), generator=stream())
    assert found[1:].tolist() == [0, 0]
    found.sum().backward()
    assert bool(silent.weight.grad.isfinite().all())


def test_nothing_runs_through_the_statistics_of_a_batch_norm() -> None:
    blocks = stages()
    before = {name: value.clone() for name, value in nn.ModuleList(blocks).state_dict().items()}
    local_constants(blocks, torch.rand(6, *SHAPE), generator=stream()).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in nn.ModuleList(blocks).state_dict().items())


class Functional(nn.Module):
    """Stages as users write them: activations are functions, and one module is called in every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.two = (nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        for stage in (self.one, self.two):
            for layer in stage:
                out = layer(x)
                out += x
                x = F.relu(self.act(out))
        return x


def zoo(name: str, at: str) -> Callable[[], nn.Module]:
    options = {} if name == "lenet5" else {"width": 0.125}
    return lambda: sf.split(sf.build_model(name, classes=3, shape=SHAPE, options=options), at=at).head


def wrapped() -> nn.Module:
    return nn.Sequential(zoo("resnet18", "layer3")(), nn.Conv2d(32, 8, 3), nn.Sigmoid())


HEADS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (zoo("resnet18", "layer4"), 4),
    "resnet18 inside a stage": (zoo("resnet18", "layer3.0"), 3),
    "resnet18 stem": (zoo("resnet18", "stem"), 1),
    "resnet18 not traced": (lambda: sf.build_model("resnet18", classes=3, shape=SHAPE, options={"width": 0.125})[:5], 3),
    "resnet18 with a bottleneck": (wrapped, 3),
    "resnet20": (zoo("resnet20", "layer3"), 3),
    "vgg11": (zoo("vgg11", "c5"), 5),
    "lenet5": (zoo("lenet5", "c2"), 2),
    "mobilenet_v2": (zoo("mobilenet_v2", "blocks.4"), 1),
    "one convolution": (lambda: nn.Conv2d(3, 4, 3), 1),
    "two convolutions": (lambda: sf.split(small_net(), at="3").head, 2),
    "no convolution": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), 1),
    "functional": (Functional, 2),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_divides_into_blocks_that_are_the_head(name: str) -> None:
    make, count = HEADS[name]
    head = make().eval()
    x = torch.rand(2, 1 if name == "two convolutions" else 3, *SHAPE[1:])
    blocks = chain(head)
    z = x
    for block in blocks:
        z = block(z)
    assert len(blocks) == count
    assert torch.equal(z, head(x))
    own = {id(parameter) for parameter in head.parameters()}
    assert {id(parameter) for block in blocks for parameter in block.parameters()} == own


def test_the_blocks_of_a_residual_head_are_its_stages() -> None:
    blocks = chain(zoo("resnet18", "layer4")())
    names = [{name.split(".")[0] for name, _ in block.named_parameters()} for block in blocks]
    assert names == [{"stem", "layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
