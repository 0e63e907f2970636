# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sfumato as sf
from sfumato.attacks.features.regression import Fitting
from sfumato.errors import ConfigError
from sfumato.train import assemble
from steps import step_of

SMALL = {"blocks": 0, "channels": 4}


def slow_mse(a: np.ndarray, b: np.ndarray) -> float:
    """The mean over all pixels of all pictures, one by one."""
    return sum((p - q) ** 2 for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)) / a.size


def test_the_penalty_is_the_error_of_the_decoder_on_what_is_sent(small_split: sf.Split) -> None:
    defense = sf.APP(weight=0.7, **SMALL)
    step = step_of(small_split, sf.Noise(sigma=5.0))
    defense.before_step(step)
    decoder = copy.deepcopy(defense.decoder._network).eval()
    with torch.no_grad():
        sent, raw = (decoder(z).double().numpy() for z in (step.protected, step.z))
    x = step.x.double().numpy()
    assert defense.penalty(step).item() == pytest.approx(-0.7 * slow_mse(sent, x), abs=1e-6)
    assert defense.penalty(step).item() != pytest.approx(-0.7 * slow_mse(raw, x), abs=1e-4)


def test_discriminator_and_decoder_learn_by_the_gradients_of_their_losses(small_split: sf.Split) -> None:
    defense = sf.APP(realism=0.3, learning_rate=0.01, **SMALL)
    step = step_of(small_split, sf.Noise(sigma=0.1))
    z, x = step.protected.detach(), step.x
    defense.decoder.meet(z, x)
    defense.discriminator.meet(x)
    decoder, discriminator = (copy.deepcopy(part._network) for part in (defense.decoder, defense.discriminator))
    defense.before_step(step)
    assert all(weight.grad is None for weight in small_split.parameters())

    x_hat = decoder(z)
    trust = [torch.sigmoid(discriminator(pictures)) for pictures in (x, x_hat.detach())]
    loss = -trust[0].log().mean() - (1 - trust[1]).log().mean()
    expected = {"discriminator": torch.autograd.grad(loss, list(discriminator.parameters()))}
    discriminator.load_state_dict(defense.discriminator._network.state_dict())  # it learns first
    loss = (x_hat - x).square().sum() / x.numel() - 0.3 * torch.sigmoid(discriminator(x_hat)).log().mean()
    expected["decoder"] = torch.autograd.grad(loss, list(decoder.parameters()))
    for name, gradients in expected.items():
        for place, gradient in enumerate(gradients):
            # After one step of Adam its mean of the gradients is a tenth of the first.
            assert torch.allclose(defense.memory()[f"{name}.optimizer.{place}.exp_avg"], 0.1 * gradient, rtol=1e-4, atol=1e-7)


def test_both_make_so_many_steps_for_each_batch(small_split: sf.Split) -> None:
    defense = sf.APP(steps=3, **SMALL)
    defense.before_step(step_of(small_split, defense))
    assert [defense.memory()[f"{name}optimizer.0.step"].item() for name in defense.adversaries] == [3, 3]


def test_the_gradient_of_the_penalty_reaches_the_head_alone(small_split: sf.Split) -> None:
    defense = sf.APP(weight=0.7, **SMALL)
    step = step_of(small_split.eval(), defense)
    defense.before_step(step)
    decoder = copy.deepcopy(defense.decoder._network).eval().requires_grad_(False)
    plain = -0.7 * F.mse_loss(decoder(step.protected), step.x)
    expected = torch.autograd.grad(plain, list(small_split.head.parameters()), retain_graph=True)

    before = {name: value.clone() for name, value in defense.memory().items()}
    defense.penalty(step).backward()
    for weight, gradient in zip(small_split.head.parameters(), expected, strict=True):
        assert weight.grad is not None
        assert torch.equal(weight.grad, gradient)
        assert gradient.abs().sum() > 0
    assert all(weight.grad is None for weight in small_split.tail.parameters())
    for adversary in defense.adversaries.values():
        assert all(weight.grad is None for weight in adversary._network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in defense.memory().items())


def test_without_realism_there_is_no_discriminator(small_split: sf.Split) -> None:
    defense = sf.APP(realism=0.0, **SMALL)
    defense.before_step(step_of(small_split, defense))
    assert {name.split(".")[0] for name in defense.memory()} == {"decoder"}


def test_it_makes_reconstruction_harder_at_nearly_the_same_accuracy() -> None:
    """A head of one layer; over four seeds the error of a fresh decoder rises 1.0 to 2.7 times, and most where accuracy falls."""
    stream = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = F.interpolate(torch.rand(400, 1, 4, 4, generator=stream), scale_factor=2) * 0.6
    x[y == 1, :, :, :4] += 0.4
    data = sf.load_data((x, y))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(128, 2))
    decoder = sf.Decoder(blocks=0, channels=8, fitting=Fitting(epochs=15, batch_size=64))
    settings = sf.Train(epochs=12, batch_size=32, optimizer=sf.Optimizer(learning_rate=0.05))
    app = sf.APP(weight=2.0, blocks=0, channels=8, learning_rate=0.01)
    errors = []
    for defenses in ([], [app]):
        hardened = sf.harden(sf.split(net, at="1"), data, defenses=[sf.Noise(sigma=0.05), *defenses], train=settings)
        found = sf.audit(hardened, data, attacks={"decoder": decoder}, pictures=100)
        strongest = found.strongest()
        assert strongest is not None
        assert found.accuracy.value > 0.95
        errors.append(strongest.mse.value)
    assert errors[1] > 1.3 * errors[0]


def test_pictures_that_the_discriminator_does_not_take_are_refused_before_training() -> None:
    data = sf.load_data((torch.rand(20, 1, 3, 8), torch.arange(20) % 2))
    split = sf.Split(nn.Conv2d(1, 2, 1), nn.Sequential(nn.Flatten(), nn.Linear(48, 2)))
    with pytest.raises(ConfigError, match="at least 4x4"):
        assemble(split, data, [sf.APP(**SMALL)], seed=0)
    assemble(split, data, [sf.APP(realism=0.0, **SMALL)], seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -0.1}, "weight and realism must be >= 0 and finite, got -0.1 and 0.001"),
        ({"weight": math.inf}, "weight and realism"),
        ({"realism": math.nan}, "weight and realism"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"blocks": -1}, "blocks must be >= 0"),
        ({"channels": 0}, "channels >= 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.APP(**arguments)
