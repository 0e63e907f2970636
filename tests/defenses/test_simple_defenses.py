# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import sfumato as sf
from sfumato.errors import ConfigError
from sfumato.train import assemble


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_sigma_is_the_standard_deviation_of_both_distributions(distribution: str) -> None:
    z = torch.zeros(200, 1000)
    noise = sf.Noise(sigma=0.4, distribution=distribution).protect(z, torch.Generator().manual_seed(0))
    assert noise.mean().item() == pytest.approx(0, abs=5e-3)
    assert noise.std().item() == pytest.approx(0.4, rel=0.01)


def test_the_two_distributions_have_their_own_tails() -> None:
    z, stream = torch.zeros(200, 1000), torch.Generator().manual_seed(0)
    kurtosis = {}
    for distribution in ("gaussian", "laplace"):
        noise = sf.Noise(sigma=1.0, distribution=distribution).protect(z, stream)
        kurtosis[distribution] = noise.pow(4).mean().item()
    assert kurtosis["gaussian"] == pytest.approx(3, rel=0.05)
    assert kurtosis["laplace"] == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_noise_refuses_a_sigma_that_is_none(sigma: float) -> None:
    with pytest.raises(ConfigError, match="sigma must be >= 0"):
        sf.Noise(sigma=sigma)


def test_noise_refuses_a_distribution_that_it_does_not_know() -> None:
    with pytest.raises(
        ConfigError, match=r"distribution must be one of gaussian, laplace, got 'gausian' \(did you mean 'gaussian'\?\)"
    ):
        sf.Noise(sigma=0.1, distribution="gausian")


def test_dropout_drops_its_share_and_keeps_the_rest_as_it_is() -> None:
    z = torch.rand(200, 1000) + 1
    dropped = sf.Dropout(p=0.3).protect(z, torch.Generator().manual_seed(0))
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(0.3, abs=5e-3)
    assert torch.equal(dropped[~zero], z[~zero])


def test_dropout_rescaled_keeps_the_mean() -> None:
    dropped = sf.Dropout(p=0.3, rescale=True).protect(torch.ones(200, 1000), torch.Generator().manual_seed(0))
    assert dropped.mean().item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_dropout_refuses_a_p_outside_its_range(p: float) -> None:
    with pytest.raises(ConfigError, match=r"p must be in \[0, 1\)"):
        sf.Dropout(p=p)


def test_bottleneck_has_the_reference_placement(small_split: sf.Split, blobs: sf.Data) -> None:
    target = assemble(small_split, blobs, [sf.Bottleneck(channels=3)], seed=0)
    _, narrow, sigmoid = target.split.head
    widen, _ = target.split.tail
    assert isinstance(narrow, nn.Conv2d)
    assert (narrow.in_channels, narrow.out_channels, narrow.kernel_size, narrow.padding) == (4, 3, (3, 3), (1, 1))
    assert isinstance(sigmoid, nn.Sigmoid)
    assert (widen.in_channels, widen.out_channels, widen.kernel_size) == (3, 4, (3, 3))
    assert torch.equal(narrow.bias, torch.zeros(3))
    assert narrow.weight.abs().max().item() <= math.sqrt(6 / (4 * 9 + 3 * 9))  # Xavier uniform


def test_bottleneck_narrows_vectors_with_linear_layers(blobs: sf.Data) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 2))
    target = assemble(sf.split(net, at="1"), blobs, [sf.Bottleneck(channels=3)], seed=0)
    assert target.features(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_bottleneck_refuses_no_channels() -> None:
    with pytest.raises(ConfigError, match="channels must be at least 1"):
        sf.Bottleneck(channels=0)
