# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.critic import Critic, gradient_penalty


def test_the_critic_of_32x32_is_that_of_the_release() -> None:
    critic = Critic((3, 32, 32))
    convolutions = [layer for layer in critic.layers if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (64, 5, 2), (128, 5, 2), (256, 5, 2), (1, 4, 1),
    ]  # fmt: skip
    weights = (3 * 64 + 64 * 128 + 128 * 256) * 25 + 256 * 16
    assert sum(p.numel() for p in critic.parameters()) == weights + (64 + 128 + 256 + 1) + 2 * (128 + 256)
    assert critic.layers(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 1, 1)


def test_with_four_levels_it_is_the_critic_of_64x64() -> None:
    critic = Critic((3, 64, 64), levels=4)
    assert sum(p.numel() for p in critic.parameters()) == 4_316_545
    assert critic.layers(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "places"),
    [
        ((1, 8, 8), (1, 1)),
        ((1, 28, 28), (1, 1)),
        ((3, 13, 20), (1, 2)),
        ((3, 48, 48), (3, 3)),
        ((3, 224, 224), (25, 25)),
        ((1, 4, 5), (1, 2)),
    ],
)
def test_a_picture_of_any_size_gets_one_score(shape: tuple[int, int, int], places: tuple[int, int]) -> None:
    with seeds.ambient(0, "weights"):
        critic = Critic(shape, channels=4)
    x = torch.rand(3, *shape, generator=seeds.generator(0, "x"))
    assert critic.layers(x).shape[2:] == places
    assert critic(x).shape == (3,)
    assert torch.allclose(critic(x)[1:2], critic(x[1:2]), atol=1e-5)
    gradient_penalty(critic, x, 1 - x).backward()
    found = {name: parameter.grad for name, parameter in critic.named_parameters() if parameter.dim() > 1}
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in found.values())


def test_the_penalty_is_that_of_the_paper() -> None:
    a, b = torch.tensor(0.3, requires_grad=True), torch.tensor(0.7, requires_grad=True)

    def critic(u: Tensor) -> Tensor:
        return (a * u + b * u.square() / 2).sum((1, 2, 3))

    x, x_hat = torch.rand(2, 5, 3, 4, 4, generator=seeds.generator(0, "x"), dtype=torch.float64)
    with seeds.ambient(0, "penalty"):
        found = gradient_penalty(critic, x, x_hat)
    with seeds.ambient(0, "penalty"):
        share = torch.rand(5, 1, 1, 1, dtype=torch.float64).numpy()

    def slow(a: float, b: float) -> float:
        u = share * x.numpy() + (1 - share) * x_hat.numpy()
        return float(np.mean([(np.sqrt(((a + b * one) ** 2).sum()) - 1) ** 2 for one in u]))

    assert found.item() == pytest.approx(slow(0.3, 0.7), rel=1e-6)
    found.backward()  # through the gradient of the critic
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.item() == pytest.approx((slow(0.3 + 1e-5, 0.7) - slow(0.3 - 1e-5, 0.7)) / 2e-5, rel=1e-4)
    assert b.grad.item() == pytest.approx((slow(0.3, 0.7 + 1e-5) - slow(0.3, 0.7 - 1e-5)) / 2e-5, rel=1e-4)


@pytest.mark.parametrize(("shape", "channels"), [((3, 3, 8), 64), ((3, 8, 8), 0)])
def test_a_critic_that_cannot_be_is_refused(shape: tuple[int, int, int], channels: int) -> None:
    with pytest.raises(ConfigError, match="at least 4x4 and has at least 1 channel, got"):
        Critic(shape, channels=channels)
