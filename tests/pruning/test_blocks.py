# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from sfumato.errors import ModelError
from sfumato.pruning import blocks, gate
from sfumato.split import Split, cost

SHAPE = (3, 16, 16)


class Residual(nn.Module):
    """Additions in the ways that users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.a, self.b, self.c = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.inner, self.norm, self.flat = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.Linear(6 * 256, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.add(x, self.a(x))
        x = self.b(x) + x
        out = self.norm(self.c(F.relu(self.inner(x))))
        out += x
        return self.flat(F.relu(out).flatten(1))


def zoo(name: str, at: str, width: float) -> Callable[[], Split]:
    return lambda: sf.split(sf.build_model(name, classes=3, shape=SHAPE, options={"width": width}), at=at)


# With each the roots of its branches.
NETS: dict[str, tuple[Callable[[], Split], list[str]]] = {
    "resnet18 layer2": (
        zoo("resnet18", "layer2", 0.125),
        [f"head.layer{stage}.{place}.body.bn2" for stage in (1, 2) for place in (0, 1)],
    ),
    "resnet20 layer3.0": (zoo("resnet20", "layer3.0", 0.5), [f"head.layer{n // 3 + 1}.{n % 3}.body.bn2" for n in range(7)]),
    # A shortcut is the sum of the block before, with nothing between.
    "mobilenet_v2 blocks.6": (zoo("mobilenet_v2", "blocks.6", 0.5), [f"head.blocks.{n}.body.3" for n in (2, 4, 5)]),
    "a user's": (lambda: sf.split(Residual(), at="relu_1"), ["head.a", "head.b", "head.norm"]),
}


@pytest.fixture(params=NETS)
def made(request: pytest.FixtureRequest) -> tuple[Callable[[], Split], list[str]]:
    return NETS[request.param]


def numbers(model: Split, x: Tensor) -> tuple[float, ...]:
    measured = cost(model.head, x[:1])
    return measured.parameters, sum(tensor.nbytes for tensor in model.head.state_dict().values()), measured.macs


def test_the_branches_of_a_head_are_found(made: tuple[Callable[[], Split], list[str]]) -> None:
    make, expected = made
    assert [branch.root for branch in blocks.find(make())] == expected


@pytest.mark.parametrize("pattern", [0b1010101010, 0b0110110110, 0, -1], ids=["every other", "two of three", "none", "all"])
def test_removing_what_is_masked_changes_no_output_and_costs_what_the_plan_says(
    pattern: int, made: tuple[Callable[[], Split], list[str]]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, again = made[0]().eval(), made[0]().eval()
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    branches = blocks.find(model)
    plan = blocks.plan(model, branches, x)
    assert tuple(vars(plan.footprint(plan.sizes)).values()) == numbers(model, x)
    kept = [pattern >> place & 1 for place in range(len(branches))]
    for branch, stays in zip(branches, kept, strict=True):
        gate.attach(model.get_submodule(branch.root), nn.Parameter(torch.full((1,), 0.7 * stays)))
    masked = model(x)
    gate.fold(model)
    blocks.remove(model, [bool(stays) for stays in kept])
    removed = model(x)
    assert torch.allclose(masked, removed, atol=1e-5)
    assert tuple(vars(plan.footprint(kept)).values()) == numbers(model, x)
    gone = [branch.root for branch, stays in zip(branches, kept, strict=True) if not stays]
    assert not any(name.startswith(root) for root in gone for name in model.state_dict())

    blocks.reshape(again, model.state_dict())
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), removed)


@pytest.mark.parametrize(
    "halves", [Split(nn.Conv2d(3, 4, 3), nn.Flatten()), zoo("vgg11", "c3", 0.125)()], ids=["user's", "vgg11"]
)
def test_a_head_without_residual_blocks_is_refused(halves: Split) -> None:
    with pytest.raises(ModelError, match=r'needs residual blocks in a head that sf\.split made, found none; use unit="channel"'):
        blocks.find(halves)
