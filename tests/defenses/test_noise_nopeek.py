# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

import sfumato as sf
from sfumato.analysis.dependence import distance_correlation
from sfumato.errors import ConfigError
from steps import step_of


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_it_adds_the_noise_of_noise(distribution: str) -> None:
    z = torch.rand(5, 4)
    alone, with_penalty = sf.Noise(0.3, distribution), sf.NoiseNopeek(0.3, 0.5, distribution)
    first, second = (part.protect(z, torch.Generator().manual_seed(0)) for part in (alone, with_penalty))
    assert torch.equal(first, second)
    assert with_penalty.noise_std == 0.3
    assert with_penalty.gaussian == (distribution == "gaussian")
    assert with_penalty.stochastic


@pytest.mark.parametrize("squared", [False, True])
def test_the_penalty_is_the_weighted_correlation_without_the_noise(squared: bool, small_split: sf.Split) -> None:
    defense = sf.NoiseNopeek(sigma=5.0, weight=0.7, squared=squared)
    step = step_of(small_split, defense)
    assert not torch.equal(step.z, step.protected)
    assert defense.penalty(step).item() == pytest.approx(0.7 * distance_correlation(step.x, step.z, squared).item())


def test_it_trains_as_noise_and_distcorr_do_together(small_split: sf.Split, blobs: sf.Data) -> None:
    one = sf.NoiseNopeek(sigma=0.1, weight=0.5, distribution="gaussian", squared=False)
    first, second = (
        sf.harden(small_split, blobs, defenses=defenses, epochs=1).split.state_dict()
        for defenses in ([one], [sf.Noise(sigma=0.1), sf.DistCorr(weight=0.5)])
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_beside_noise_both_add_up() -> None:
    both = sf.Compose(sf.Noise(sigma=0.3), sf.NoiseNopeek(sigma=0.4, weight=0.5, distribution="gaussian"))
    assert both.noise_std == pytest.approx(0.5)
    assert both.gaussian


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": -0.1, "weight": 0.5}, "sigma must be >= 0"),
        ({"sigma": 0.1, "weight": math.nan}, r"weight must be >= 0, got nan; for noise alone use Noise\(sigma=0.1\)"),
        ({"sigma": 0.1, "weight": 0.5, "distribution": "uniform"}, "distribution must be one of gaussian, laplace"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.NoiseNopeek(**arguments)
