# SPDX-License-Identifier: Apache-2.0
"""A style generator that is affine, and a target that is linear: what a search of the one for the other must find is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.attacks.weights.base import InversionAttack, Inverted
from sfumato.defenses.compose import Compose
from sfumato.priors.base import Prior
from sfumato.target import Target

WIDTH, LAYERS, SHAPE = 6, 4, (1, 8, 8)


def drawn(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


class AffineStyle(nn.Module):
    """Every layer adds its style, seen through a matrix of its own, to gray; pictures stay far from black and white."""

    def __init__(self, slope: float = 0.05) -> None:
        super().__init__()
        self.mix = nn.Parameter(slope * drawn(LAYERS, WIDTH, 64, seed=1) / LAYERS)
        self.register_buffer("w_mean", torch.full((WIDTH,), 0.4))

    @property
    def layers(self) -> int:
        return LAYERS

    def mapping(self, z: Tensor, psi: float = 1.0) -> Tensor:
        w = nn.functional.leaky_relu(z, 0.2)
        return self.w_mean + psi * (w - self.w_mean)

    def activations(self, w: Tensor, stop: int, start: int = 0, activations: Tensor | None = None) -> Tensor:
        x = w.new_full((len(w), *SHAPE), 0.5) if activations is None else activations
        for layer in range(start, stop):
            own = w if w.ndim == 2 else w[:, layer]
            x = x + (own @ self.mix[layer]).view(-1, *SHAPE)
        return x

    def synthesis(self, w: Tensor, start: int = 0, activations: Tensor | None = None) -> Tensor:
        return self.activations(w, LAYERS, start, activations).clamp(0, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesis(self.mapping(z))


def style_prior(slope: float = 0.05) -> Prior:
    return Prior("style", AffineStyle(slope), None, latent=WIDTH, image_shape=SHAPE)


def gan_prior() -> Prior:
    return Prior("gan", AffineStyle(), None, latent=WIDTH, image_shape=SHAPE)


def linear_classifier(classes: int = 2, sharpness: float = 3.0) -> Target:
    last = nn.Linear(64, classes)
    weight = sharpness * drawn(classes, *SHAPE, seed=2)
    last.weight.data = ((weight + weight.flip(-1)) / 2).flatten(1)  # as one that was trained with flips
    last.bias.data = -last.weight.data.sum(1) / 2  # gray is a tie
    return Target(sf.Split(nn.Sequential(nn.Flatten()), last), Compose())


def nobody() -> sf.Data:
    return sf.load_data((torch.full((8, *SHAPE), 0.5), torch.arange(8) % 2))


def inverted(attack: InversionAttack, target: Target, prior: Prior, **options: int) -> Inverted:
    """What an attack makes of every class of a target."""
    classes = target.split.tail.out_features
    return attack(target, prior, nobody().part("train"), torch.arange(classes), outputs=classes, **options)


def confidence(found: Inverted, target: Target) -> Tensor:
    """How sure the target is of each picture's class, (K, n)."""
    x_hat = found.pictures.x_hat
    labels = torch.arange(len(x_hat)).repeat_interleave(x_hat.shape[1])
    with torch.no_grad():
        return target(x_hat.flatten(0, 1)).softmax(1).gather(1, labels[:, None]).view(x_hat.shape[:2])
