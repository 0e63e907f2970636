# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from nets import small_net
from sfumato.data.base import Data
from sfumato.defenses.surrogate import Inversion, Surrogate, distance
from sfumato.errors import ConfigError
from sfumato.seeds import ambient
from sfumato.split import Split
from sfumato.types import Epoch


def epoch_of(model: Split, data: Data, size: int = 32) -> Epoch:
    x = data.part("train").read(torch.arange(len(data.part("train")))) / 255
    with torch.no_grad():
        batches = [(part, model.head(part), torch.zeros(len(part))) for part in x.split(size)]
    return Epoch(number=0, total=1, model=model, batches=lambda: iter(batches))


def invertible() -> Split:
    """Each 2x2 pixels become four channels by a rotation."""
    head = nn.Conv2d(1, 4, 2, stride=2, bias=False)
    head.weight.data = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q.view(4, 1, 2, 2)
    return sf.split(nn.Sequential(head, nn.Flatten(), nn.Linear(64, 2)), at="0")


def error(surrogate: Surrogate, model: Split, data: Data) -> float:
    """The distance on pictures that it did not learn from."""
    x = data.part("test").read(torch.arange(40)) / 255
    with torch.no_grad():
        z = model.head(x)
        model.tail(z)
        return distance(surrogate.frozen(surrogate.last_map(z)), x).item()


def test_the_distance_is_that_of_all_pixels_of_a_picture_and_the_mean_of_pictures() -> None:
    a, b = (torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = np.mean([np.sqrt(((one - other) ** 2).sum()) for one, other in zip(a.numpy(), b.numpy(), strict=True)])
    assert distance(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_it_learns_to_invert_a_linear_head(blobs: Data) -> None:
    model, surrogate = invertible(), Surrogate(Inversion(learning_rate=0.05))
    errors = []
    with ambient(0, "test"):
        surrogate.face(model)
        for _ in range(40):
            surrogate.learn_epoch(epoch_of(model, blobs))
            errors.append(error(surrogate, model, blobs))
    x = (blobs.part("train").read(torch.arange(192)) / 255, blobs.part("test").read(torch.arange(40)) / 255)
    blind = distance(x[0].mean(0).expand_as(x[1]), x[1]).item()
    assert errors[-1] < 0.25 * blind
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize(("at", "shape"), [("0", (4, 8, 8)), ("2", (4, 8, 8)), ("3", (4, 8, 8))])
def test_it_inverts_the_last_feature_map_of_the_whole_net(at: str, shape: tuple[int, ...], blobs: Data) -> None:
    model, surrogate = sf.split(small_net(), at=at), Surrogate(Inversion(learning_rate=0.01))
    x = blobs.part("train").read(torch.arange(6)) / 255
    surrogate.face(model)
    z = model.head(x)
    model.tail(z)
    seen = surrogate.last_map(z)
    assert seen.shape[1:] == shape
    net = copy.deepcopy(small_net()).eval()
    expected = net[: 4 if at == "3" else 3](x)
    assert torch.allclose(seen, expected, atol=1e-6)
    surrogate.meet(seen, x)
    undone = [module for module in surrogate._network.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in undone] == [(4, 6), (6, 1)]
    surrogate.forget()
    assert not any(module._forward_hooks for module in model.modules())


def test_with_an_early_cut_it_learns_from_the_tail(blobs: Data) -> None:
    model, surrogate = sf.split(small_net(), at="0").train(), Surrogate(Inversion(learning_rate=0.01))
    before = copy.deepcopy(model.state_dict())
    with ambient(0, "test"):
        surrogate.face(model)
        surrogate.learn_epoch(epoch_of(model, blobs))
        first = error(surrogate, model, blobs)
        for _ in range(15):
            surrogate.learn_epoch(epoch_of(model, blobs))
    assert error(surrogate, model, blobs) < 0.8 * first
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_the_gradient_goes_into_the_net_and_not_into_the_surrogate(blobs: Data) -> None:
    model, surrogate = sf.split(small_net(), at="0"), Surrogate(Inversion(learning_rate=0.01))
    x = blobs.part("train").read(torch.arange(6)) / 255
    surrogate.face(model)
    z = model.head(x)
    model.tail(z)
    surrogate.meet(surrogate.last_map(z), x)
    distance(surrogate.frozen(surrogate.last_map(z)), x).backward()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all(layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0 for layer in convolutions)
    assert all(parameter.grad is None for parameter in surrogate._network.parameters())


def test_a_tail_without_convolutions_or_that_cannot_be_traced_leaves_z() -> None:
    class Branching(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.flatten(1) if z.sum() > 0 else -z.flatten(1)

    for tail in (nn.Flatten(), Branching()):
        model, surrogate = Split(nn.Conv2d(1, 2, 3), tail), Surrogate(Inversion(learning_rate=0.01))
        surrogate.face(model)
        z = model.head(torch.rand(2, 1, 8, 8))
        model.tail(z)
        assert surrogate.last_map(z) is z


def test_a_bad_learning_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="learning_rate must be > 0"):
        Surrogate(Inversion(learning_rate=0.0))
