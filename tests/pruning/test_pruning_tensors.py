# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import nn

from sfumato.pruning.footprint import Footprint
from sfumato.pruning.tensors import resize, tensor_costs
from sfumato.split import Split, cost


def test_tokens_and_transposed_convolutions_are_counted_as_they_are_applied() -> None:
    head = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ConvTranspose2d(4, 6, 3, stride=2), nn.Flatten(2), nn.Linear(49, 5), nn.Dropout()
    )
    x = torch.rand(2, 3, 7, 7)
    costs = dict((key, value) for key, _, value in tensor_costs(Split(head, nn.Flatten()), x))
    assert costs["head.0.weight"] == Footprint(108, 432, 108 * 9)
    assert costs["head.1.weight"] == Footprint(216, 864, 216 * 9)
    assert costs["head.3.weight"] == Footprint(245, 980, 245 * 6)
    assert costs["head.3.bias"] == Footprint(5, 20, 0)
    assert sum(value.macs for value in costs.values()) == cost(head, x[:1]).macs
    assert head.training


def test_a_layer_that_is_called_twice_is_held_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    costs = dict((key, value) for key, _, value in tensor_costs(Split(Twice(), nn.Flatten()), torch.rand(1, 3, 4, 4)))
    assert costs["head.layer.weight"] == Footprint(9, 36, 9 * 16 * 2)


def test_resizing_keeps_what_has_its_size_and_whether_it_learns() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 2))
    model[0].weight.requires_grad_(False)
    last = model[3].weight
    small = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(32, 2))
    resize(model, small.state_dict())
    assert model[3].weight is last
    assert not model[0].weight.requires_grad
    assert model[1].weight.requires_grad
    assert (model[0].out_channels, model[1].num_features) == (5, 5)
    model.load_state_dict(small.state_dict())
