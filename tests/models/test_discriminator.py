# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.discriminator import InversionDiscriminator, MinibatchDiscrimination


def test_closeness_is_that_of_the_paper() -> None:
    layer = MinibatchDiscrimination(3, kernels=4, dims=2, std=0.5)
    features = torch.randn(5, 3, generator=seeds.generator(0, "features"))
    weight, given = layer.weight.detach().numpy(), features.numpy()
    slow = np.zeros((5, 4))
    for picture in range(5):
        for kernel in range(4):
            for other in range(5):
                apart = abs(given[picture] @ weight[:, kernel] - given[other] @ weight[:, kernel]).sum()
                slow[picture, kernel] += np.exp(-apart)
    np.testing.assert_allclose(layer(features).detach().numpy(), slow - 1, rtol=1e-5, atol=1e-6)


def test_in_evaluation_a_picture_is_alone() -> None:
    discriminator = InversionDiscriminator((1, 8, 8), 3, channels=4, kernels=2, dims=2, std=0.05)
    x = torch.rand(4, 1, 8, 8, generator=seeds.generator(0, "x"))
    together = discriminator(x)[1]
    assert not torch.allclose(together[:1], discriminator(x[:1])[1], atol=1e-4)
    discriminator.eval()
    for one, every in zip(discriminator(x[:1]), discriminator(x), strict=True):
        torch.testing.assert_close(one, every[:1])


def test_at_64_it_is_the_release_network() -> None:
    discriminator = InversionDiscriminator((3, 64, 64), 1000)
    convolutions = [layer for layer in discriminator.layers if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (64, 5, 2), (128, 5, 2), (256, 5, 2), (256, 3, 2),
    ]  # fmt: skip
    assert discriminator.closeness.weight.shape == (4096, 64, 50)
    assert (discriminator.classifier.in_features, discriminator.classifier.out_features) == (4160, 1000)


@pytest.mark.parametrize(("shape", "features"), [((3, 32, 32), 4096), ((1, 8, 8), 4096), ((1, 28, 28), 4096)])
def test_small_pictures_keep_four_pixels(shape: tuple[int, int, int], features: int) -> None:
    discriminator = InversionDiscriminator(shape, 5, kernels=2, dims=2)
    seen, logits = discriminator(torch.rand(2, *shape))
    assert seen.shape == (2, features)
    assert logits.shape == (2, 5)


@pytest.mark.parametrize(("shape", "sizes"), [((3, 3, 8), {}), ((3, 8, 8), {"channels": 0}), ((3, 8, 8), {"std": 0.0})])
def test_what_cannot_be_is_refused(shape: tuple[int, int, int], sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be positive, got"):
        InversionDiscriminator(shape, 5, **sizes)
