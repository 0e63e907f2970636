# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

import sfumato as sf
from sfumato.models.stages import stage_ends


def ends(model: nn.Module, *shape: int) -> list[str]:
    return [tap.layer.name for tap in stage_ends(model, torch.zeros(2, *shape))]


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("vgg16_face", 64, ["c2", "c4", "c7", "c10", "c13"]),
        ("resnet18", 64, ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("resnet18", 16, ["layer1", "layer2", "layer3", "layer4"]),
        ("resnet50", 16, ["layer1", "layer2", "layer3", "layer4"]),  # its blocks get smaller in the middle
        ("ir50", 16, ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v2", 64, ["stem", "blocks.2", "blocks.5", "blocks.12", "last"]),
        ("cnn4", 16, ["c1", "c2"]),
        ("mlp", 8, []),
    ],
)
def test_stages_end_where_maps_get_smaller(name: str, side: int, expected: list[str]) -> None:
    options = {} if name in ("cnn4", "mlp") else {"width": 0.125}
    model = sf.build_model(name, classes=3, shape=(3, side, side), options=options)
    assert ends(model, 3, side, side) == expected


@pytest.mark.parametrize(("name", "at"), [("vgg16_face", "c4"), ("vgg16_face", "c5"), ("ir50", "layer2"), ("resnet50", "layer1")])
def test_a_cut_changes_no_stage(name: str, at: str) -> None:
    model = sf.build_model(name, classes=3, shape=(1, 16, 16), options={"width": 0.0625})
    expected = ends(model, 1, 16, 16)
    assert ends(sf.whole(model), 1, 16, 16) == expected
    assert ends(sf.split(model, at=at), 1, 16, 16) == expected


def test_poolings_in_one_flat_sequence_end_stages_too() -> None:
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    assert ends(model, 1, 8, 8) == ["0.2", "0"]


def test_maps_of_one_size_are_one_stage_and_those_of_one_place_end_it_where_there_are_no_others() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Flatten())
    assert ends(model, 1, 8, 8) == ["3"]
    assert ends(model, 1, 1, 1) == ["3"]
