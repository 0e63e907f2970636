# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.conditional import ConditionalGenerator, ConditionalNorm, ProjectionDiscriminator


def test_a_conditional_norm_scales_and_shifts_by_class() -> None:
    norm = ConditionalNorm(2, 3)
    x, y = torch.randn(5, 2, 3, 3, generator=seeds.generator(0, "x")), torch.tensor([0, 1, 2, 1, 0])
    plain = norm(x, y)
    mean, spread = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(plain, (x - mean) / (spread + 1e-5).sqrt())
    with torch.no_grad():
        norm.scale.weight[1], norm.shift.weight[1] = torch.tensor([2.0, 3.0]), torch.tensor([-1.0, 1.0])
    moved = norm(x, y)
    torch.testing.assert_close(moved[y != 1], plain[y != 1])
    torch.testing.assert_close(moved[y == 1, 1], 3 * plain[y == 1, 1] + 1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 28, 28)])
def test_pictures_of_any_class_and_size_are_made_and_judged(shape: tuple[int, int, int]) -> None:
    with seeds.ambient(0, "weights"):
        generator = ConditionalGenerator(shape, 4, latent=5, width=2)
        discriminator = ProjectionDiscriminator(shape, 4, width=2)
    z, y = torch.randn(6, 5, generator=seeds.generator(0, "z")), torch.arange(6) % 4
    x = generator(z, y)
    assert x.shape == (6, *shape)
    assert 0 < float(x.detach().min()) < float(x.detach().max()) < 1
    scores = discriminator(x, y)
    assert scores.shape == (6,)
    scores.square().sum().backward()
    for parameter in (*generator.parameters(), *discriminator.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_the_score_is_a_projection_on_the_class() -> None:
    discriminator = ProjectionDiscriminator((1, 8, 8), 3, width=2).eval()
    x = torch.rand(4, 1, 8, 8, generator=seeds.generator(0, "x"))
    with torch.no_grad():
        seen = discriminator.blocks(2 * x - 1).sum((2, 3))
        plain, embedded = discriminator.score(seen)[:, 0], discriminator.embed(torch.arange(3)) @ seen.T
        for label in range(3):
            torch.testing.assert_close(discriminator(x, torch.full((4,), label)), plain + embedded[label])


def test_every_layer_of_the_discriminator_has_norm_one() -> None:
    discriminator = ProjectionDiscriminator((1, 8, 8), 3, width=4)
    with torch.no_grad():
        for _ in range(30):  # power iterations, one a call
            discriminator(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))
    layers = [layer for layer in discriminator.eval().modules() if hasattr(layer, "parametrizations")]
    assert len(layers) == 3 * 2 + 2
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.05)


def test_what_cannot_be_is_refused() -> None:
    for made in (ConditionalGenerator, ProjectionDiscriminator):
        with pytest.raises(ConfigError, match="must be at least 1"):
            made((3, 16, 16), 0)
        with pytest.raises(ConfigError, match="got 17x17"):
            made((3, 17, 17), 3)
