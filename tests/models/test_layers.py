# SPDX-License-Identifier: Apache-2.0
"""The layers of a model in the order in which they run, however the model is written down or cut."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.models.layers import layers_of, modules_in_order

X = torch.zeros(2, 3, 16, 16)


class Backwards(nn.Module):
    """Declares its layers in the opposite order of their calls, holds a parameter itself, and never calls one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.first = nn.Conv2d(3, 4, 3)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.spare = nn.Linear(1, 1)
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.first(x).flatten(2).transpose(1, 2)[:, :3] + self.shift
        return self.last(self.attention(sequence, sequence, sequence)[0].mean(1))


def names(model: nn.Module) -> list[str]:
    return [layer.name for layer in layers_of(model, X)]


def test_layers_come_in_the_order_of_their_calls_and_uncalled_ones_with_their_owner() -> None:
    found = {layer.name: layer for layer in layers_of(Backwards(), X)}
    ran = [name for name, layer in found.items() if layer.start > -math.inf]
    assert ran == ["first", "attention", "attention.out_proj", "last"]  # the projection is computed with, but never called
    assert found["attention.out_proj"].start == found["attention"].start
    assert found["spare"].start == -math.inf


def test_what_weighs_computes_with_a_matrix_or_a_kernel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    assert [layer.weighs for layer in layers_of(model, X)] == [True, False, False, True]
    assert [len(layer.tensors) for layer in layers_of(model, X)] == [2, 5, 1, 2]


@pytest.mark.parametrize("name", ["resnet20", "vgg16_face", "mobilenet_v2"])
def test_a_cut_changes_no_name(name: str) -> None:
    model = sf.build_model(name, classes=5, shape=(3, 16, 16), options={"width": 0.125})
    whole = names(model)
    found = sf.cuts(model, X[:1])
    assert names(sf.whole(model)) == whole
    assert names(sf.split(model, at=found[len(found) // 2].name)) == whole


def test_a_module_that_is_called_twice_counts_by_its_first_call() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Linear(4, 4), shared)
    found = modules_in_order(model, torch.zeros(1, 4))
    assert [layer.name for layer in found] == ["0", "1"]
    assert found[0].end < found[1].start


def test_modes_and_hooks_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(4, 2))
    model[0].eval()
    layers_of(model, torch.zeros(1, 4))
    assert [module.training for module in model.modules()] == [True, False, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
