# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sfumato as sf
from sfumato.errors import ConfigError
from sfumato.metrics.image import ssim
from slow import slow_ssim
from steps import step_of

SMALL = {"blocks": 0, "channels": 4}


def test_it_adds_gaussian_noise() -> None:
    z, defense = torch.rand(5, 4), sf.NoiseARL(sigma=0.3)
    first, second = (part.protect(z, torch.Generator().manual_seed(0)) for part in (defense, sf.Noise(sigma=0.3)))
    assert torch.equal(first, second)
    assert (defense.noise_std, defense.gaussian, defense.stochastic) == (0.3, True, True)


def test_one_backward_pass_gives_both_gradients_as_two_passes_would(small_split: sf.Split) -> None:
    defense = sf.NoiseARL(sigma=0.1, weight=0.03, learning_rate=0.01, **SMALL)
    whole = sf.Compose(defense, sf.Dropout(p=0.2))
    step = step_of(small_split.eval(), whole)
    defense.adversary.meet(step.protected, step.x)
    first, second = (copy.deepcopy(defense.adversary._network) for _ in range(2))

    weights = list(small_split.parameters())
    task = F.cross_entropy(step.logits, step.y)
    loss = task - 0.03 * (1 - ssim(first.requires_grad_(False)(step.protected), step.x).mean())
    expected = torch.autograd.grad(loss, weights, retain_graph=True)
    optimizer = torch.optim.Adam(second.parameters(), lr=0.01)
    (1 - ssim(second(step.protected.detach()), step.x).mean()).backward()
    gradients = [parameter.grad.clone() for parameter in second.parameters() if parameter.grad is not None]
    optimizer.step()

    penalty = whole.penalty(step)
    assert penalty is not None
    (task + penalty).backward()
    for weight, gradient in zip(weights, expected, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, rtol=1e-5, atol=1e-8)
    found = [parameter.grad / -0.03 for parameter in defense.adversary._network.parameters() if parameter.grad is not None]
    assert len(found) == len(gradients)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, gradients, strict=True))
    with torch.no_grad():
        whole.after_step(step)
    statistics = dict(second.named_buffers())
    assert statistics
    assert all(torch.equal(defense.memory()[f"network.{name}"], value) for name, value in statistics.items())
    moments = [optimizer.state[parameter]["exp_avg"] for parameter in second.parameters()]
    for place, moment in enumerate(moments):
        assert torch.allclose(defense.memory()[f"optimizer.{place}.exp_avg"], moment, rtol=1e-4, atol=1e-7)
    assert all(parameter.grad is None for parameter in defense.adversary._network.parameters())


def test_the_decoder_sees_what_every_part_releases(small_split: sf.Split) -> None:
    defense = sf.NoiseARL(sigma=0.1, **SMALL)
    step = step_of(small_split, sf.Compose(defense, sf.Dropout(p=0.9)))
    penalty = defense.penalty(step)
    decoder = copy.deepcopy(defense.adversary._network)
    with torch.no_grad():
        answer = decoder(step.protected).double().numpy()
    similarity = np.mean([slow_ssim(a, b) for a, b in zip(answer, step.x.double().numpy(), strict=True)])
    assert penalty.item() == pytest.approx(-0.01 * (1 - similarity), abs=1e-6)
    assert penalty.item() != pytest.approx(-0.01 * (1 - ssim(decoder(step.z), step.x).mean().item()), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": -0.1}, "sigma must be >= 0"),
        ({"sigma": 0.1, "weight": 0.0}, r"weight must be > 0 and finite, got 0.0; for noise alone use Noise\(sigma=0.1\)"),
        ({"sigma": 0.1, "weight": math.nan}, "weight must be > 0"),
        ({"sigma": 0.1, "channels": 0}, "channels >= 1"),
        ({"sigma": 0.1, "learning_rate": math.inf}, "learning_rate must be > 0 and finite"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.NoiseARL(**arguments)
