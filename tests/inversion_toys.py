# SPDX-License-Identifier: Apache-2.0
"""A prior and a target whose best latents are known: each class is one pixel, and each latent lights one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.attacks.weights.base import MEMORY, Means
from sfumato.data.base import Pictures
from sfumato.data.resident import ResidentPictures
from sfumato.defenses.compose import Compose
from sfumato.priors.base import Prior, PriorKind
from sfumato.seeds import generator
from sfumato.split import whole
from sfumato.target import Target, WeightsView

CLASSES = 4
SHAPE = (1, 2, 2)


class Lamps(nn.Module):
    """Pixel k of 2x2 is the sigmoid of latent k."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, latent: Tensor) -> Tensor:
        """Return pictures, (N, 1, 2, 2)."""
        return torch.sigmoid(self.gain * latent).unflatten(1, SHAPE)


class Dim(nn.Module):
    """A critic that likes dark pictures."""

    def forward(self, x: Tensor) -> Tensor:
        """Return scores, (N,)."""
        return -x.mean((1, 2, 3))


class Classes(nn.Module):
    """A discriminator that is sure of pictures with one bright pixel."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits."""
        flat = x.flatten(1)
        return flat, 4 * flat - 2


def lamp_prior(kind: PriorKind = "gan") -> Prior:
    """A prior of four lamps, with the critic that its kind has."""
    return Prior(kind, Lamps(), Classes() if kind == "inversion" else Dim(), latent=CLASSES, image_shape=SHAPE)


def lamp_target(sharpness: float = 6.0) -> Target:
    """A target that names the brightest pixel."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(CLASSES, CLASSES))
    with torch.no_grad():
        model[1].weight.copy_(sharpness * torch.eye(CLASSES))  # type: ignore[arg-type, operator]
        model[1].bias.zero_()  # type: ignore[operator, union-attr]
    return Target(whole(model), Compose()).eval()


def lamp_public(count: int = 40) -> Pictures:
    """Public pictures of lamps at random."""
    stream = torch.Generator().manual_seed(7)
    return ResidentPictures((255 * torch.rand(count, *SHAPE, generator=stream)).to(torch.uint8), torch.arange(count) % 5)


def lamp_means(kind: PriorKind = "gan", *, memory: int = MEMORY, seed: int = 0) -> Means:
    """What an adversary of lamps has."""
    view = lamp_target().view("weights", generator(0, "view"))
    assert isinstance(view, WeightsView)
    return Means(view, lamp_prior(kind).requires_grad_(False), lamp_public(), CLASSES, seed, memory, lambda done, total: None)
