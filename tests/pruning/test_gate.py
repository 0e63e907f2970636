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


@pytest.mark.parametrize("values", [[0.5, 0.0, 2.0, 1.0], [0.25]], ids=["channels", "block"])
def test_a_gate_multiplies_and_folding_it_changes_nothing(values: list[float], net: nn.Module) -> None:
    x, mask = torch.rand(2, 3, 6, 6), torch.tensor(values)
    plain = net(x)
    gate.attach(last(net), nn.Parameter(mask))
    gated = net(x)
    assert torch.equal(gated, plain * mask.view(1, -1, 1, 1))
    gate.fold(net)
    assert not last(net)._forward_hooks
    assert torch.allclose(net(x), gated, atol=1e-6)


def test_detaching_takes_gates_and_no_other_hook(net: nn.Module) -> None:
    x = torch.rand(2, 3, 6, 6)
    plain = net(x)
    seen: list[Tensor] = []
    last(net).register_forward_hook(lambda module, inputs, output: seen.append(output))
    gate.attach(last(net), nn.Parameter(torch.zeros(4)))
    gate.detach(net)
    assert torch.equal(net(x), plain)
    assert len(seen) == 1


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
