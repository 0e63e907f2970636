# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.style import StyleCritic, StyleGenerator, _Modulated
from sfumato.priors.base import Style


@pytest.fixture(name="generator")
def _generator() -> StyleGenerator:
    with seeds.ambient(0, "weights"):
        return StyleGenerator((3, 16, 16), latent=6, width=4).requires_grad_(False)


def _normal(*size: int, name: str = "x") -> torch.Tensor:
    return torch.randn(*size, generator=seeds.generator(0, name))


def test_it_is_a_style(generator: StyleGenerator) -> None:
    assert isinstance(generator, Style)
    assert generator.layers == 3
    x = generator(_normal(5, 6))
    assert x.shape == (5, 3, 16, 16)
    assert 0 < float(x.min()) < float(x.max()) < 1


@pytest.mark.parametrize("doubles", [False, True])
def test_the_convolution_is_that_of_the_paper(doubles: bool) -> None:
    layer = _Modulated(3, 2, 4, doubles=doubles)
    x, w = _normal(2, 3, 4, 4), _normal(2, 4, name="w")
    with torch.no_grad():
        scales = layer.scale(w).numpy().astype(np.float64)
        found = layer(x, w).numpy()
    weight = layer.weight.detach().numpy().astype(np.float64)
    seen = x.numpy().repeat(2, 2).repeat(2, 3) if doubles else x.numpy()
    side = seen.shape[2]
    for n in range(2):
        for out in range(2):
            own = weight[out] * scales[n][:, None, None]
            own = own / np.sqrt((own**2).sum() + 1e-8)
            for i in range(side):
                for j in range(side):
                    total = sum(
                        own[c, a, b] * seen[n, c, i + a - 1, j + b - 1]
                        for c in range(3)
                        for a in range(3)
                        for b in range(3)
                        if 0 <= i + a - 1 < side and 0 <= j + b - 1 < side
                    )
                    assert found[n, out, i, j] == pytest.approx(np.sqrt(2) * (total if total > 0 else 0.2 * total), abs=2e-5)


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_a_synthesis_goes_on_where_activations_end(generator: StyleGenerator, start: int) -> None:
    w = generator.mapping(_normal(2, 6))
    before = generator.activations(w, start)
    torch.testing.assert_close(generator.synthesis(w, start=start, activations=before), generator.synthesis(w))
    if start:
        once = generator.activations(w, start, start - 1, generator.activations(w, start - 1))
        torch.testing.assert_close(once, before)


def test_each_layer_has_a_style_of_its_own(generator: StyleGenerator) -> None:
    w = generator.mapping(_normal(2, 6))
    layered = w[:, None].repeat(1, 3, 1)
    torch.testing.assert_close(generator.synthesis(layered), generator.synthesis(w))
    for layer in range(3):
        other = layered.clone()
        other[:, layer] += 1
        assert not torch.equal(generator.synthesis(other), generator.synthesis(w))
        torch.testing.assert_close(generator.activations(other, layer), generator.activations(w, layer))


def test_truncation_goes_to_the_mean(generator: StyleGenerator) -> None:
    z = _normal(4000, 6)
    generator.measure(z)
    torch.testing.assert_close(generator.w_mean, generator.mapping(z).mean(0))
    assert generator.w_mean.abs().max() > 0.1
    w = generator.mapping(z[:3])
    torch.testing.assert_close(generator.mapping(z[:3], psi=0.0), generator.w_mean.expand(3, -1))
    torch.testing.assert_close(generator.mapping(z[:3], psi=0.5), (w + generator.w_mean) / 2)


def test_the_mapping_ends_in_a_leaky_relu(generator: StyleGenerator) -> None:
    z = _normal(4, 6)
    w = generator.mapping(z)
    before = generator.steps[:-1](z / z.square().mean(1, keepdim=True).sqrt())
    torch.testing.assert_close(torch.where(w > 0, w, 5 * w), before)  # MIRROR's P space
    torch.testing.assert_close(generator.mapping(7 * z), w)


def test_a_critic_scores_each_picture_alone() -> None:
    critic = StyleCritic((3, 16, 16), width=2)
    x = torch.rand(3, 3, 16, 16, generator=seeds.generator(0, "x"))
    assert critic(x).shape == (3,)
    torch.testing.assert_close(critic(x)[1:2], critic(x[1:2]))


@pytest.mark.parametrize("made", [StyleGenerator, StyleCritic])
def test_what_cannot_be_is_refused(made: type[StyleGenerator]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        made((3, 16, 16), width=0)
    with pytest.raises(ConfigError, match="got 17x17"):
        made((3, 17, 17))
