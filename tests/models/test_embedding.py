# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.errors import ModelError
from sfumato.models.embedding import captured, last_linear


class Shared(nn.Module):
    """The layer that gives the logits is not the last that was registered."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.first = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.flatten(1)))


def test_the_layer_is_found_by_what_it_computes_and_not_by_its_place() -> None:
    model = Shared()
    assert last_linear(model, torch.zeros(2, 1, 2, 2)) is model.last
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("after", [nn.Identity(), nn.Dropout(0.5), nn.Flatten()])
def test_layers_that_change_nothing_may_follow(after: nn.Module) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), after)
    assert last_linear(model, torch.zeros(2, 1, 2, 2)) is model[1]


@pytest.mark.parametrize("name", ["lenet5", "vgg11", "resnet18", "resnet20", "mobilenet_v2"])
def test_every_model_of_the_zoo_has_one_wherever_it_is_cut(name: str) -> None:
    model = sf.build_model(name, classes=3, shape=(3, 32, 32), options={} if name == "lenet5" else {"width": 0.25})
    x = torch.zeros(2, 3, 32, 32)
    cuts = sf.cuts(model, x)
    layer = last_linear(model, x)
    assert layer.out_features == 3
    assert last_linear(sf.split(model, at=cuts[len(cuts) // 2].name), x) is layer


@pytest.mark.parametrize(
    "end",
    [
        nn.Conv2d(1, 2, 2),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.LogSoftmax(1)),
        nn.Sequential(nn.Linear(2, 2), nn.Flatten()),  # one vector for each row of the picture
    ],
)
def test_another_end_is_refused(end: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"the logits of Sequential come from something else; end the model in nn.Flatten"):
        last_linear(nn.Sequential(nn.Identity(), end), torch.zeros(2, 1, 2, 2))


def test_what_is_captured_is_the_last_call_with_its_gradient_and_no_hook_stays() -> None:
    layer = nn.Linear(1, 1)
    first, second = torch.zeros(1, 1), torch.ones(1, 1, requires_grad=True)
    with captured(layer) as given:
        layer(first)
        layer(second)
    assert given[0] is second
    assert not layer._forward_pre_hooks
