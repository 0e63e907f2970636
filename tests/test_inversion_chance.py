# SPDX-License-Identifier: Apache-2.0
"""What an audit finds where there is nothing to find: pictures of random latents, and targets that learned shuffled labels.

An identity is a pattern of 64 black and white pixels, and a target names the pattern whose mean picture is most like x. There are
so many identities that an attack accuracy of chance has a narrow interval.
"""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.attacks.weights.assembly import drawn
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.brepmi import BREPMI
from sfumato.attacks.weights.gmi import GMI
from sfumato.data.loader import as_images
from sfumato.data.resident import ResidentPictures
from sfumato.inversion_types import ClassPictures, InversionResult
from sfumato.priors.base import Prior

SHAPE, SIDE, CLASSES = (1, 8, 8), 64, 64
PATTERNS = torch.randint(0, 2, (2 * CLASSES, SIDE), generator=torch.Generator().manual_seed(3)).float()


def shown(labels: Tensor, seed: int) -> ResidentPictures:
    """Pictures of some patterns, one pixel in ten turned to the other shade."""
    turned = torch.rand(len(labels), SIDE, generator=torch.Generator().manual_seed(seed)) < 0.1
    x = torch.where(turned, 1 - PATTERNS[labels], PATTERNS[labels])
    return ResidentPictures((255 * x).to(torch.uint8).view(-1, *SHAPE), labels)


@pytest.fixture(scope="module")
def people() -> sf.Data:
    mine, others = torch.arange(CLASSES), torch.arange(CLASSES, 2 * CLASSES)
    parts = {"private": shown(mine.repeat(6), 0), "test": shown(mine.repeat(3), 1), "public": shown(others.repeat(4), 2)}
    return sf.Data(name="patterns", classes=tuple(f"{k}" for k in range(CLASSES)), parts=parts | {"train": parts["private"]})


def matched(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """An evaluator that knows the patterns."""
    del shape
    linear = nn.Linear(SIDE, classes)
    linear.weight.data = PATTERNS[:classes] - 0.5
    linear.bias.data = -linear.weight.data.sum(1) / 2
    return nn.Sequential(nn.Flatten(), linear)


def taught(data: sf.Data, labels: Tensor) -> nn.Module:
    """A target that compares pictures with the mean of those that it was given for each class."""
    private = data.part("private")
    x = 2 * as_images(private.read(torch.arange(len(private))), "cpu").flatten(1) - 1
    means = torch.stack([x[labels == label].mean(0) for label in range(CLASSES)])
    center, linear = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, CLASSES, bias=False)
    center.weight.data, center.bias.data, linear.weight.data = 2 * torch.eye(SIDE), -torch.ones(SIDE), means
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), center=center, linear=linear))


class Pixels(nn.Module):
    """Each latent is a pixel, so that every pattern can be made."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(4.0))

    def forward(self, latent: Tensor) -> Tensor:
        return torch.sigmoid(self.gain * latent).unflatten(1, SHAPE)


class Indifferent(nn.Module):
    """A critic that likes every picture."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.mean((1, 2, 3))


class Guess(InversionAttack):
    """Decodes random latents."""

    access = "labels"
    prior = "gan"

    def invert(self, means: Means, labels: Tensor) -> ClassPictures:
        x = means.prior(drawn(means, labels, self.per_class))
        return ClassPictures(x.detach().unflatten(0, (len(labels), -1)), torch.ones(len(labels), dtype=torch.bool))


def attacked(target: nn.Module, data: sf.Data, attack: InversionAttack) -> InversionResult:
    prior = Prior("gan", Pixels(), Indifferent(), latent=SIDE, image_shape=SHAPE)
    judge = sf.Evaluator(model="test_inversion_chance:matched", epochs=1, learning_rate=1e-5)
    found = sf.audit_inversion(target, data, attack, priors={"gan": prior}, evaluator=judge)
    assert found.evaluator.trusted
    assert found.evaluator.accuracy.value > 0.99
    (result,) = found.results
    return result


def assert_chance(result: InversionResult) -> None:
    assert result.identities == CLASSES
    assert result.top1.low <= 1 / CLASSES <= result.top1.high
    assert result.top1.high < 0.12, "the interval is narrow"
    assert result.top5.low <= 5 / CLASSES <= result.top5.high


def test_random_latents_are_right_as_often_as_chance(people: sf.Data) -> None:
    assert_chance(attacked(taught(people, people.part("private").labels), people, Guess(per_class=5)))


ATTACKS = [GMI(steps=40, per_class=3, mean_over=4.0), BREPMI(per_class=1, budget=20_000, draws=2000, directions=32, patience=40)]


@pytest.mark.parametrize("attack", ATTACKS, ids=["gmi", "brepmi"])
def test_shuffled_labels_give_nobody_away_whatever_the_target_believes(attack: InversionAttack, people: sf.Data) -> None:
    labels = people.part("private").labels
    true = attacked(taught(people, labels), people, attack)
    assert true.top1.value > 20 / CLASSES, "the same attack finds what there is to find"
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    result = attacked(taught(people, mixed), people, attack)
    assert_chance(result)
    assert result.named.value > 20 / CLASSES, "the target names its own pictures all the same"
