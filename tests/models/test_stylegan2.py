# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from sfumato import seeds
from sfumato.models.modulated import doubled, modulated
from sfumato.models.stylegan2 import StyleGan2
from sfumato.priors.base import Style

LINE = np.array([1.0, 3.0, 3.0, 1.0])
KERNEL = np.outer(LINE, LINE) / 64
Array = npt.NDArray[np.float64]


@pytest.fixture(name="generator")
def _generator() -> StyleGan2:
    with seeds.ambient(0, "weights"):
        made = StyleGan2({4: 5, 8: 4, 16: 3}, latent=6, styles=7, depth=2)
        for name, parameter in made.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                torch.nn.init.normal_(parameter)
    return made.requires_grad_(False)


def _normal(*size: int, name: str = "x") -> Tensor:
    return torch.randn(*size, generator=seeds.generator(0, name))


def convolved(x: Array, kernel: Array, before: int, after: int) -> Array:
    """One channel, convolved with a kernel after padding with zeros, literally."""
    padded, size = np.pad(x, (before, after)), len(kernel)
    side = len(padded) - size + 1
    out = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            out[i, j] = (padded[i : i + size, j : j + size] * kernel[::-1, ::-1]).sum()
    return out


def spread(x: Array) -> Array:
    """One channel with zeros between its pixels."""
    out = np.zeros((2 * len(x), 2 * len(x)))
    out[::2, ::2] = x
    return out


def slow(x: Array, weight: Array, styles: Array, *, up: bool, norm: bool) -> Array:
    """A modulated convolution, picture by picture: the weights are scaled, not the features."""
    pictures = []
    for one, style in zip(x, styles, strict=True):
        own = weight * style[None, :, None, None]
        if norm:
            own = own / np.sqrt((own**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        outputs = []
        for each in own:
            if up:  # a true convolution of the pixels with zeros between them, then the blur, four times as strong
                full = sum(convolved(spread(channel), kernel, 2, 1) for channel, kernel in zip(one, each, strict=True))
                outputs.append(convolved(full, 4 * KERNEL, 1, 1))
            else:  # PyTorch's convolution: a correlation
                edge = len(each[0]) // 2
                outputs.append(sum(convolved(c, k[::-1, ::-1], edge, edge) for c, k in zip(one, each, strict=True)))
        pictures.append(outputs)
    return np.array(pictures)


@pytest.mark.parametrize(("size", "up", "norm"), [(3, False, True), (3, True, True), (1, False, False)])
def test_the_convolution_is_that_of_the_paper(size: int, up: bool, norm: bool) -> None:
    x, weight, styles = _normal(2, 3, 4, 4), _normal(2, 3, size, size, name="w"), _normal(2, 3, name="s")
    kernel = torch.tensor(KERNEL, dtype=torch.float32) if up else None
    found = modulated(x, weight, styles, kernel=kernel, norm=norm)
    wanted = slow(x.double().numpy(), weight.double().numpy(), styles.double().numpy(), up=up, norm=norm)
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)


def test_a_picture_is_doubled_as_in_the_paper() -> None:
    x = _normal(1, 2, 5, 5)
    found = doubled(x, torch.tensor(KERNEL, dtype=torch.float32))
    wanted = [convolved(spread(channel), 4 * KERNEL, 2, 1) for channel in x[0].double().numpy()]
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-5)
    torch.testing.assert_close(doubled(torch.ones(1, 1, 6, 6), torch.tensor(KERNEL).float())[0, 0, 2:-2, 2:-2], torch.ones(8, 8))


def test_the_whole_is_that_of_the_paper(generator: StyleGan2) -> None:
    weights = {name: value.double().numpy() for name, value in generator.network.state_dict().items()}
    z = _normal(2, 6).double().numpy()
    w = z / np.sqrt((z**2).mean(1, keepdims=True) + 1e-8)
    for place in range(2):
        w = w @ (weights[f"mapping.fc{place}.weight"] * 0.01 / np.sqrt(w.shape[1])).T + 0.01 * weights[f"mapping.fc{place}.bias"]
        w = np.sqrt(2) * np.where(w > 0, w, 0.2 * w)

    def layer(x: Array, name: str, style: Array, *, up: bool = False, pixels: bool = False) -> Array:
        of = {key: weights[f"synthesis.{name}.{key}"] for key in ("weight", "bias", "affine.weight", "affine.bias")}
        styles = style @ of["affine.weight"].T / np.sqrt(7) + of["affine.bias"]
        if pixels:
            return slow(x, of["weight"], styles / np.sqrt(x.shape[1]), up=False, norm=False) + of["bias"][:, None, None]
        seen = slow(x, of["weight"], styles, up=up, norm=True)
        seen = seen + weights[f"synthesis.{name}.noise_const"] * weights[f"synthesis.{name}.noise_strength"]
        seen = seen + of["bias"][:, None, None]
        return np.sqrt(2) * np.where(seen > 0, seen, 0.2 * seen)

    ws = [w + 0.1 * place for place in range(6)]
    x = np.repeat(weights["synthesis.b4.const"][None], 2, 0)
    x = layer(x, "b4.conv1", ws[0])
    picture = layer(x, "b4.torgb", ws[1], pixels=True)
    for side, place in ((8, 1), (16, 3)):
        x = layer(layer(x, f"b{side}.conv0", ws[place], up=True), f"b{side}.conv1", ws[place + 1])
        bigger = np.array([[convolved(spread(c), 4 * KERNEL, 2, 1) for c in one] for one in picture])
        picture = bigger + layer(x, f"b{side}.torgb", ws[place + 2], pixels=True)
    found = generator.synthesis(torch.stack([generator.mapping(_normal(2, 6)) + 0.1 * place for place in range(6)], 1))
    np.testing.assert_allclose(found.numpy(), np.clip((picture + 1) / 2, 0, 1), atol=1e-5)
    assert ((found > 0) & (found < 1)).float().mean() > 0.1  # clipping hides nothing


@pytest.mark.parametrize("start", range(7))
def test_a_synthesis_goes_on_where_activations_end(generator: StyleGan2, start: int) -> None:
    w = generator.mapping(_normal(2, 6))[:, None] + _normal(2, 6, 7, name="w")
    before = generator.activations(w, start)
    torch.testing.assert_close(generator.synthesis(w, start=start, activations=before), generator.synthesis(w))
    if start:
        once = generator.activations(w, start, start - 1, generator.activations(w, start - 1))
        torch.testing.assert_close(once, before)
        other = w.clone()
        other[:, start:] += 1  # what comes later does not matter yet
        torch.testing.assert_close(generator.activations(other, start), before)


def test_it_is_a_style_whose_rows_do_not_see_each_other(generator: StyleGan2) -> None:
    assert isinstance(generator, Style)
    z = _normal(3, 6)
    torch.testing.assert_close(generator(z)[1:2], generator(z[1:2]))
    torch.testing.assert_close(generator.mapping(z), generator.mapping(5 * z))
    generator.w_mean.fill_(0.5)
    torch.testing.assert_close(generator.mapping(z, psi=0.0), torch.full((3, 7), 0.5))


def test_the_middle_is_kept_and_resized() -> None:
    sizes = ({}, {"crop": 12}, {"crop": 12, "size": 6})
    made = []
    for size in sizes:
        with seeds.ambient(0, "weights"):
            made.append(StyleGan2({4: 3, 8: 3, 16: 3}, latent=4, styles=4, depth=1, **size).requires_grad_(False)(_normal(2, 4)))
    whole, middle, small = made
    torch.testing.assert_close(middle, whole[:, :, 2:14, 2:14])
    assert small.shape == (2, 3, 6, 6)
