# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sfumato.pruning import gate


def norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(4)
    for tensor in (layer.running_mean, layer.weight, layer.bias):
        nn.init.normal_(tensor)
    return layer


MODULES = {
    "convolution": lambda: nn.Conv2d(3, 4, 3),
    "without bias": lambda: nn.Conv2d(3, 4, 3, bias=False),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), norm()),
}


@pytest.fixture(params=MODULES)
def net(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODULES[request.param]().eval()


def last(net: nn.Module) -> nn.Module:
    return net[-1] if isinstance(net, nn.Sequential) else net


def hooks(net: nn.Module) -> list[object]:
    return [hook for module in net.modules() for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())]


@pytest.mark.parametrize("values", [[0.5, 0.0, 2.0, 1.0], [0.25]], ids=["channels", "block"])
def test_a_gate_multiplies_and_folding_it_changes_nothing(values: list[float], net: nn.Module) -> None:
    x, mask = torch.rand(2, 3, 6, 6), torch.tensor(values)
    plain = net(x)
    gate.attach(last(net), nn.Parameter(mask))
    gated = net(x)
    assert torch.allclose(gated, plain * mask.view(1, -1, 1, 1), atol=1e-6)
    assert torch.equal(net(x), gated)
    gate.fold(net)
    assert not hooks(net)
    assert torch.allclose(net(x), gated, atol=1e-6)


def test_detaching_takes_gates_and_no_other_hook(net: nn.Module) -> None:
    x = torch.rand(2, 3, 6, 6)
    plain = net(x)
    seen: list[Tensor] = []
    last(net).register_forward_hook(lambda module, inputs, output: seen.append(output))
    gate.attach(last(net), nn.Parameter(torch.zeros(4)))
    gate.detach(net)
    assert torch.equal(net(x), plain)
    assert len(seen) == len(hooks(net)) == 1
    assert not set(last(net)._forward_hooks_always_called) - set(last(net)._forward_hooks)


def test_a_copy_of_net_and_mask_has_a_mask_of_its_own(net: nn.Module) -> None:
    mask, x = nn.Parameter(torch.ones(4)), torch.rand(2, 3, 6, 6)
    gate.attach(last(net), mask)
    twin, other = copy.deepcopy((net, mask))
    other.data.zero_()
    assert twin(x).abs().max() == 0
    assert net(x).abs().max() > 0
    twin(x).sum().backward()
    assert other.grad is not None
    assert mask.grad is None


def test_names_stay_as_they_are(net: nn.Module) -> None:
    before = list(net.state_dict())
    gate.attach(last(net), nn.Parameter(torch.ones(4)))
    assert list(net.state_dict()) == before


def test_the_parameters_stay_what_they_are(net: nn.Module) -> None:
    module = last(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    owned = list(module.parameters())
    gate.attach(module, nn.Parameter(torch.full((4,), 0.5)))
    net(torch.rand(2, 3, 6, 6))
    assert all(one is other for one, other in zip(module.parameters(), owned, strict=True))
    assert module.weight is owned[0]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(RuntimeError):
        net(torch.rand(2, 5, 6, 6))
    assert module.weight is owned[0]


def test_weights_and_mask_learn_as_if_the_outputs_were_multiplied(net: nn.Module) -> None:
    net, x = net.train(), torch.rand(4, 3, 6, 6)
    mask = nn.Parameter(torch.tensor([0.5, 0.0, 2.0, 1.0]))
    pull = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    weights = [mask, *net.parameters()]
    expected = torch.autograd.grad((net(x) * mask.view(1, -1, 1, 1) * pull).sum(), weights)
    gate.attach(last(net), mask)
    found = torch.autograd.grad((net(x) * pull).sum(), weights)
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-3) for a, b in zip(found, expected, strict=True))
