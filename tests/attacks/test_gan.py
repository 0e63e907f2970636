# SPDX-License-Identifier: Apache-2.0
"""The two losses of the generative attack against their formulas, its schedule, and what it does to a toy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato import seeds
from sfumato.attacks.features import gan
from sfumato.attacks.features.gan import Gan
from sfumato.attacks.features.regression import Fitting
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.target import Target
from toys import attacked, error, linear_target, mean_error

QUICK = Fitting(epochs=2, batch_size=64)


class Quadratic(nn.Module):
    """D(u) = sum of a u + b u^2 / 2, whose gradient is a + b u."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.7))

    def forward(self, u: Tensor) -> Tensor:
        return (self.a * u + self.b * u.square() / 2).sum((1, 2, 3))


class Scale(nn.Module):
    """G(z) = c z."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(0.6))

    def forward(self, z: Tensor) -> Tensor:
        return self.c * z


class Contest(gan._Contest):
    """One of networks small enough to differentiate by hand, which take plain gradient steps of length 1."""

    def __init__(self, attack: Gan) -> None:
        self.attack, self.critic, self.decoder = attack, Quadratic().double(), Scale().double()
        self.critic_optimizer = torch.optim.SGD(self.critic.parameters(), lr=1.0)
        self.decoder_optimizer = torch.optim.SGD(self.decoder.parameters(), lr=1.0)


Z, X = torch.rand(2, 6, 1, 3, 3, generator=seeds.generator(0, "pictures"), dtype=torch.float64)


def score(u: np.ndarray, a: float, b: float) -> float:
    return float(np.mean([(a * one + b * one**2 / 2).sum() for one in u]))


def test_the_critic_learns_by_the_loss_of_the_paper() -> None:
    contest = Contest(Gan(penalty=10.0))
    with seeds.ambient(0, "step"):
        contest._update_critic(Z, X)
    with seeds.ambient(0, "step"):
        share = torch.rand(6, 1, 1, 1, dtype=torch.float64).numpy()
    x_hat, x = 0.6 * Z.numpy(), X.numpy()

    def loss(a: float, b: float) -> float:
        u = share * x + (1 - share) * x_hat
        penalty = np.mean([(np.sqrt(((a + b * one) ** 2).sum()) - 1) ** 2 for one in u])
        return score(x_hat, a, b) - score(x, a, b) + 10 * float(penalty)

    slope_a = (loss(0.3 + 1e-5, 0.7) - loss(0.3 - 1e-5, 0.7)) / 2e-5
    slope_b = (loss(0.3, 0.7 + 1e-5) - loss(0.3, 0.7 - 1e-5)) / 2e-5
    assert contest.critic.a.item() == pytest.approx(0.3 - slope_a, rel=1e-5)
    assert contest.critic.b.item() == pytest.approx(0.7 - slope_b, rel=1e-5)
    assert contest.decoder.c.item() == pytest.approx(0.6, rel=1e-6)


def test_the_decoder_learns_by_the_loss_of_the_paper_and_leaves_the_critic_alone() -> None:
    contest = Contest(Gan(fidelity=1500.0))
    contest._update_decoder(Z, X)

    def loss(c: float) -> float:
        return -score(c * Z.numpy(), 0.3, 0.7) + 1500 * float(((c * Z.numpy() - X.numpy()) ** 2).mean())

    slope = (loss(0.6 + 1e-5) - loss(0.6 - 1e-5)) / 2e-5
    assert contest.decoder.c.item() == pytest.approx(0.6 - slope, rel=1e-5)
    assert contest.critic.a.grad is None
    assert contest.critic.a.item() == pytest.approx(0.3, rel=1e-6)


def test_the_defaults_are_those_of_the_release() -> None:
    attack = Gan()
    assert (attack.start, attack.epochs, attack.batch_size, attack.critic_steps) == ("decoder", 150, 128, 10)
    assert (attack.critic_rate, attack.decoder_rate, attack.fidelity, attack.penalty) == (5e-3, 5e-4, 1500, 10)
    release = [(1 + np.cos(np.pi * epoch / 300)) / 2 for epoch in (0, 60, 150)]
    assert [attack.fall(epoch) for epoch in (0.0, 60.0, 150.0)] == pytest.approx(release)


def test_the_decoder_learns_once_in_ten_batches(small_split: sf.Split, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[str] = []
    for name in ("_update_critic", "_update_decoder"):
        monkeypatch.setattr(gan._Contest, name, lambda contest, z, x, name=name: learned.append(name))
    attack = Gan(start="scratch", blocks=0, channels=4, critic_channels=4, epochs=9, batch_size=64)
    attacked(attack, Target(small_split, Compose()), blobs)
    assert learned.count("_update_critic") == 27  # three batches an epoch
    assert [place for place, name in enumerate(learned) if name == "_update_decoder"] == [10, 21]


def test_from_scratch_it_inverts_a_linear_head(blobs: sf.Data) -> None:
    attack = Gan(
        start="scratch",
        blocks=0,
        channels=16,
        epochs=40,
        batch_size=32,
        critic_channels=4,
        critic_steps=1,
        decoder_rate=1e-2,
        critic_rate=5e-3,
    )
    assert error(attack, linear_target(), blobs) < 0.4 * mean_error(blobs)


def test_from_a_trained_decoder_it_goes_on_where_that_stopped(blobs: sf.Data) -> None:
    fitting = Fitting(epochs=20, batch_size=32, learning_rate=1e-2, patience=0)
    same = type("Decoder", (Gan,), {})  # streams go by the name of the class
    attack = same(blocks=0, channels=16, fitting=fitting, epochs=2, critic_channels=4, batch_size=32, critic_steps=6)
    start = error(sf.Decoder(blocks=0, channels=16, fitting=fitting), linear_target(), blobs)
    assert error(attack, linear_target(), blobs) < 1.1 * start
    assert error(replace(attack, start="scratch"), linear_target(), blobs) > 2 * start


def test_it_tells_of_both_trainings_in_one(small_split: sf.Split, blobs: sf.Data) -> None:
    told: list[tuple[int, int]] = []
    Gan(blocks=0, channels=4, fitting=QUICK, epochs=3, critic_channels=4, critic_steps=2)(
        Target(small_split, Compose()),
        blobs.part("auxiliary"),
        {"inference": torch.rand(2, 4, 8, 8)},
        watch=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 5) for done in range(1, 6)]


def test_too_few_pictures_for_one_update_of_the_decoder_are_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    attack = Gan(start="scratch", blocks=0, channels=4, critic_channels=4, epochs=2, batch_size=64)
    with pytest.raises(ConfigError, match=r"once in 10 batches, and 2 epochs of 173 pictures make only 6; raise epochs"):
        attacked(attack, Target(small_split, Compose()), blobs)


@pytest.mark.parametrize(
    "arguments",
    [{"epochs": 0}, {"critic_channels": 0}, {"critic_steps": 0}, {"critic_rate": 0.0}, {"fidelity": -1.0}, {"channels": 0}],
    ids=str,
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="got"):
        Gan(**arguments)


@pytest.mark.gpu
def test_everything_runs_on_cuda(small_split: sf.Split, blobs: sf.Data) -> None:
    network = {"blocks": 0, "channels": 4, "fitting": QUICK}
    attacks = [
        Gan(**network, epochs=2, batch_size=32, critic_steps=2),
        sf.Ensemble(residual=((0, 4),), fitting=QUICK),
        sf.Averaging(**network, releases=2),
        sf.Likelihood(steps=3),
    ]
    target = Target(small_split.to("cuda"), Compose(sf.Dropout(p=0.2)).to("cuda"))
    made = sf.audit(target, blobs, attacks=attacks, pictures=5)
    assert {result.name for result in made.attacks} == {"gan", "ensemble", "averaging", "likelihood"}
