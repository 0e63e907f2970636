# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sfumato import seeds
from sfumato.errors import ConfigError, ModelError, WeightsError
from sfumato.files import read_tensors, write_tensors
from sfumato.models.stylegan2 import StyleGan2
from sfumato.priors.base import FOR_TARGET, Prior, PriorKind
from sfumato.priors.saved import load_prior, require_prior, save_prior
from sfumato.priors.settings import PriorSettings
from sfumato.priors.stylegan import load_stylegan2
from sfumato.priors.train import new_prior

SETTINGS = PriorSettings(width=3, latent=5, kernels=2, dims=2)


@pytest.mark.parametrize("kind", get_args(PriorKind))
def test_a_prior_is_read_as_it_was_written(kind: PriorKind, tmp_path: Path) -> None:
    classes = 4 if kind in FOR_TARGET else None
    prior = new_prior(kind, (3, 16, 16), SETTINGS, classes=classes, seed=7).eval()
    path = save_prior(tmp_path / "prior.safetensors", prior, SETTINGS, classes=classes, source="7 steps on faces")
    found = load_prior(path, kind=kind, image_shape=(3, 16, 16), classes=classes)
    assert (found.settings, found.source, found.prior.kind) == (SETTINGS, "7 steps on faces", kind)
    assert not found.prior.training
    labels = torch.tensor([1, 2]) if kind == "conditional" else None
    z = prior.draw(2, seeds.generator(0, "z"))
    assert torch.equal(found.prior(z, labels), prior(z, labels))


def _saved(tmp_path: Path, kind: PriorKind = "inversion") -> Path:
    prior = new_prior(kind, (3, 16, 16), SETTINGS, classes=4)
    return save_prior(tmp_path / "prior.safetensors", prior, SETTINGS, classes=4)


def test_a_prior_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    with pytest.raises(ConfigError, match="of kind 'gan', found .* of kind 'inversion'; train one"):
        load_prior(path, kind="gan")
    with pytest.raises(ConfigError, match=r"pictures \(3, 32, 32\), as the target takes them, found .* of \(3, 16, 16\)"):
        load_prior(path, image_shape=(3, 32, 32))
    with pytest.raises(ConfigError, match="a target of 4 classes, and this one has 5"):
        load_prior(path, classes=5)
    with pytest.raises(ConfigError, match="has the classes of its target; give classes="):
        save_prior(path, new_prior("inversion", (3, 16, 16), SETTINGS, classes=4), SETTINGS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": "other"}, "expected a prior .* make one with: sfumato prior train"),
        ({"kind": "diffusion"}, "facts that fit none: kind 'diffusion'"),
        ({"settings": '{"widht": 3}'}, "widht: unknown key"),
        ({"image_shape": "[3, 17, 17]"}, "got 17x17"),
        ({"image_shape": "[3, 32, 32]"}, "of another model"),
        ({"classes": "null"}, "learns from a target"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(changed: dict[str, str], said: str, tmp_path: Path) -> None:
    path = _saved(tmp_path)
    tensors, facts = read_tensors(path)
    write_tensors(path, tensors, {**facts, **changed})
    with pytest.raises(WeightsError, match=said):
        load_prior(path)


class _Wide(nn.Module):
    """A generator of the user's own, whose pictures are in another range."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high, self.weight = low, high, nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor) -> Tensor:
        return torch.linspace(self.low, self.high, 64).view(1, 1, 8, 8).expand(len(z), -1, -1, -1)


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0), (0.0, float("nan"))])
def test_a_prior_of_another_range_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ModelError, match=r"pictures in \[0, 1\], found"):
        require_prior(Prior("gan", _Wide(*bounds), None, latent=4, image_shape=(1, 8, 8)))
    require_prior(Prior("gan", _Wide(0.0, 1.0), None, latent=4, image_shape=(1, 8, 8)))
    with pytest.raises(ModelError, match=r"make pictures \(1, 9, 9\), found \(1, 8, 8\)"):
        require_prior(Prior("gan", _Wide(0.0, 1.0), None, latent=4, image_shape=(1, 9, 9)))


def _stylegan(tmp_path: Path, **changed: Tensor | None) -> tuple[StyleGan2, Path]:
    with seeds.ambient(0, "weights"):
        made = StyleGan2({4: 5, 8: 4, 16: 3}, latent=6, styles=7, depth=3, colors=1).requires_grad_(False)
        made.w_mean.normal_()
    tensors = {**made.network.state_dict(), **changed}
    path = tmp_path / "stylegan.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items() if value is not None}, path)
    return made, path


def test_the_weights_of_stylegan2_are_a_style_prior(tmp_path: Path) -> None:
    made, path = _stylegan(tmp_path)
    prior = load_stylegan2(path)
    assert (prior.kind, prior.latent, prior.image_shape) == ("style", 6, (1, 16, 16))
    z = prior.draw(3, seeds.generator(0, "z"))
    assert torch.equal(prior(z), made(z))
    assert torch.equal(prior.style.mapping(z, psi=0.5), made.mapping(z, psi=0.5))
    small = load_prior(path, kind="style", image_shape=(1, 8, 8), crop=12)
    assert (small.prior.image_shape, small.settings) == ((1, 8, 8), None)
    assert small.source == "StyleGAN2 weights from stylegan.safetensors"
    assert small.prior(z).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"mapping.embed.weight": torch.zeros(1)}, WeightsError, "told a class"),
        ({"mapping.fc0.weight": None}, WeightsError, r"found sizes \[4, 8, 16\]; docs/priors.md"),
        ({"synthesis.b8.conv1.weight": None}, WeightsError, r"found sizes \[4, 16\]"),
        ({"synthesis.b8.conv0.bias": None}, WeightsError, "1 missing"),
    ],
)
def test_other_weights_are_refused(changed: dict[str, Tensor], error: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        load_stylegan2(_stylegan(tmp_path, **changed)[1])


def test_a_shape_that_stylegan2_cannot_make_is_refused(tmp_path: Path) -> None:
    path = _stylegan(tmp_path)[1]
    with pytest.raises(ConfigError, match=r"square pictures of 1 channels, but \(3, 16, 16\)"):
        load_stylegan2(path, image_shape=(3, 16, 16))
    with pytest.raises(ConfigError, match="crop must be 1 to 16"):
        load_stylegan2(path, crop=17)
