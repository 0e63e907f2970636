# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

import sfumato as sf
from sfumato.errors import ConfigError
from sfumato.models.mlp import mlp


def test_the_layers_of_the_purchase_classifier() -> None:
    net = mlp(100, (600, 1, 1))
    sizes = [(layer.in_features, layer.out_features) for layer in net.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(600, 1024), (1024, 512), (512, 256), (256, 128), (128, 100)]
    assert sum(isinstance(layer, nn.Tanh) for layer in net.modules()) == 4
    assert net(torch.rand(2, 600, 1, 1)).shape == (2, 100)


def test_cuts_are_named() -> None:
    net = mlp(3, (1, 8, 8), hidden=(5, 4), activation="relu")
    assert [cut.name for cut in sf.cuts(net, torch.zeros(1, 1, 8, 8))][:3] == ["flatten", "f1.0", "f1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": (5, 0)}, "must be positive"),
        ({"activation": "relo"}, "did you mean 'relu'"),
        ({"width": 0.0}, "width must be"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mlp(3, (4, 1, 1), **arguments)
