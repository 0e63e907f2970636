# SPDX-License-Identifier: Apache-2.0
"""Masking channels and removing them is the same, in every net of the zoo and in nets of users."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from sfumato.data.base import Data
from sfumato.errors import ConfigError, ModelError
from sfumato.pruning import channels, gate
from sfumato.pruning.footprint import Footprint
from sfumato.pruning.tensors import resize
from sfumato.split import Split, cost

SHAPE = (3, 16, 16)


def block(inputs: int, outputs: int, **given: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **given)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def tail(features: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * features, 3))


class Concatenation(nn.Module):
    """A convolution takes two units at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 6), block(6, 4), block(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.c(torch.cat([a, self.b(a)], 1))


class Shared(nn.Module):
    """Each branch takes the channels that it adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return F.relu(x + self.norm(self.conv(x)))


class PreActivation(nn.Module):
    """Batch norms lie after the additions: a channel of 0 does not stay 0, once they are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.widen, self.second, self.narrow = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, padding=1)
        self.last = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.narrow(F.relu(self.second(self.widen(F.relu(self.first(x))))))
        return F.relu(self.last(x))


class Written(nn.Module):
    """A size is written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = block(3, 6), block(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(-1, 6, SHAPE[1], SHAPE[2]))


def zoo(name: str, at: str, width: float | None) -> Callable[[], Split]:
    options = {} if width is None else {"width": width}
    return lambda: sf.split(sf.build_model(name, classes=3, shape=SHAPE, options=options), at=at)


def bottlenecked() -> Split:
    halves = zoo("vgg11", "c3", 0.125)()
    sf.Bottleneck(channels=4).prepare(halves, sf.load_data((torch.rand(6, *SHAPE), torch.arange(6) % 3)))
    return halves


def frozen() -> Split:
    return Split(nn.Sequential(block(3, 6), block(6, 5)).requires_grad_(False), tail(5))


# With each the number of units in the head.
NETS: dict[str, tuple[Callable[[], Split], int]] = {
    "lenet5 c1": (zoo("lenet5", "c1", None), 1),
    "lenet5 c2": (zoo("lenet5", "c2", None), 2),
    "vgg11 c2": (zoo("vgg11", "c2", 0.125), 2),
    "vgg11 c8": (zoo("vgg11", "c8", 0.125), 8),
    "vgg16 c7": (zoo("vgg16", "c7", 0.125), 7),
    "resnet18 stem": (zoo("resnet18", "stem", 0.125), 1),
    "resnet18 inside a stage": (zoo("resnet18", "layer2.0", 0.125), 5),
    "resnet18 layer4": (zoo("resnet18", "layer4", 0.125), 12),
    # Padded shortcuts leave the streams whole.
    "resnet20 inside a stage": (zoo("resnet20", "layer1.1", 0.5), 2),
    "resnet20 layer3": (zoo("resnet20", "layer3", 0.5), 9),
    "mobilenet_v2 inside a stage": (zoo("mobilenet_v2", "blocks.9", 0.25), 12),
    "mobilenet_v2 last": (zoo("mobilenet_v2", "last", 0.25), 23),
    "behind a bottleneck": (bottlenecked, 3),
    "halves of a user": (lambda: Split(nn.Sequential(block(3, 6), block(6, 5)), tail(5)), 2),
    "a head that is one convolution": (lambda: Split(nn.Conv2d(3, 6, 3), tail(6)), 1),
    "concatenation": (lambda: Split(Concatenation(), tail(8)), 3),
    "shared channels": (lambda: Split(Shared(), tail(6)), 1),
    "pre-activation": (lambda: Split(PreActivation(), tail(6)), 1),
    "groups": (lambda: Split(nn.Sequential(block(3, 8), block(8, 8, groups=2), block(8, 6)), tail(6)), 1),
    "a linear layer in the head": (
        lambda: Split(nn.Sequential(block(3, 4), nn.Flatten(), nn.Linear(1024, 5)), nn.Linear(5, 3)),
        1,
    ),
    "frozen": (frozen, 2),
    "a size in the code": (lambda: Split(Written(), tail(4)), 1),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> Split:
    """A net whose batch norms look trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trained(NETS[request.param][0]())


def trained(model: Split) -> Split:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                tensor.data.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def footprint(model: Split, x: Tensor) -> Footprint:
    """What the head costs, measured; the bytes are those of its state dict."""
    measured = cost(model.head, x[:1])
    memory = sum(tensor.nbytes for tensor in model.head.state_dict().values())
    return Footprint(measured.parameters, memory, measured.macs)


def close(found: Footprint, expected: Footprint) -> bool:
    return tuple(vars(found).values()) == pytest.approx(tuple(vars(expected).values()))


def test_removing_what_is_masked_changes_no_output_and_costs_what_the_plan_says(net: Split) -> None:
    stream = torch.Generator().manual_seed(1)
    x = torch.rand(3, *SHAPE, generator=stream)
    units = channels.find(net, x)
    plan = channels.plan(net, units, x, least=0.0)
    assert close(plan.footprint(plan.sizes), footprint(net, x))

    masks = [nn.Parameter((torch.rand(unit.size, generator=stream) - 0.5).clamp_min(0)) for unit in units]
    for unit, mask in zip(units, masks, strict=True):
        mask.data[int(mask.argmax())] = 0.7  # one stays
        for name in unit.gated:
            gate.attach(net.get_submodule(name), mask)
    masked, weights = net(x), net.state_dict()
    gate.fold(net)
    channels.remove(net, [net.get_submodule(unit.root) for unit in units], [mask > 0 for mask in masks], x)
    removed = net(x)
    assert (masked - removed).abs().max() <= 1e-5 * masked.abs().max().clamp_min(1)
    assert close(plan.footprint([int((mask > 0).sum()) for mask in masks]), footprint(net, x))
    assert sum(value.numel() for value in net.state_dict().values()) < sum(value.numel() for value in weights.values())


@pytest.mark.parametrize("name", NETS)
def test_every_unit_of_a_head_is_found(name: str) -> None:
    make, count = NETS[name]
    model = make().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    units = channels.find(model, torch.rand(2, *SHAPE))
    assert len(units) == count
    assert all(unit.root.startswith("head") for unit in units)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_added_to_each_other_goes_together() -> None:
    model = zoo("resnet18", "layer2.0", 0.125)()
    units = {unit.root: unit for unit in channels.find(model, torch.rand(2, *SHAPE))}
    stream = units["head.stem.0"]
    assert stream.gated == ("head.stem.1", "head.layer1.0.body.bn2", "head.layer1.1.body.bn2")
    assert units["head.layer1.0.body.conv1"].gated == ("head.layer1.0.body.bn1",)
    across = units["head.layer2.0.body.conv2"]
    assert "tail.layer2.1.body.bn2" in across.gated  # the cut lies inside the stage


def test_a_share_of_each_unit_stays_and_one_channel_at_least() -> None:
    model, x = zoo("vgg11", "c2", 0.125)(), torch.rand(2, *SHAPE)
    units = channels.find(model, x)
    sizes = [unit.size for unit in units]
    assert channels.plan(model, units, x, least=0.0).least == (1, 1)
    assert channels.plan(model, units, x, least=0.3).least == tuple(-(-3 * size // 10) for size in sizes)
    assert channels.plan(model, units, x, least=1.0).least == tuple(sizes)


def test_another_model_takes_the_shapes_and_the_weights_of_a_pruned_one() -> None:
    x = torch.rand(2, *SHAPE)
    for make in (zoo("mobilenet_v2", "blocks.4", 0.25), zoo("resnet18", "layer3", 0.125), zoo("lenet5", "c2", None)):
        pruned, again = trained(make()), make().eval()
        units = channels.find(pruned, x)
        stays = [torch.arange(unit.size) % 2 == 0 for unit in units]
        channels.remove(pruned, [pruned.get_submodule(unit.root) for unit in units], stays, x)
        resize(again, pruned.state_dict())
        again.load_state_dict(pruned.state_dict())
        assert torch.equal(again(x), pruned(x))
        assert {str(module) for module in again.modules()} == {str(module) for module in pruned.modules()}


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Split(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), nn.Linear(5, 3)),
            "a head with convolutions, found none; cut later",
        ),
        (Split(nn.Sequential(nn.Conv2d(3, 6, 3), Bare()), tail(6)), r"it does not know head\.1; leave channel pruning out"),
        (Split(nn.Conv2d(3, 6, 3), nn.Sequential(Bare(), tail(6))), r"it does not know tail\.0; leave channel pruning out"),
        (Split(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sigmoid()), tail(6)), "no channel in the head that can go without a change"),
        (Split(nn.Sequential(nn.ConvTranspose2d(3, 6, 3)), tail(6)), "a head with convolutions, found none"),
    ],
    ids=["no convolution", "unknown in the head", "unknown in the tail", "a sigmoid", "transposed"],
)
def test_a_head_that_cannot_be_pruned_is_refused(model: Split, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        channels.find(model, torch.rand(2, *SHAPE))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(ConfigError, match=r'pip install "sfumato\[prune\]"'):
        channels.find(zoo("vgg11", "c2", 0.125)(), torch.rand(2, *SHAPE))


def test_a_model_that_cannot_be_pruned_is_refused_before_it_is_trained(blobs: Data) -> None:
    steps: list[int] = []
    halves = Split(nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), Bare()), nn.Sequential(nn.Flatten(), nn.Linear(384, 2)))
    with pytest.raises(ModelError, match=r"it does not know head\.1"):
        sf.harden(halves, blobs, defenses=[sf.PATROL()], watch=lambda done, total: steps.append(done))
    assert steps == []
