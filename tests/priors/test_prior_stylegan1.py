# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sfumato import seeds
from sfumato.errors import ConfigError, WeightsError
from sfumato.models.stylegan1 import StyleGan1
from sfumato.priors.saved import load_prior
from sfumato.priors.stylegan1 import load_stylegan1

LAYER = ("weight", "bias", "apply_noise.weight", "apply_noise.noise", "style.weight", "style.bias")
NAMES = {
    *(f"mapping.dense{place}.{name}" for place in range(3) for name in ("weight", "bias")),
    "truncation.w_avg",
    "synthesis.lod",
    "synthesis.layer0.const",
    *(f"synthesis.layer0.{name}" for name in LAYER[1:]),
    *(f"synthesis.layer{place}.{name}" for place in range(1, 6) for name in LAYER),
    *(f"synthesis.layer{place}.blur.kernel" for place in (2, 4)),
    *(f"synthesis.output{place}.{name}" for place in range(3) for name in ("weight", "bias")),
}
"""As GenForce's generator of 16 pixels has them, with three layers of mapping."""


def _saved(tmp_path: Path, **changed: Tensor | None) -> tuple[StyleGan1, Path]:
    with seeds.ambient(0, "weights"):
        made = StyleGan1({4: 5, 8: 4, 16: 3}, latent=6, styles=7, depth=3, colors=1).requires_grad_(False)
        made.w_mean.normal_()
    smaller = {"output0": 5, "output1": 4}
    tensors: dict[str, Tensor | None] = dict(made.network.state_dict())
    for name, inputs in smaller.items():
        tensors |= {f"synthesis.{name}.weight": torch.ones(1, inputs, 1, 1), f"synthesis.{name}.bias": torch.ones(1)}
    assert set(tensors) == NAMES
    path = tmp_path / "stylegan.safetensors"
    save_file({name: value.contiguous() for name, value in (tensors | changed).items() if value is not None}, path)
    return made, path


def test_the_weights_of_stylegan_are_a_style_prior(tmp_path: Path) -> None:
    made, path = _saved(tmp_path)
    prior = load_stylegan1(path)
    assert (prior.kind, prior.latent, prior.image_shape, prior.training) == ("style", 6, (1, 16, 16), False)
    z = prior.draw(3, seeds.generator(0, "z"))
    assert torch.equal(prior(z), made(z))
    assert torch.equal(prior.style.mapping(z, psi=0.5), made.mapping(z, psi=0.5))
    small = load_prior(path, kind="style", image_shape=(1, 8, 8), crop=12)
    assert (small.prior.image_shape, small.settings) == ((1, 8, 8), None)
    assert small.source == "StyleGAN weights from stylegan.safetensors"
    assert small.prior(z).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mapping.label_weight": torch.zeros(3, 6)}, "told a class"),
        ({"mapping.dense0.weight": None}, r"found sizes \[4, 8, 16\]; docs/priors.md"),
        ({"synthesis.layer3.weight": None}, r"found sizes \[4, 16\]"),
        ({"synthesis.layer4.blur.kernel": None}, "1 missing"),
        ({"synthesis.output2.weight": None}, r"1 missing \(synthesis.output2.weight\)"),
        ({"truncation.w_avg": torch.zeros(42)}, r"w_avg \(42,\) for \(7,\)"),
        ({"synthesis.lod": torch.tensor(1.5)}, r"found one with 1.5 doublings to go \(synthesis.lod\)"),
    ],
)
def test_other_weights_are_refused(changed: dict[str, Tensor | None], said: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, **changed)[1]
    for load in (load_stylegan1, load_prior):
        with pytest.raises(WeightsError, match=said):
            load(path)


def test_a_shape_that_stylegan_cannot_make_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path)[1]
    with pytest.raises(ConfigError, match=r"square pictures of 1 channels, but \(3, 16, 16\)"):
        load_stylegan1(path, image_shape=(3, 16, 16))
    with pytest.raises(ConfigError, match="crop must be 1 to 16"):
        load_prior(path, crop=17)


def test_a_file_of_neither_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"synthesis.early_layer.const": torch.zeros(1, 4, 4, 4)}, path)
    said = r"expected a prior \(sfumato-prior-1\), or the weights of StyleGAN2 or StyleGAN as docs/priors.md converts them, found"
    with pytest.raises(WeightsError, match=said):
        load_prior(path)


def test_the_older_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "older.safetensors"
    save_file({"synthesis.layer0.const": torch.zeros(1, 4, 4, 4), "synthesis.layer0.epilogue.bias": torch.zeros(4)}, path)
    with pytest.raises(WeightsError, match="mapping.dense0.weight and synthesis.layer1.weight and so on"):
        load_prior(path)
