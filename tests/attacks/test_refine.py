# SPDX-License-Identifier: Apache-2.0
"""The search near a network's answer: what it finds where that is known, how far it goes, and what it takes errors to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.attacks.base import Adversary, hold_out
from sfumato.attacks.features.refine import Refine, Search, mirror
from sfumato.attacks.features.regression import Fitting
from sfumato.attacks.features.spectrum import ErrorSpectrum
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.metrics.image import mse
from sfumato.target import FeaturesView, Target
from toys import linear_target

SMALL = {"blocks": 0, "channels": 4}
QUICK = Fitting(epochs=1, batch_size=64)


def adversary(target: Target, data: sf.Data, told: list[tuple[int, int]] | None = None) -> Adversary:
    view = target.eval().view("weights", torch.Generator().manual_seed(0))
    assert isinstance(view, FeaturesView)
    fitted, held_out = hold_out(data.part("auxiliary"))
    return Adversary(view, fitted, held_out, 0, lambda *progress: None if told is None else told.append(progress))


def pictures(data: sf.Data) -> Tensor:
    return data.part("test").read(torch.arange(8)) / 255


def refined(attack: Refine, target: Target, data: sf.Data) -> tuple[Tensor, Tensor]:
    """What the network answers and what the search makes of it, for eight test pictures."""
    torch.manual_seed(0)
    who = adversary(target, data)
    attack.fit(who)
    with torch.no_grad():
        z = target.features(pictures(data), torch.Generator().manual_seed(1))
        return attack._inverter(z), attack.reconstruct(who, z)[0].x_hat


class Half(nn.Module):
    """Forgets the lower half of a picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :4].flatten(1)


def test_whoever_can_invert_the_head_needs_no_good_network(blobs: sf.Data) -> None:
    attack = Refine(**SMALL, fitting=QUICK, search=Search(steps=300, learning_rate=0.3, closeness=(1e-6,)))
    answer, found = refined(attack, linear_target(), blobs)
    assert (answer - pictures(blobs)).abs().max() > 0.2
    assert (found - pictures(blobs)).abs().max() < 1e-3


def test_what_the_head_forgets_gets_no_worse_than_the_network_has_it(blobs: sf.Data) -> None:
    target = Target(sf.Split(Half(), nn.Linear(32, 2)), Compose())
    search = Search(steps=300, learning_rate=0.3, closeness=(1e-3, 1e-5))
    answer, found = refined(Refine(blocks=0, channels=8, fitting=Fitting(epochs=5, batch_size=32), search=search), target, blobs)
    before, after = ((made - pictures(blobs)).square() for made in (answer, found))
    assert after[:, :, :4].mean().sqrt() < 5e-3 < 0.1 * before[:, :, :4].mean().sqrt()
    assert after[:, :, 4:].mean() < 1.05 * before[:, :, 4:].mean()


def test_the_search_ends_at_the_minimum_of_the_objective(blobs: sf.Data) -> None:
    target, s = linear_target(), 0.05
    attack = Refine(**SMALL, fitting=QUICK, search=Search(steps=400, closeness=(s,)))
    refined(attack, target, blobs)
    answer = torch.full((1, 1, 8, 8), 0.5)
    z = target.split.head(answer + 0.1 * torch.rand(answer.shape, generator=torch.Generator().manual_seed(0))).detach()
    e = attack._errors.shaped(torch.eye(64).reshape(64, 1, 8, 8)).reshape(64, 64).T.double().numpy()
    m = target.split.head[1].weight.detach().double().numpy()
    own = np.stack([row.double().numpy() / 255 for row in hold_out(blobs.part("auxiliary"))[0].read(torch.arange(173))])
    features = own.reshape(173, 64) @ m.T
    spread = ((features - features.mean(0)) ** 2).sum(1).mean()
    missing = z[0].double().numpy() - m @ answer.flatten().double().numpy()
    w = np.linalg.solve((m @ e).T @ (m @ e) / spread + s * np.eye(64) / 64, (m @ e).T @ missing / spread)
    found = attack._near(answer, z, s).double().numpy().ravel()
    assert found == pytest.approx(0.5 + e @ w, abs=2e-4)


def test_features_that_say_nothing_leave_the_answer_as_it_is(blobs: sf.Data) -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] * 0

    attack = Refine(**SMALL, fitting=QUICK, search=Search(steps=5))
    answer, found = refined(attack, Target(sf.Split(Nothing(), nn.Linear(4, 2)), Compose()), blobs)
    assert torch.equal(answer, found)


@pytest.mark.parametrize("defense", [sf.Noise(sigma=0.1), sf.Dropout(p=0.3)], ids=lambda defense: defense.name)
@pytest.mark.parametrize("network", ["decoder", "mirror"])
def test_a_defense_that_draws_is_searched_through(
    network: str, defense: sf.Defense, small_split: sf.Split, blobs: sf.Data
) -> None:
    attack = Refine(network=network, **SMALL, fitting=QUICK, search=Search(steps=25, draws=4, closeness=(1.0, 0.1)))
    answer, found = refined(attack, Target(small_split, Compose(defense)), blobs)
    x = pictures(blobs)
    assert mse(found, x).mean() < 0.9 * mse(answer, x).mean()


def test_the_search_goes_farther_for_as_long_as_that_is_better(blobs: sf.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def near(attack: Refine, answer: Tensor, z: Tensor, closeness: float) -> Tensor:
        tried.append(closeness)
        x = z.reshape(answer.shape)
        return x + {10.0: 0.02, 3.0: 0.01, 1.0: 0.015, 0.1: 0.0}[closeness]

    monkeypatch.setattr(Refine, "_near", near)
    attack = Refine(**SMALL, fitting=QUICK, search=Search(closeness=(0.1, 3.0, 10.0, 1.0)))
    attack.fit(adversary(Target(sf.Split(nn.Flatten(), nn.Linear(64, 2)), Compose()), blobs))
    assert tried == [10.0, 3.0, 1.0]
    assert attack._closeness == 3.0


def test_errors_have_the_spectrum_that_was_learned() -> None:
    errors = torch.randn(5, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    errors[:, 1] += 0.5 * errors[:, 0]
    found = ErrorSpectrum.of(errors)
    e, v = errors.double().numpy(), found.colors.double().numpy()
    power = np.zeros((2, 4, 3))
    for c, k, m in np.ndindex(2, 4, 3):
        for row in np.einsum("nchw,cd->ndhw", e, v)[:, c]:
            wave = sum(row[i, j] * np.exp(-2j * math.pi * (k * i / 4 + m * j / 3)) for i, j in np.ndindex(4, 3))
            power[c, k, m] += abs(wave) ** 2 / 12 / 5
    for c, k, m in np.ndindex(2, 4, 3):
        around = [power[c, (k + i) % 4, (m + j) % 3] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        assert found.amplitude[c, k, m].item() == pytest.approx(math.sqrt(np.mean(around)), rel=1e-4)
    mixed = np.einsum("nchw,ndhw->cd", np.einsum("nchw,ca->nahw", e, v), np.einsum("nchw,ca->nahw", e, v))
    assert abs(mixed[0, 1]) < 1e-4 * mixed[0, 0]


def test_errors_made_of_white_noise_are_of_the_size_and_colors_of_those_learned() -> None:
    stream = torch.Generator().manual_seed(0)
    gray = torch.randn(40, 1, 8, 8, generator=stream).cumsum(3) * torch.tensor([1.0, 0.8, 0.5])[:, None, None]
    errors = gray + 0.1 * torch.randn(40, 3, 8, 8, generator=stream)
    made = ErrorSpectrum.of(errors).shaped(torch.randn(4000, 3, 8, 8, generator=stream))
    learned, drawn = (torch.einsum("nchw,ndhw->cd", some, some) / some[:, 0].numel() for some in (errors, made))
    assert torch.allclose(learned, drawn, rtol=0.05, atol=0.02)


def test_progress_is_that_of_the_training_and_then_of_the_choice(blobs: sf.Data) -> None:
    told: list[tuple[int, int]] = []
    attack = Refine(**SMALL, fitting=Fitting(epochs=2, batch_size=64), search=Search(steps=1, closeness=(1.0, 0.1)))
    attack.fit(adversary(linear_target(), blobs, told))
    assert told == [(1, 4), (2, 4), (4, 4)]


def test_the_mirror_is_the_same_attack_with_another_network() -> None:
    search = Search(steps=3)
    assert mirror(fitting=QUICK, search=search, pictures=5) == Refine(network="mirror", fitting=QUICK, search=search, pictures=5)


@pytest.mark.parametrize(
    "arguments",
    [{"steps": 0}, {"draws": 0}, {"kernel": 0.0}, {"learning_rate": math.inf}, {"closeness": ()}, {"closeness": (-1.0,)}],
)
def test_a_search_that_cannot_be_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Search(**arguments)


@pytest.mark.parametrize("arguments", [{"pictures": 0}, {"blocks": -1}], ids=str)
def test_an_attack_that_cannot_be_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Refine(**arguments)
