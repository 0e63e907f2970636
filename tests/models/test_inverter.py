# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.inverter import MirrorDecoder, ResidualDecoder
from sfumato.models.mirror import mirror_layers

side = st.integers(1, 20)
maps = st.tuples(st.integers(1, 6), side, side)
tokens = st.tuples(st.integers(1, 30), st.integers(1, 8))
vectors = st.tuples(st.integers(1, 40))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("features", "count"),
    [
        ((8, 8, 8), 711_539),  # the paper's 711.54 k
        ((8, 16, 16), 674_483),  # one upsampling less
        ((8, 4, 4), 748_595),  # one more
    ],
)
def test_residual_decoder_is_the_published_one(features: tuple[int, int, int], count: int) -> None:
    assert parameters(ResidualDecoder(features, (3, 32, 32))) == count


def test_residual_decoder_multiplies_as_often_as_the_published_one() -> None:
    decoder = ResidualDecoder((8, 8, 8), (3, 32, 32)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(1, 8, 8, 8))
    assert counter.get_total_flops() / 2 == pytest.approx(54.3e6, rel=0.01)


@settings(deadline=None, max_examples=40)
@given(features=st.one_of(maps, tokens, vectors), colors=st.sampled_from([1, 3]), height=side, width=side)
def test_residual_decoder_takes_any_features(features: tuple[int, ...], colors: int, height: int, width: int) -> None:
    decoder = ResidualDecoder(features, (colors, height, width), blocks=1, channels=4)
    x_hat = decoder(torch.rand(2, *features, generator=seeds.generator(0, "z")))
    assert x_hat.shape == (2, colors, height, width)
    assert x_hat.min() >= 0
    assert x_hat.max() <= 1


@pytest.mark.parametrize("features", [(8, 8, 8), (8, 7, 5), (2, 40, 40), (17, 6), (10, 6), (24,), (2, 3, 4, 5)])
def test_residual_decoder_passes_gradients(features: tuple[int, ...]) -> None:
    with seeds.ambient(0, "weights"):
        decoder = ResidualDecoder(features, (3, 16, 16), blocks=2, channels=8)
    z = torch.rand(4, *features, generator=seeds.generator(0, "z"), requires_grad=True)
    (decoder(z) - 0.3).square().mean().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []
    assert [name for name, p in decoder.named_parameters() if p.dim() > 1 and not p.grad.any()] == []
    assert z.grad is not None
    assert z.grad.any()


def test_residual_decoder_lays_tokens_out_in_order() -> None:
    decoder = ResidualDecoder((5, 3), (1, 8, 8), blocks=0, channels=4)
    z = torch.arange(15.0).reshape(1, 5, 3)
    grid = decoder.layers[0](z)
    assert torch.equal(grid[0, :, 0, 1], z[0, 2])  # token 0 is the class token
    assert torch.equal(grid[0, :, 1, 0], z[0, 3])


@pytest.mark.parametrize(
    ("features", "image", "options"),
    [
        ((), (3, 8, 8), {}),
        ((4,), (8, 8), {}),
        ((4, 0, 2), (3, 8, 8), {}),
        ((4,), (3, 8, 8), {"blocks": -1}),
        ((4,), (3, 8, 8), {"channels": 0}),
    ],
)
def test_residual_decoder_refuses_shapes_that_cannot_be(
    features: tuple[int, ...], image: tuple[int, ...], options: dict[str, int]
) -> None:
    with pytest.raises(ConfigError, match="got"):
        ResidualDecoder(features, image, **options)


def mirrored(head: nn.Module, shape: tuple[int, int, int]) -> MirrorDecoder:
    return MirrorDecoder(mirror_layers(head, torch.zeros(1, *shape)), shape)


def error_after_training(decoder: nn.Module, z: Tensor, x: Tensor, steps: int) -> float:
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (decoder(z) - x).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((decoder(z) - x).square().mean())


def test_mirror_inverts_a_linear_head() -> None:
    # pixels from 0.25 to 0.75: a sigmoid of a linear map comes close to the identity there
    x = 0.25 + torch.rand(64, 1, 8, 8, generator=seeds.generator(0, "x")) / 2
    with seeds.ambient(0, "weights"):
        head = nn.Conv2d(1, 16, 3, padding=1)
        decoder = mirrored(head, (1, 8, 8))
    with torch.no_grad():
        z = head(x)
    assert float((x - x.mean(0)).square().mean()) > 0.02
    assert error_after_training(decoder, z, x, steps=300) < 1e-3


def test_mirror_has_the_layers_of_the_head_in_reverse() -> None:
    head = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 9),
    )
    decoder = mirrored(head, (3, 16, 16))
    leaves = [type(module).__name__ for module in decoder.modules() if not list(module.children())]
    assert leaves[:4] == ["Linear", "ReLU", "Flatten", "Unflatten"]
    assert leaves[4:] == ["ConvTranspose2d", "ReLU", "Upsample", "ConvTranspose2d", "Sigmoid"]
    assert [m.kernel_size for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)] == [(3, 3), (5, 5)]


@pytest.mark.parametrize(
    "head", [nn.Identity(), nn.AvgPool2d(2), nn.Flatten(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())]
)
def test_mirror_of_nothing_learned_is_one_convolution(head: nn.Module) -> None:
    decoder = mirrored(head, (3, 8, 8))
    assert decoder(head(torch.zeros(2, 3, 8, 8))).shape == (2, 3, 8, 8)
    convolutions = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.kernel_size) for m in convolutions] == [(3, (3, 3))]


def test_mirror_refuses_layers_that_are_no_chain() -> None:
    layers = mirror_layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3)), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ConfigError, match=r"\(1, 8, 8\), got a conv layer that takes \(2, 6, 6\)"):
        MirrorDecoder(layers[1:], (1, 8, 8))
    with pytest.raises(ConfigError, match="use mirror_layers"):
        MirrorDecoder(layers, (1, 9, 9))
