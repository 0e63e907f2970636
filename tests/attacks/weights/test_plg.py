# SPDX-License-Identifier: Apache-2.0
"""PLG on pictures that are one shade of gray, where each class is a shade."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sfumato.attacks.weights.plg import PLG, over_variations
from sfumato.attacks.weights.search import Rows, Trial
from sfumato.data.resident import ResidentPictures
from sfumato.data.variation import Variation
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.priors.base import Prior
from sfumato.priors.losses import max_margin
from sfumato.split import whole
from sfumato.target import Classified, Target

SHAPE = (1, 8, 8)
SHADES = torch.tensor([0.1, 0.5, 0.9])


class Gray(nn.Module):
    """A shade by the only latent, a little nearer to that of the class it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lean = nn.Parameter(torch.tensor(0.3))
        self.told: list[Tensor] = []

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        self.told.append(labels)
        shade = torch.sigmoid(latent[:, :1] + self.lean * (labels[:, None] - 1))
        return shade[:, :, None, None].expand(-1, *SHAPE)


def nearest_shade() -> Target:
    """A target that names the shade nearest to the mean of a picture: the linear part of minus the squared distance."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    model[2].weight.data, model[2].bias.data = 20 * SHADES[:, None], -10 * SHADES.square()
    return Target(whole(model), Compose()).eval()


def attacked(attack: PLG, classes: list[int], seed: int = 0, memory: int = 2**31) -> Tensor:
    public = ResidentPictures(torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    prior = Prior("conditional", Gray(), None, latent=2, image_shape=SHAPE)
    found = attack(nearest_shade(), prior, public, torch.tensor(classes), outputs=3, seed=seed, memory=memory)
    assert found.queries == 0
    assert found.pictures.reached.all()
    return found.pictures.x_hat


def test_every_picture_has_the_shade_of_its_class() -> None:
    x_hat = attacked(PLG(steps=60, per_class=4), [2, 0, 1])
    assert x_hat.shape == (3, 4, *SHAPE)
    shade = x_hat.mean((2, 3, 4))
    assert float(shade[0].min()) > 0.85
    assert float(shade[1].max()) < 0.15
    assert float((shade[2] - 0.5).abs().max()) < 0.1


def test_the_seed_decides() -> None:
    first, again, other = (attacked(PLG(steps=5), [1], seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_variations_are_added_and_drawn_apart() -> None:
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels, weight = torch.tensor([0, 1, 2, 1]), torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    asked: list[Tensor] = []

    def ask(seen: Tensor) -> Classified:
        asked.append(seen)
        return Classified(seen.flatten(1) @ weight, seen.flatten(1))

    rows, variation = Rows(torch.arange(4), labels, 4, 0, 0), Variation(scale=(0.5, 0.9), flip=0.5)
    losses = over_variations(max_margin, variation, 3)(Trial(x, x, [x], rows, ask, x))
    expected = []
    for row in range(4):
        total = 0.0
        for seen in asked[0].view(3, 4, -1)[:, row]:
            logits = (seen @ weight).tolist()
            total += max(other for place, other in enumerate(logits) if place != labels[row]) - logits[labels[row]]
        expected.append(total)
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    views = asked[0].view(3, 4, -1)
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[2])


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"variations": 0}, {"per_class": 0}, {"learning_rate": 0.0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))} must be"):
        PLG(**arguments)
