# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.inference import InferenceNetwork


def slow(network: InferenceNetwork, seen: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The two branches and the joint network, a row of numbers at a time."""

    def through(layers: nn.Module, row: np.ndarray) -> np.ndarray:
        for layer in layers.modules():
            if isinstance(layer, nn.Linear):
                row = layer.weight.detach().double().numpy() @ row + layer.bias.detach().double().numpy()
            elif isinstance(layer, nn.ReLU):
                row = np.maximum(row, 0)
        return row

    joined = [
        np.concatenate([through(network.prediction, a), through(network.label, b)]) for a, b in zip(seen, label, strict=True)
    ]
    return np.array([through(network.joint, row)[0] for row in joined])


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_the_layers_are_those_of_the_paper() -> None:
    linear = [layer for layer in InferenceNetwork(100).modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (100, 1024), (1024, 512), (512, 64), (100, 512), (512, 64), (128, 256), (256, 64), (64, 1),
    ]  # fmt: skip
    assert sum(isinstance(layer, nn.ReLU) for layer in InferenceNetwork(100).modules()) == 7, "all but the last"


def test_the_first_weights_are_those_of_the_paper() -> None:
    with seeds.ambient(0, "weights"):
        network = InferenceNetwork(100)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            deviation = 0.01 / np.sqrt(2 * layer.weight.numel())
            assert layer.weight.std().item() == pytest.approx(0.01, abs=5 * deviation)
            assert not layer.bias.any()
    with seeds.ambient(0, "weights"):
        free = InferenceNetwork(100, deviation=None)
    assert free.joint[1].weight.std() > 0.05


@pytest.mark.parametrize("inputs", ["log_softmax", "sorted", "logits"])
def test_the_answer_is_that_of_the_branches_and_the_joint_network(inputs: str) -> None:
    with seeds.ambient(0, "weights"):
        network = InferenceNetwork(5, inputs=inputs, prediction=(7, 6), label=(4,), joint=(3,), deviation=0.5)
        logits = 4 * torch.randn(8, 5)
    label = torch.eye(5)[torch.arange(8) % 5]
    raw = logits.double().numpy()
    seen = {"log_softmax": np.log(softmax(raw)), "sorted": -np.sort(-softmax(raw), 1), "logits": raw}[inputs]
    with torch.no_grad():
        found = network(logits, label).numpy()
    assert found == pytest.approx(slow(network, seen, label.double().numpy()), abs=1e-4)
    assert len(set(found.round(5))) > 4


def test_only_raw_logits_tell_of_their_level_and_only_sorted_ones_hide_their_class() -> None:
    with seeds.ambient(0, "weights"):
        networks = {inputs: InferenceNetwork(5, inputs=inputs, deviation=0.2) for inputs in ("log_softmax", "sorted", "logits")}
        logits, label = torch.randn(6, 5), F.one_hot(torch.arange(6) % 5, 5).float()
    for inputs, network in networks.items():
        with torch.no_grad():
            answer, higher, rolled = (network(given, label) for given in (logits, logits + 3, logits.roll(1, 1)))
        assert torch.allclose(answer, higher, rtol=1e-3, atol=1e-6) == (inputs != "logits")
        assert torch.allclose(answer, rolled, rtol=1e-3, atol=1e-6) == (inputs == "sorted")


def test_features_of_any_width_take_the_place_of_a_prediction() -> None:
    network = InferenceNetwork(3, width=11, inputs="logits", deviation=None)
    features = torch.randn(4, 11, requires_grad=True)
    network(features, torch.eye(3)[[0, 1, 2, 0]]).sum().backward()
    assert features.grad is not None
    assert features.grad.any(1).all()


def test_it_learns_who_is_a_member_from_the_small_weights_that_the_paper_starts_with() -> None:
    """Members are answered with more confidence."""
    with seeds.ambient(0, "toy"):
        network = InferenceNetwork(2)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        member, y = torch.arange(64) < 32, torch.arange(64) % 2
        for _ in range(60):
            margin = torch.where(member, 6.0, 1.0) + torch.randn(64)
            logits = F.one_hot(y, 2) * margin[:, None]
            answer = network(logits, F.one_hot(y, 2).float())
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(answer, member.float()).backward()
            optimizer.step()
    assert ((answer > 0) == member).float().mean() > 0.93


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": "softmax"}, "inputs must be one of log_softmax, sorted, logits, got 'softmax'"),
        ({"joint": (256, 0)}, "widths must be at least 1, got 10 classes, 10 numbers"),
        ({"width": 0}, "widths must be at least 1, got 10 classes, 0 numbers"),
        ({"deviation": 0.0}, "deviation must be > 0 and finite, got 0.0; None is"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InferenceNetwork(10, **arguments)
