# SPDX-License-Identifier: Apache-2.0
"""The likelihood attack on defenses that draw, or that change features otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato as sf
from sfumato.attacks.features.matching import kernel_distance
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.target import Target, WeightsView
from toys import attacked, error, linear_target


def test_the_distance_is_the_logarithm_of_a_mean_over_draws() -> None:
    stream = torch.Generator().manual_seed(0)
    draws, z = torch.randn(3, 2, 4, 5, generator=stream), torch.randn(2, 4, 5, generator=stream)
    w = 0.7
    slow = np.zeros(2)
    for n in range(2):
        for i in np.ndindex(4, 5):
            kernels = [np.exp(-((draws[(j, n, *i)].item() - z[(n, *i)].item()) ** 2) / (2 * w**2)) for j in range(3)]
            slow[n] -= 2 * w**2 * np.log(np.mean(kernels))
    assert kernel_distance(draws, z, torch.tensor(w)).numpy() == pytest.approx(slow, rel=1e-4)


def test_its_limits_are_the_squared_distance_and_its_expectation() -> None:
    stream = torch.Generator().manual_seed(0)
    draws, z = torch.randn(3, 2, 5, generator=stream), torch.randn(2, 5, generator=stream)
    squares = (draws - z).square().sum(2)
    assert torch.allclose(kernel_distance(draws[:1], z, torch.tensor(0.3)), squares[0], rtol=1e-4)
    assert torch.allclose(kernel_distance(draws, z, torch.tensor(100.0)), squares.mean(0), rtol=1e-2)


@pytest.mark.parametrize("rescale", [False, True])
def test_knowing_that_features_are_dropped_beats_matching_them(
    rescale: bool, small_split: sf.Split, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(small_split, Compose(sf.Dropout(p=0.5, rescale=rescale)))
    options = {"steps": 150, "learning_rate": 0.03, "draws": 16}
    knowing = error(sf.Likelihood(**options), target, blobs)
    assert knowing < 0.2 * error(sf.Likelihood(**options, kernel=1e3), target, blobs)  # the expectation of the squared distance
    monkeypatch.setattr(WeightsView, "gaussian", True)
    assert knowing < 0.2 * error(sf.Likelihood(**options), target, blobs)  # the squared distance to the clean features


@pytest.mark.parametrize("defenses", [(), (sf.Noise(sigma=0.1),)], ids=["none", "noise"])
def test_gaussian_noise_needs_no_draws(
    defenses: tuple[sf.Defense, ...], small_split: sf.Split, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(view: WeightsView, z: Tensor) -> Tensor:
        raise AssertionError("drawn")

    monkeypatch.setattr(WeightsView, "protect", refuse)
    target = Target(small_split, Compose(*defenses))
    first, second = (attacked(sf.Likelihood(steps=5, draws=draws), target, blobs) for draws in (1, 9))
    assert torch.equal(first.reconstructions["inference"][0].x_hat, second.reconstructions["inference"][0].x_hat)


def test_a_defense_that_changes_features_without_chance_is_part_of_the_head(blobs: sf.Data) -> None:
    class Turned(sf.Defense):
        name = "turned"

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return -2 * z

    attack = sf.Likelihood(steps=1500, learning_rate=0.02, smoothness=0.0)
    assert error(attack, linear_target(Turned()), blobs) < 1e-4


def test_who_has_the_weights_draws_alone_and_with_gradient(small_split: sf.Split) -> None:
    view = Target(small_split, Compose(sf.Dropout(p=0.5))).view("weights", torch.Generator().manual_seed(0))
    assert isinstance(view, WeightsView)
    z = torch.ones(2, 100, requires_grad=True)
    first, second = view.protect(z), view.protect(z)
    assert not torch.equal(first, second)
    first.sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, first)
    assert view.queries == 0


@pytest.mark.parametrize("arguments", [{"draws": 0}, {"kernel": 0.0}, {"steps": 0}, {"smoothness": -1.0}], ids=str)
def test_what_makes_no_sense_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        sf.Likelihood(**arguments)
