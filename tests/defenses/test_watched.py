# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import torch
from torch import nn

from sfumato.defenses.watched import Watched
from sfumato.modules import eval_mode


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_outputs_and_what_the_last_layer_is_given_are_kept_with_gradient() -> None:
    net, x = model(), torch.rand(5, 3)
    watched = Watched(net, {"a": (net[0], False), "b": (net[2], True)})
    net(x)
    assert list(watched.kept) == ["a", "b"]
    assert torch.equal(watched.kept["a"], net[0](x))
    assert torch.equal(watched.kept["b"], watched.kept["a"].relu())
    assert watched.kept["a"].requires_grad


def test_the_first_training_pass_counts_until_it_is_cleared() -> None:
    net, x = model(), torch.rand(5, 3)
    watched = Watched(net, {"a": (net[0], False)})
    with torch.no_grad():
        net(x)
    with eval_mode(net):
        net(x)
    assert not watched.kept
    net(x)
    first = watched.kept["a"]
    net(x + 1)
    assert watched.kept["a"] is first
    watched.clear()
    net(x + 1)
    assert torch.equal(watched.kept["a"], net[0](x + 1))


def test_nothing_stays_when_it_is_removed() -> None:
    net = model()
    watched = Watched(net, {"a": (net[0], False), "b": (net[2], True)})
    net(torch.rand(5, 3))
    watched.remove()
    assert not watched.kept
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_copy_in_the_middle_of_a_step_watches_nothing() -> None:
    net, x = model(), torch.rand(5, 3)
    watched = Watched(net, {"a": (net[0], False)})
    net(x)
    first = watched.kept["a"]
    again, beside = copy.deepcopy((net, watched))
    again(x + 1)
    watched.clear()
    again(x + 1)
    assert beside is None
    assert first.requires_grad
    assert not watched.kept
