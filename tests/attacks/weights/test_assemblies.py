# SPDX-License-Identifier: Apache-2.0
"""What each attack that follows a gradient hands to the one search: terms, optimizer and the rest, as its paper has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import inversion_toys
import style_toys
from sfumato.attacks.weights import budget
from sfumato.attacks.weights.assembly import PASSAGE, at_once, pictures
from sfumato.attacks.weights.base import InversionAttack
from sfumato.attacks.weights.gmi import GMI
from sfumato.attacks.weights.ifgmi import IFGMI
from sfumato.attacks.weights.kedmi import KEDMI
from sfumato.attacks.weights.lomma import LOMMA
from sfumato.attacks.weights.mirror import MIRROR, ramp
from sfumato.attacks.weights.ppa import PPA
from sfumato.attacks.weights.search import Found, Rows, Search, as_made, leave, objective, search
from sfumato.attacks.weights.vmi import VMI
from sfumato.data.variation import Variation
from sfumato.types import Images, Labels

LAMPS = torch.arange(inversion_toys.CLASSES)
STYLE: dict[str, int] = {"samples": 8, "per_class": 2}


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Search]:
    """The parts of every search that is begun."""
    found: list[Search] = []

    def noted(parts: Search, start: Sequence[Tensor], labels: Labels, **rest: int) -> Found:
        found.append(parts)
        return search(parts, start, labels, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(budget, "search", noted)
    return found


def run(attack: InversionAttack) -> None:
    """Attack the toy that has a prior of the attack's kind."""
    if attack.kind == "style":
        style_toys.inverted(attack, style_toys.linear_classifier(3), style_toys.style_prior())
        return
    target, prior = inversion_toys.lamp_target(), inversion_toys.lamp_prior(attack.kind)
    attack(target, prior, inversion_toys.lamp_public(), LAMPS, outputs=len(LAMPS))


def options(parts: Search) -> tuple[str, dict[str, object]]:
    """The optimizer's name and its arguments."""
    made = parts.optimizer([torch.zeros(1, requires_grad=True)])
    return type(made).__name__, made.param_groups[0]


@pytest.mark.parametrize(
    ("attack", "optimizer", "wanted"),
    [
        (GMI(steps=1), "SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
        (LOMMA(base="gmi", steps=1, students=()), "SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
        (KEDMI(steps=1), "Adam", {"lr": 0.02, "betas": (0.9, 0.999)}),
        (LOMMA(base="kedmi", steps=1, students=()), "Adam", {"lr": 0.02, "betas": (0.9, 0.999)}),
        (PPA(**STYLE, candidates=2, steps=1, views=1), "Adam", {"lr": 0.005, "betas": (0.1, 0.1)}),
        (IFGMI(**STYLE, candidates=2, steps=(1,), radii=(9.0,), views=1), "Adam", {"lr": 0.005, "betas": (0.1, 0.1)}),
        (MIRROR(**STYLE, steps=1, measured=9), "Adam", {"lr": 0.25, "betas": (0.9, 0.999)}),
    ],
    ids=["gmi", "lomma-gmi", "kedmi", "lomma-kedmi", "ppa", "ifgmi", "mirror"],
)
def test_optimizers_are_those_of_the_papers(
    attack: InversionAttack, optimizer: str, wanted: dict[str, object], handed: list[Search]
) -> None:
    run(attack)
    name, arguments = options(handed[0])
    assert name == optimizer
    assert {key: arguments[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("attack", "weights", "show", "schedule", "best", "clips"),
    [
        (GMI(steps=1), [1 / 60, 100 / 60], as_made, None, False, True),
        (PPA(**STYLE, candidates=2, steps=1, views=1), [1], Variation(scale=(0.9, 1.0)), None, False, False),
        (IFGMI(**STYLE, candidates=2, steps=(1,), radii=(9.0,), views=1), [1], Variation(scale=(0.9, 1.0)), None, False, True),
        (MIRROR(**STYLE, steps=1, measured=9), [10], Variation(flip=0.5), ramp, True, True),
        (VMI(steps=1, batch=2, per_class=2), [1, 1e-3], as_made, None, False, False),
    ],
    ids=["gmi", "ppa", "ifgmi", "mirror", "vmi"],
)
def test_pictures_are_shown_and_variables_are_kept_as_the_papers_do(
    attack: InversionAttack, weights: list[float], show: object, schedule: object, best: bool, clips: bool, handed: list[Search]
) -> None:
    run(attack)
    (parts,) = handed
    assert [weight for weight, _ in parts.terms] == weights
    assert (parts.show, parts.schedule, parts.best, parts.clip is not leave) == (show, schedule, best, clips)


def nll(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])


def lamps(z: np.ndarray) -> np.ndarray:
    """The pictures of the toy, flat; its target's logits are 6 times these."""
    return 1 / (1 + np.exp(-2 * z))


def like(x: np.ndarray) -> np.ndarray:
    """The prior term of KEDMI on the toy, as its release writes it."""
    lse = np.log(np.exp(4 * x - 2).sum(1))
    return np.log(1 + np.exp(lse)) - lse


def gmi(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x.mean(1) + 100 * nll(6 * x, y)) / 60  # the critic's score is minus the mean brightness


def kedmi(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return like(x) + 100 * nll(6 * x, y)


def pulled(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    public = inversion_toys.lamp_public().read(torch.arange(40)).flatten(1).numpy() / 255
    return 100 * (-6 * x[np.arange(len(x)), y] + 0.5 * np.square(x - public.mean(0)).mean(1))


@pytest.mark.parametrize(
    ("attack", "literal"),
    [
        (GMI(steps=1), gmi),
        (KEDMI(steps=1, bound=None), kedmi),
        (LOMMA(base="gmi", steps=1, students=(), regularizer=0.5), lambda x, y: (x.mean(1) + pulled(x, y)) / 60),
        (LOMMA(base="kedmi", steps=1, students=(), regularizer=0.5), lambda x, y: like(x) + pulled(x, y)),
    ],
    ids=["gmi", "kedmi", "lomma-gmi", "lomma-kedmi"],
)
def test_objectives_are_those_of_the_papers(
    attack: InversionAttack, literal: Callable[[np.ndarray, np.ndarray], np.ndarray], handed: list[Search]
) -> None:
    run(attack)
    z = 0.5 * torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    variables = [z] if attack.kind == "gan" else [z, torch.full_like(z, -20.0)]  # a Gaussian that is as good as a point
    found = objective(handed[0], variables, Rows(LAMPS, LAMPS, 4, 0, 0))
    np.testing.assert_allclose(found.detach().numpy(), literal(lamps(z.numpy()), LAMPS.numpy()), rtol=1e-3)


def test_vmi_divides_its_divergence_by_the_layers(handed: list[Search]) -> None:
    """Points, by Gaussians without spread: the cross-entropy of their picture, and a divergence in closed form."""
    attack = VMI(distribution="gaussian", steps=1, batch=3, per_class=2, layers=4, kl_weight=0.1)
    run(attack)
    width, layers = style_toys.WIDTH, style_toys.LAYERS
    mean = style_toys.drawn(1, layers, width, seed=8)
    root = torch.zeros(1, layers, width, width) - 12 * torch.eye(width)
    found = objective(handed[0], [mean, root], Rows(torch.tensor([0]), torch.tensor([1]), 1, 0, 0))
    style, target = style_toys.AffineStyle(), style_toys.linear_classifier(3)
    with torch.no_grad():
        logits = target(style.synthesis(style.mapping(mean[0])[None]))
    divergence = 0.5 * float(mean.square().sum()) + layers * width * (0.5 * np.exp(-24.0) - 0.5 + 12)
    expected = nll(logits.numpy(), np.array([1]))[0] + 0.1 * divergence / layers
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_memory_bounds_what_goes_through_prior_and_target() -> None:
    each = 4 * 4 * PASSAGE  # bytes of a lamp's picture on its way
    for memory, most, expected in ((1, 64, 1), (3 * each, 64, 3), (1 << 30, 64, 64), (1 << 30, 500, 500)):
        assert at_once(inversion_toys.lamp_means(memory=memory), most) == expected
    sizes: list[int] = []

    def decode(latents: Tensor, labels: Labels) -> Images:
        sizes.append(len(latents))
        return latents.view(-1, *inversion_toys.SHAPE)

    pictures(inversion_toys.lamp_means(memory=3 * each), decode, torch.rand(8, 4), labels=LAMPS, losses=torch.zeros(8))
    assert sizes == [3, 3, 2]


def test_pictures_of_equal_losses_keep_their_order() -> None:
    latents = torch.rand(4 * 50, 4, generator=torch.Generator().manual_seed(0))
    means, losses = inversion_toys.lamp_means(), torch.zeros(200)
    found = pictures(means, lambda z, _: z.view(-1, *inversion_toys.SHAPE), latents, labels=LAMPS, losses=losses)
    assert torch.equal(found.x_hat.flatten(0, 1).flatten(1), latents)
