# SPDX-License-Identifier: Apache-2.0
"""PPA, IF-GMI, MIRROR and VMI on an affine style generator and a linear target, of which the best styles are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato import registry
from sfumato.attacks.weights import budget
from sfumato.attacks.weights.base import InversionAttack
from sfumato.attacks.weights.clipping import PSpace, l1_ball, to_p, to_w
from sfumato.attacks.weights.ifgmi import IFGMI, Layer
from sfumato.attacks.weights.mirror import MIRROR, ramp
from sfumato.attacks.weights.mirror_black import Herd, MIRRORBlack, children, share_of_first
from sfumato.attacks.weights.objectives import poincare
from sfumato.attacks.weights.ppa import PPA
from sfumato.attacks.weights.search import Rows
from sfumato.attacks.weights.vmi import VMI, Space
from sfumato.errors import ConfigError
from sfumato.priors.base import Prior
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import new_prior
from sfumato.seeds import generator
from style_toys import LAYERS, SHAPE, WIDTH, AffineStyle, confidence, drawn, gan_prior, inverted, linear_classifier, style_prior

SMALL = {
    "ppa": PPA(samples=100, candidates=6, per_class=4, steps=30, learning_rate=0.02, views=3),
    "ifgmi": IFGMI(samples=100, candidates=6, per_class=4, steps=(10, 5, 5), radii=(50.0, 60.0, 70.0), views=3),
    "mirror-weights": MIRROR(samples=100, per_class=4, steps=40, measured=300),
    "mirror-weights-black": MIRRORBlack(samples=60, population=20, per_class=4, generations=15, measured=300),
    "vmi": VMI(steps=30, learning_rate=0.05, batch=4, couplings=2, hidden=8, per_class=4),
    "vmi-gaussian": VMI(distribution="gaussian", steps=30, learning_rate=0.05, batch=4, per_class=4),
    "vmi-gan": VMI(generator="gan", steps=30, learning_rate=0.05, batch=4, couplings=2, hidden=8, per_class=4),
}


def prior_of(attack: InversionAttack) -> Prior:
    return gan_prior() if attack.kind == "gan" else style_prior()


@pytest.fixture(params=SMALL)
def attack(request: pytest.FixtureRequest) -> InversionAttack:
    return SMALL[request.param]


def test_the_target_is_surer_than_of_what_the_prior_draws(attack: InversionAttack) -> None:
    target, prior = linear_classifier(4), prior_of(attack)
    found = inverted(attack, target, prior)
    assert tuple(found.pictures.x_hat.shape) == (4, 4, *SHAPE)
    assert bool(found.pictures.reached.all())
    with torch.no_grad():
        usual = target(prior(drawn(2000, WIDTH, seed=3))).softmax(1).mean(0)
    assert bool((confidence(found, target).mean(1) > usual + 0.05).all())


def test_the_same_seed_gives_the_same_bits(attack: InversionAttack) -> None:
    target, prior = linear_classifier(3), prior_of(attack)
    first, again, other = (inverted(attack, target, prior, seed=seed).pictures.x_hat for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("batch", [1, 2])
def test_few_rows_at_once_give_what_all_do(attack: InversionAttack, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    target, prior = linear_classifier(3), prior_of(attack)
    whole = inverted(attack, target, prior).pictures.x_hat
    monkeypatch.setattr(budget, "rows_within", lambda *_: batch)
    parts = inverted(attack, target, prior).pictures.x_hat
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=0)


def test_who_has_the_weights_asks_nothing(attack: InversionAttack) -> None:
    queries = inverted(attack, linear_classifier(3), prior_of(attack)).queries
    if attack.access == "weights":
        assert queries == 0
    else:  # 60 samples for all, and 19 children a class and generation
        assert 60 <= queries <= 60 + 3 * 15 * 19
        assert (queries - 60) % 19 == 0


@pytest.mark.parametrize("name", ["ppa", "ifgmi", "mirror-weights", "mirror-weights-black", "vmi", "vmi-gaussian"])
def test_the_registry_gives_the_papers_constants(name: str) -> None:
    made = registry.create("attacks", name, {})
    assert isinstance(made, InversionAttack)
    assert made.kind == "style"


def test_the_library_s_own_style_generator_fits(attack: InversionAttack) -> None:
    prior = new_prior(attack.kind, SHAPE, PriorSettings(width=4, latent=8))
    if isinstance(attack, IFGMI):
        attack = replace(attack, steps=(2, 2), radii=(5.0, 5.0))  # it has two layers at this size
    found = inverted(attack, linear_classifier(2), prior).pictures.x_hat
    assert tuple(found.shape) == (2, 4, *SHAPE)
    assert float(found.std()) > 0


# MIRROR


def test_mirror_ends_in_the_best_corner_of_the_box() -> None:
    """Two classes' logits are affine in the style, so that a corner of the box is the best there is."""
    target, prior = linear_classifier(2, sharpness=0.3), style_prior(0.02)
    found = inverted(MIRROR(samples=50, per_class=3, steps=100, measured=400), target, prior, seed=5).pictures.x_hat
    style, weight = AffineStyle(0.02), target.split.tail.weight.detach()
    space = PSpace.of([style.mapping(prior.draw(400, generator(5, "inversion", "box")), 0.7)], 1.0)
    slope = style.mix.detach().sum(0) @ (weight[0] - weight[1])
    corners = torch.stack([torch.where(sign * slope > 0, to_w(space.high), to_w(space.low)) for sign in (1, -1)])
    torch.testing.assert_close(found, style.synthesis(corners).detach()[:, None].expand_as(found))


def test_the_learning_rate_rises_and_falls_as_a_cosine() -> None:
    assert [ramp(share) for share in (0.0, 0.025, 0.05, 0.5, 0.75)] == pytest.approx([0, 0.5, 1, 1, 1])
    assert ramp(0.875) == pytest.approx(0.5)
    assert ramp(0.999) < 1e-4


# MIRROR, black box


def test_the_fitter_parent_gives_more() -> None:
    first, second = torch.log(torch.tensor([0.9, 0.1, 0.5, 1.0])), torch.log(torch.tensor([0.1, 0.9, 0.5, 1.0]))
    share = share_of_first(first, second)
    assert share[0] > 0.9
    assert share[1] < 0.1
    torch.testing.assert_close(share[2:], torch.tensor([0.5, 0.5]))


def test_children_take_after_the_fitter_parent() -> None:
    """Two parents, 0 and 1 everywhere: the mean of a child of both is the share of the second."""
    fitness = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    p = torch.tensor([[0.0], [1.0]]).expand(2, 200)
    herd = Herd(p.repeat(100, 1), fitness.repeat(100))
    space = PSpace(torch.zeros(200), torch.ones(200), 5.0)
    born = children(herd, space, mutation=0.0, noise=0.1, stream=torch.Generator().manual_seed(0)).mean(1)
    assert born.shape == (199,)
    mixed = born[(born > 0) & (born < 1)]
    assert len(mixed) > 40
    expected = float(fitness[0] / fitness.sum())
    assert expected > 0.7
    assert mixed.mean().item() == pytest.approx(expected, abs=0.02)
    assert (born == 1).sum() > 2 * (born == 0).sum()  # 49 % and 9 % have one kind of parent only


def test_mutations_are_as_many_and_as_far_as_asked_and_stay_in_the_box() -> None:
    herd = Herd(torch.zeros(300, 50), torch.zeros(300, dtype=torch.float64))
    space = PSpace(torch.zeros(50), torch.full((50,), 2.0), 1.0)
    born = children(herd, space, mutation=0.1, noise=0.1, stream=torch.Generator().manual_seed(0))
    assert (born != 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert 0.19 < born.max().item() <= 0.2
    assert -0.2 <= born.min().item() < -0.19
    tight = replace(space, deviations=0.05)
    assert float(children(herd, tight, mutation=1.0, noise=0.1, stream=torch.Generator()).abs().max()) <= 0.1 + 1e-6


def test_breeding_makes_the_fittest_fitter_and_stops_when_it_is_enough() -> None:
    target, prior = linear_classifier(4), style_prior()
    some = replace(SMALL["mirror-weights-black"], samples=20, per_class=1, enough=1.0)
    first, last = (confidence(inverted(replace(some, generations=n), target, prior), target)[:, 0] for n in (1, 25))
    assert bool((last >= first - 1e-6).all())
    white = replace(SMALL["mirror-weights"], per_class=1, steps=100)  # in the same box
    best = confidence(inverted(white, target, prior), target)[:, 0]
    assert float((last - first).mean()) > 0.4 * float((best - first).mean()) > 0
    assert inverted(replace(some, enough=1e-6), target, prior).queries == 20  # the best sample is enough


# PPA


def test_the_length_of_a_step_does_not_depend_on_the_size_of_the_loss() -> None:
    """The gradient of the Poincaré loss falls with the number of classes; Adam divides by it."""
    steps = []
    for classes in (5, 40, 1000):
        logits = drawn(1, classes, seed=4).requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.005, betas=(0.1, 0.1))
        before = logits.detach().clone()
        for _ in range(10):
            optimizer.zero_grad()
            poincare(logits, torch.tensor([0])).sum().backward()
            optimizer.step()
        steps.append(float((logits.detach() - before)[0, 0]))
    assert steps == pytest.approx([steps[0]] * 3, rel=0.05)
    assert steps[0] > 0.03


def test_ppa_shows_the_center_of_the_prior_s_pictures() -> None:
    target, prior = linear_classifier(2), style_prior()
    few = replace(SMALL["ppa"], steps=1, learning_rate=1e-9, candidates=1, per_class=1)
    whole, cut = (inverted(replace(few, crop=crop), target, prior).pictures.x_hat for crop in (1.0, 0.5))
    assert not torch.equal(whole, cut)


# IF-GMI


def test_layers_hand_on_what_was_searched() -> None:
    style, w = AffineStyle(), drawn(3, WIDTH, seed=6)
    labels = torch.zeros(3, dtype=torch.int64)
    layer = Layer(style, 0, w, (), 1.0)
    for _ in range(LAYERS - 1):
        layer = layer.next(2)
        torch.testing.assert_close(layer.decode(layer.latents, labels), style.synthesis(w))
    changes = [torch.zeros(3, WIDTH), torch.full((3, 64), 0.01)]
    layer = layer.after(changes)
    torch.testing.assert_close(layer.decode(layer.latents, labels), style.synthesis(w) + 0.01)
    rows = Rows(torch.tensor([2, 0]), labels[:2], 3, 0, 0)
    torch.testing.assert_close(layer.changed([one[:2] for one in changes], rows)[:, :WIDTH], w[[2, 0]])


def test_activations_find_what_no_style_gives() -> None:
    target, prior = linear_classifier(4), style_prior()
    styles = replace(SMALL["ifgmi"], steps=(20,), radii=(50.0,))
    layers = replace(SMALL["ifgmi"], steps=(10, 5, 5))
    less, more = (confidence(inverted(one, target, prior), target).mean() for one in (styles, layers))
    assert more > less + 0.1


def test_changes_stay_in_their_balls() -> None:
    prior = style_prior()
    free, tied = (
        inverted(replace(SMALL["ifgmi"], steps=(5, 20), radii=(50.0, radius)), linear_classifier(3), prior).pictures.x_hat
        for radius in (1e3, 0.01)
    )
    start = inverted(replace(SMALL["ifgmi"], steps=(5,), radii=(50.0,)), linear_classifier(3), prior).pictures.x_hat
    near, far = (torch.cdist(x.flatten(2).double(), start.flatten(2).double(), p=1).amin(2).max() for x in (tied, free))
    assert near < 0.1 < far
    assert float(l1_ball(torch.ones(1, 4), 0.01).sum()) == pytest.approx(0.01)


def test_more_layers_than_the_prior_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="layers of the prior"):
        inverted(replace(SMALL["ifgmi"], steps=(1,) * 5, radii=(1.0,) * 5), linear_classifier(2), style_prior())


# VMI


def test_first_layers_have_latents_of_their_own_and_the_others_share_one() -> None:
    prior = style_prior()
    space = Space.of(prior, None)
    assert (space.layers, space.loose) == (3, 1)
    assert Space.of(gan_prior(), None).layers == 1
    z = drawn(2, 5, 4, WIDTH, seed=7)
    x = space.decode(z, torch.zeros(2, dtype=torch.int64))
    assert x.shape == (10, *SHAPE)
    w = prior.style.mapping(z[1, 2])
    torch.testing.assert_close(x[7], prior.style.synthesis(w[None])[0])
    wide = Space.of(prior, 1)
    w = torch.stack([w[0], w[1], w[1], w[1]])
    torch.testing.assert_close(wide.decode(z[1, 2, None, :2], torch.zeros(1))[0], prior.style.synthesis(w[None])[0])
    with pytest.raises(ConfigError, match="at most 4"):
        Space.of(prior, 5)


@pytest.mark.parametrize("distribution", ["flow", "gaussian"])
def test_a_heavy_divergence_keeps_the_prior(distribution: str) -> None:
    target, prior = linear_classifier(2), style_prior()
    few = VMI(distribution=distribution, steps=60, learning_rate=0.05, batch=8, couplings=2, hidden=8, per_class=200)
    free, tied = (confidence(inverted(replace(few, kl_weight=weight), target, prior), target).mean(1) for weight in (0.0, 1e3))
    own = replace(few, steps=1, learning_rate=1e-9)  # never leaves N(0, I)
    usual = confidence(inverted(own, target, prior), target).mean(1)
    assert bool((free > usual + 0.15).all())
    torch.testing.assert_close(tied, usual, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (PPA, {"samples": 5}), (PPA, {"steps": 0}), (PPA, {"learning_rate": 0.0}), (PPA, {"betas": (0.1, 1.0)}),
        (PPA, {"scale": (0.5, 2.0)}), (PPA, {"views": 0}), (MIRROR, {"per_class": 0}), (MIRROR, {"psi": 2.0}),
        (MIRROR, {"measured": 1}), (MIRROR, {"deviations": 0.0}), (MIRRORBlack, {"population": 1, "per_class": 1}),
        (MIRRORBlack, {"mutation": 1.5}), (MIRRORBlack, {"enough": 0.0}), (MIRRORBlack, {"generations": 0}),
        (IFGMI, {"steps": (5,)}), (IFGMI, {"steps": (), "radii": ()}), (IFGMI, {"steps": (0,), "radii": (1.0,)}),
        (IFGMI, {"radii": (1.0, 1.0, 1.0, 0.0)}), (IFGMI, {"betas": (1.0, 0.1)}), (VMI, {"distribution": "uniform"}),
        (VMI, {"generator": "inversion"}), (VMI, {"layers": 0}), (VMI, {"kl_weight": -1.0}),
        (VMI, {"generator": "gan", "layers": 2}), (VMI, {"batch": 0}),
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused(kind: type[InversionAttack], arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        kind(**arguments)


def test_p_and_w_agree_on_the_corner() -> None:
    space = PSpace(torch.tensor([0.0]), torch.tensor([1.0]), 1.0)
    assert to_p(to_w(space.low)).item() == -1
