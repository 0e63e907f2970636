# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import quadrants
from sfumato.errors import ConfigError, ModelError
from sfumato.prior_facts import prior_facts
from sfumato.priors.base import Prior, PriorKind

CLASSES = torch.tensor([0, 1, 2, 3])


class Quarters(nn.Module):
    """Makes pictures of random quarters, brighter or darker all in all."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.tensor(low))
        self.high = high

    def forward(self, latent: Tensor) -> Tensor:
        return quadrants.shown(self.low + (self.high - self.low) * latent.sigmoid())


class Told(nn.Module):
    """Makes pictures of the class that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.9))

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        return self.gain * quadrants.identity(labels) + 0.01 * quadrants.shown(latent.sigmoid())


class Public(nn.Module):
    """Makes the public pictures, whatever the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Parameter(quadrants.people().part("public").read(torch.arange(48)) / 255)

    def forward(self, latent: Tensor) -> Tensor:
        return self.pixels[torch.arange(len(latent)) % 48]


def prior(generator: nn.Module, kind: PriorKind = "gan", shape: tuple[int, int, int] = quadrants.SHAPE) -> Prior:
    return Prior(kind, generator, None, latent=4, image_shape=shape)


def test_the_ceiling_is_what_picking_the_surest_of_many_comes_to() -> None:
    court = quadrants.court()
    few, many = (prior_facts(prior(Quarters()), court, CLASSES, per_class=2, samples=samples) for samples in (2, 500))
    assert many.ceiling.value == 1
    assert few.ceiling.value < 1
    none = prior_facts(prior(Quarters(0.5, 0.5)), court, CLASSES, samples=50)
    assert none.ceiling.value == 0


def test_the_evaluator_judges_what_the_target_selects() -> None:
    court = quadrants.court()
    with torch.no_grad():
        court.target.split.tail.weight.copy_(10 * torch.eye(4).roll(1, 0))  # type: ignore[operator, union-attr]
    assert prior_facts(prior(Quarters()), court, CLASSES, samples=500).ceiling.value == 0


def test_a_prior_of_the_public_pictures_is_at_no_distance_from_them() -> None:
    court = quadrants.court()
    exact = prior_facts(prior(Public()), court, CLASSES, samples=48, steps=9, source="the public pictures")
    assert exact.frechet == pytest.approx(0, abs=1e-6)
    assert prior_facts(prior(Quarters()), court, CLASSES, samples=500).frechet > 0.1
    assert (exact.kind, exact.steps, exact.source) == ("gan", 9, "the public pictures")


def test_one_that_is_told_a_class_makes_pictures_of_each() -> None:
    found = prior_facts(prior(Told(), "conditional"), quadrants.court(), CLASSES, per_class=5, samples=40)
    assert (found.ceiling.value, found.kind) == (1, "conditional")


def test_numbers_are_the_same_with_the_same_seed_and_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prior_facts(prior(Quarters()), quadrants.court(), CLASSES, samples=30)
    assert found != prior_facts(prior(Quarters()), quadrants.court(), CLASSES, samples=30, seed=1)
    assert found == prior_facts(prior(Quarters()), quadrants.court(), CLASSES, samples=30)
    monkeypatch.setattr("sfumato.prior_facts.BATCH", 7)
    again = prior_facts(prior(Quarters()), quadrants.court(), CLASSES, samples=30)
    assert (again.ceiling, again.frechet) == (found.ceiling, pytest.approx(found.frechet, rel=1e-6))


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (prior(Quarters(), shape=(1, 16, 16)), ModelError, r"makes pictures of \(1, 16, 16\) and the target takes \(1, 8, 8\)"),
        (prior(Quarters(-1.0)), ModelError, r"must make finite pictures in \[0, 1\], found -0.* let it return \(x \+ 1\) / 2"),
        (prior(Quarters(float("nan"))), ModelError, "must make finite pictures"),
    ],
)
def test_a_prior_of_another_size_or_range_is_refused(made: Prior, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prior_facts(made, quadrants.court(), CLASSES, samples=50)


@pytest.mark.parametrize("per_class", [0, 11])
def test_more_than_there_are_cannot_be_selected(per_class: int) -> None:
    with pytest.raises(ConfigError, match=f"per_class must be from 1 to samples, got {per_class} and 10"):
        prior_facts(prior(Quarters()), quadrants.court(), CLASSES, per_class=per_class, samples=10)
