# SPDX-License-Identifier: Apache-2.0
"""Every attack on weights in the table, on priors of the library's own kinds, wherever the target is."""

from __future__ import annotations

import pytest
import torch

from sfumato.attacks.naming import names_of
from sfumato.attacks.weights.base import InversionAttack
from sfumato.data.resident import ResidentPictures
from sfumato.defenses.compose import Compose
from sfumato.models.resolve import build_model
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import new_prior
from sfumato.registry import create
from sfumato.split import whole
from sfumato.target import Target

CLASSES, SHAPE = 4, (3, 16, 16)
SMALL = PriorSettings(width=4, latent=8, kernels=2, dims=2, std=0.05)
QUICK: dict[str, dict[str, object]] = {
    "lomma": {"students": [], "steps": 2},
    "ppa": {"samples": 8, "candidates": 2, "views": 2, "steps": 2},
    "ifgmi": {"samples": 8, "candidates": 2, "views": 2, "steps": [2, 1], "radii": [9.0, 9.0]},
    "mirror-weights": {"samples": 8, "steps": 2},
    "mirror-weights-black": {"samples": 16, "population": 8, "generations": 2},
    "brepmi": {"budget": 150, "draws": 8},
}
LOOSE = {"brepmi", "mirror-weights-black"}
"""Attacks that choose: a difference in rounding may end them elsewhere."""


def attacked(name: str, device: str) -> torch.Tensor:
    arguments = {"per_class": 2, **QUICK.get(name, {"steps": 2})}
    attack = create("attacks", name, arguments)
    assert isinstance(attack, InversionAttack)
    target = Target(whole(build_model("cnn4", classes=CLASSES, shape=SHAPE)), Compose()).to(device).eval()
    prior = new_prior(attack.kind, SHAPE, SMALL, classes=CLASSES)
    public = ResidentPictures(torch.arange(30 * 768).remainder(251).to(torch.uint8).view(30, *SHAPE), torch.arange(30) % 5)
    return attack(target, prior, public, torch.tensor([1, 3]), outputs=CLASSES).pictures.x_hat


@pytest.mark.parametrize("name", names_of(InversionAttack))
def test_every_attack_makes_pictures_with_a_prior_of_its_kind(name: str) -> None:
    x_hat = attacked(name, "cpu")
    assert tuple(x_hat.shape) == (2, 2, *SHAPE)
    assert float(x_hat.std()) > 0
    assert torch.equal(x_hat, attacked(name, "cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", names_of(InversionAttack))
def test_an_attack_on_a_gpu_makes_what_it_makes_on_a_cpu(name: str) -> None:
    x_hat = attacked(name, "cuda")
    assert x_hat.device.type == "cpu"
    if name not in LOOSE:
        torch.testing.assert_close(x_hat, attacked(name, "cpu"), rtol=0, atol=2e-2)
