# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sfumato as sf
from sfumato.classifier import Resize, build_classifier, train_classifier
from sfumato.defenses.base import Defense
from sfumato.errors import UnknownNameError, WeightsError
from sfumato.files import write_tensors
from sfumato.settings import Optimizer, Train
from sfumato.types import Step

SETTINGS = Train(epochs=4, batch_size=16, optimizer=Optimizer(name="adam", learning_rate=5e-3))


class Toward(Defense):
    """Wants every logit to be a number, whatever the label."""

    name = "toward"

    def criterion(self, step: Step) -> Tensor:
        return F.mse_loss(step.logits, torch.full_like(step.logits, 3.0))


@pytest.mark.parametrize("size", [None, 4, 16])
def test_pictures_of_any_size_are_brought_to_the_networks(size: int | None) -> None:
    network = build_classifier("cnn4", classes=3, shape=(1, 8, 8), size=size and 4 * size)
    x = torch.rand(2, 1, 8, 8)
    wanted = x if size is None else F.interpolate(x, (4 * size,) * 2, mode="bilinear", antialias=True)
    assert torch.equal(network.get_submodule("resize")(x), wanted)
    assert network(x).shape == (2, 3)


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    x = torch.rand(2, 1, 8, 8)
    assert Resize((8, 8))(x) is x


def test_it_learns_to_name_what_it_is_shown(blobs: sf.Data) -> None:
    network, test = build_classifier("cnn4", classes=2, shape=(1, 8, 8)), blobs.part("test")
    train_classifier(network, blobs.part("train"), SETTINGS)
    x = test.read(torch.arange(len(test))) / 255
    assert (network(x).argmax(1) == test.labels).float().mean() > 0.95


def test_a_criterion_replaces_the_task(blobs: sf.Data) -> None:
    network, test = build_classifier("cnn4", classes=2, shape=(1, 8, 8)), blobs.part("test")
    train_classifier(network, blobs.part("train"), SETTINGS, criterion=Toward())
    assert network(test.read(torch.arange(4)) / 255).detach().numpy() == pytest.approx(3, abs=0.5)


def test_networks_of_the_same_pictures_are_the_same(blobs: sf.Data) -> None:
    first, second = (build_classifier("lenet5", classes=2, shape=(1, 8, 8)) for _ in range(2))
    for network in (first, second):
        train_classifier(network, blobs.part("test"), Train(epochs=1))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_weights_are_loaded_or_refused(tmp_path: Path) -> None:
    given = build_classifier("lenet5", classes=3, shape=(1, 8, 8)).get_submodule("classifier")
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.fill_(0.25)
    file = write_tensors(tmp_path / "given.safetensors", given.state_dict())
    network = build_classifier("lenet5", classes=3, shape=(1, 8, 8), weights=file)
    assert all(bool((parameter == 0.25).all()) for parameter in network.parameters())
    with pytest.raises(WeightsError, match="the weights of another model"):
        build_classifier("lenet5", classes=4, shape=(1, 8, 8), weights=file)
    with pytest.raises(UnknownNameError, match="did you mean 'lenet5'"):
        build_classifier("lenet", classes=4, shape=(1, 8, 8))
