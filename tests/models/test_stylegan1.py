# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from sfumato import seeds
from sfumato.models.framing import framed
from sfumato.models.stylegan1 import StyleGan1
from sfumato.priors.base import Style

Array = npt.NDArray[np.float64]
LINE = np.array([1.0, 2.0, 1.0]) / 4
PLACES = tuple(product(range(3), range(3)))


@pytest.fixture(name="generator")
def _generator() -> StyleGan1:
    """The layer that doubles to 8 pixels is in two steps, the one that doubles to 16 in one."""
    with seeds.ambient(0, "weights"):
        made = StyleGan1({4: 5, 8: 4, 16: 3}, latent=6, styles=7, depth=2, fused=16)
        for name, parameter in made.named_parameters():
            if name.endswith(("bias", "const", "apply_noise.weight")):
                torch.nn.init.normal_(parameter)
        torch.nn.init.normal_(made.w_mean)
    return made.requires_grad_(False)


def _normal(*size: int, name: str = "x") -> Tensor:
    return torch.randn(*size, generator=seeds.generator(0, name))


def correlated(x: Array, weight: Array) -> Array:
    """What PyTorch and TensorFlow call a 3x3 convolution, of one picture (I, H, W), pixel by pixel."""
    side = x.shape[1]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), side, side))
    for i, j in product(range(side), range(side)):
        for k, m in PLACES:
            out[:, i, j] += weight[:, :, k, m] @ padded[:, i + k, j + m]
    return out


def spread(x: Array, weight: Array) -> Array:
    """Doubling and convolution in one: each pixel is written over four places, and from each the kernel is spread."""
    side = 2 * x.shape[1]
    out = np.zeros((len(weight), side + 2, side + 2))
    for i, j in product(range(side), range(side)):
        for k, m in PLACES:
            out[:, i + k, j + m] += weight[:, :, k, m] @ x[:, i // 2, j // 2]
    return out[:, 1:-1, 1:-1]


def blurred(x: Array) -> Array:
    """Each channel blurred by 1, 2, 1 both ways."""
    padded, side = np.pad(x, ((0, 0), (1, 1), (1, 1))), x.shape[1]
    parts = [LINE[k] * LINE[m] * padded[:, k : k + side, m : m + side] for k, m in PLACES]
    return np.asarray(sum(parts))


def rectified(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x)


def mapped(weights: dict[str, Array], z: Array) -> Array:
    """The mapping of two layers: a learning rate of 0.01, a gain of sqrt 2."""
    w = z / np.sqrt((z**2).mean(1, keepdims=True) + 1e-8)
    for place in range(2):
        weight, bias = weights[f"mapping.dense{place}.weight"], weights[f"mapping.dense{place}.bias"]
        w = rectified(w @ (weight * 0.01 * np.sqrt(2 / w.shape[1])).T + 0.01 * bias)
    return np.asarray(w)


def layer(weights: dict[str, Array], place: int, x: Array, style: Array) -> Array:
    """One layer on one picture, (I, H, W), with one style, (D,)."""
    of = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"synthesis.layer{place}.")}
    if place:
        weight = of["weight"] * np.sqrt(2 / (9 * len(x)))
        if place == 2:
            x = correlated(x.repeat(2, 1).repeat(2, 2), weight)
        else:
            x = spread(x, weight) if place == 4 else correlated(x, weight)
        x = blurred(x) if place in (2, 4) else x
    x = x + of["apply_noise.noise"][0] * of["apply_noise.weight"][:, None, None]
    x = rectified(x + of["bias"][:, None, None])
    x = x - x.mean((1, 2), keepdims=True)
    x = x / np.sqrt((x**2).mean((1, 2), keepdims=True) + 1e-8)
    scale, shift = np.split(of["style.weight"] @ style / np.sqrt(len(style)) + of["style.bias"], 2)
    return np.asarray(x * (1 + scale[:, None, None]) + shift[:, None, None])


def test_the_whole_is_that_of_the_paper(generator: StyleGan1) -> None:
    weights = {name: value.double().numpy() for name, value in generator.network.state_dict().items()}
    w = mapped(weights, _normal(2, 6).double().numpy())
    np.testing.assert_allclose(generator.mapping(_normal(2, 6)).numpy(), w, atol=1e-5)
    pictures = []
    for style in w:
        x = weights["synthesis.layer0.const"][0]
        for place in range(6):
            x = layer(weights, place, x, style + 0.1 * place)
        drawn = np.einsum("oi,ihw->ohw", weights["synthesis.output2.weight"][:, :, 0, 0] / np.sqrt(3), x)
        pictures.append(drawn + weights["synthesis.output2.bias"][:, None, None])
    found = generator.synthesis(torch.stack([generator.mapping(_normal(2, 6)) + 0.1 * place for place in range(6)], 1))
    np.testing.assert_allclose(found.numpy(), np.clip((np.array(pictures) + 1) / 2, 0, 1), atol=1e-5)
    assert ((found > 0) & (found < 1)).float().mean() > 0.1  # clipping hides nothing


def test_one_step_of_doubling_is_two_with_a_turned_kernel() -> None:
    with seeds.ambient(0, "weights"):
        made = [StyleGan1({4: 3, 8: 2}, latent=4, styles=4, depth=1, fused=side).requires_grad_(False) for side in (8, 16)]
    weights = dict(made[0].network.state_dict())
    w = _normal(2, 4)
    made[1].network.load_state_dict(weights)
    assert (made[0].activations(w, 3) - made[1].activations(w, 3)).abs().max() > 0.1
    weights["synthesis.layer2.weight"] = weights["synthesis.layer2.weight"].flip(2, 3)
    made[1].network.load_state_dict(weights)
    torch.testing.assert_close(made[0].activations(w, 3), made[1].activations(w, 3))


@pytest.mark.parametrize("start", range(7))
def test_a_synthesis_goes_on_where_activations_end(generator: StyleGan1, start: int) -> None:
    w = generator.mapping(_normal(2, 6))[:, None] + _normal(2, 6, 7, name="w")
    before = generator.activations(w, start)
    assert torch.equal(generator.synthesis(w, start=start, activations=before), generator.synthesis(w))
    if start:
        once = generator.activations(w, start, start - 1, generator.activations(w, start - 1))
        assert torch.equal(once, before)
        other = w.clone()
        other[:, start:] += 1  # what comes later does not matter yet
        assert torch.equal(generator.activations(other, start), before)
        other[:, start - 1] += 1
        assert not torch.equal(generator.activations(other, start), before)


def test_the_sizes_are_those_of_the_layers(generator: StyleGan1) -> None:
    w = generator.mapping(_normal(2, 6))
    shapes = [tuple(generator.activations(w, stop).shape[1:]) for stop in range(7)]
    assert shapes == [(5, 4, 4), (5, 4, 4), (5, 4, 4), (4, 8, 8), (4, 8, 8), (3, 16, 16), (3, 16, 16)]
    assert generator(_normal(2, 6)).shape == (2, 3, 16, 16)


def test_it_is_a_style_whose_rows_do_not_see_each_other(generator: StyleGan1) -> None:
    assert isinstance(generator, Style)
    z = _normal(3, 6)
    torch.testing.assert_close(generator(z)[1:2], generator(z[1:2]))
    torch.testing.assert_close(generator.mapping(z), generator.mapping(5 * z))
    torch.testing.assert_close(generator.mapping(z, psi=0.0), generator.w_mean.expand(3, -1))
    torch.testing.assert_close(generator.mapping(z, psi=0.5), (generator.mapping(z) + generator.w_mean) / 2)


def test_a_gradient_reaches_the_styles_of_every_layer(generator: StyleGan1) -> None:
    w = generator.mapping(_normal(2, 6))[:, None].repeat(1, 6, 1).requires_grad_()
    generator.synthesis(w).square().sum().backward()
    assert w.grad is not None
    assert (w.grad.abs().amax(2) > 0).all()


def test_the_middle_is_kept_and_resized() -> None:
    x = _normal(2, 3, 16, 16)
    whole = framed(x, None, None)
    torch.testing.assert_close(whole, (x / 2 + 0.5).clamp(0, 1))
    torch.testing.assert_close(framed(x, 12, None), whole[:, :, 2:14, 2:14])
    assert framed(x, 12, 6).shape == (2, 3, 6, 6)
    with seeds.ambient(0, "weights"):
        made = StyleGan1({4: 3, 8: 3}, latent=4, styles=4, depth=1, crop=6, size=5)
    assert made(_normal(2, 4)).shape == (2, 3, 5, 5)
