# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato import seeds
from sfumato.priors.samples import grid, sample, write_grid
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import new_prior


def test_pictures_stand_in_rows() -> None:
    x = torch.arange(6).view(6, 1, 1, 1).expand(-1, 1, 2, 3) / 255
    assert grid(x, columns=3)[0].tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 4, 4, 4, 5, 5, 5]] * 2


@pytest.mark.parametrize(("colors", "mode"), [(1, "L"), (3, "RGB")])
def test_a_grid_is_a_picture_of_many(colors: int, mode: str, tmp_path: Path) -> None:
    x = torch.rand(64, colors, 8, 8, generator=seeds.generator(0, "x"))
    with Image.open(write_grid(tmp_path / "folder" / "grid.png", x)) as picture:
        assert (picture.mode, picture.size) == (mode, (384, 384))
        pixels = np.asarray(picture).reshape(384, 384, colors)
    corner = (x[9] * 255).round().permute(1, 2, 0).numpy()
    assert (pixels[48:96:6, 48:96:6] == corner).all()


def test_a_grid_always_has_the_same_latents() -> None:
    prior = new_prior("conditional", (1, 8, 8), PriorSettings(width=2, latent=4), classes=3)
    first = sample(prior, classes=3)
    assert prior.training
    assert first.shape == (64, 1, 8, 8)
    assert torch.equal(first, sample(prior, classes=3))
    assert not torch.equal(first, sample(prior, seed=1, classes=3))
