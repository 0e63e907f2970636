# SPDX-License-Identifier: Apache-2.0
"""GMI, KEDMI and LOMMA on a prior and a target whose best latents are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from inversion_toys import CLASSES, SHAPE, lamp_means, lamp_prior, lamp_public, lamp_target
from sfumato.attacks.weights import gmi, kedmi
from sfumato.attacks.weights.base import InversionAttack
from sfumato.attacks.weights.distill import Distillation, answers, distilled, divergence
from sfumato.attacks.weights.gmi import GMI
from sfumato.attacks.weights.kedmi import KEDMI
from sfumato.attacks.weights.lomma import LOMMA
from sfumato.attacks.weights.search import Rows, Trial
from sfumato.errors import ConfigError

ALL = torch.arange(CLASSES)
SHORT = Distillation(epochs=1)
ATTACKS: list[InversionAttack] = [
    GMI(steps=20, per_class=3),
    KEDMI(steps=60, per_class=3, log_var=-6.0),
    LOMMA(base="gmi", steps=60, per_class=3, students=(), regularizer=0.01),
    LOMMA(base="kedmi", steps=300, per_class=3, students=(), regularizer=0.01),
]


def attacked(attack: InversionAttack, classes: torch.Tensor = ALL, seed: int = 0) -> torch.Tensor:
    found = attack(lamp_target(), lamp_prior(attack.kind), lamp_public(), classes, outputs=CLASSES, seed=seed)
    assert found.queries == 0
    return found.pictures.x_hat


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{type(attack).__name__}-{attack.kind}")
def test_the_pixel_of_each_class_is_lit(attack: InversionAttack) -> None:
    x_hat = attacked(attack)
    assert tuple(x_hat.shape) == (CLASSES, 3, *SHAPE)
    assert torch.equal(x_hat.flatten(2).argmax(2), ALL[:, None].expand(-1, 3))
    assert torch.equal(x_hat, attacked(attack))
    assert not torch.equal(x_hat, attacked(attack, seed=1))


def test_gmi_ends_in_the_corner_of_its_box() -> None:
    best = torch.sigmoid(2 * (2 * torch.eye(CLASSES) - 1)).unflatten(1, SHAPE)  # latents 1 and -1
    torch.testing.assert_close(attacked(GMI(steps=200, per_class=2, mean_over=1.0)), best[:, None].expand(-1, 2, -1, -1, -1))


@pytest.mark.parametrize("attack", ATTACKS[:2], ids=["gmi", "kedmi"])
def test_which_other_classes_are_attacked_changes_no_start(attack: InversionAttack) -> None:
    few, many = attacked(attack, torch.tensor([2, 0])), attacked(attack)
    assert bool((few[0].flatten(1).argmax(1) == 2).all())
    if isinstance(attack, GMI):  # KEDMI draws by row
        torch.testing.assert_close(few[0], many[2])


def test_the_most_promising_picture_goes_first() -> None:
    x_hat = attacked(GMI(steps=1, per_class=8, learning_rate=1e-9))
    losses = F.cross_entropy(6 * x_hat.flatten(0, 1).flatten(1), ALL.repeat_interleave(8), reduction="none")
    total = 100 * losses + x_hat.flatten(0, 1).mean((1, 2, 3))
    assert bool((total.view(CLASSES, 8).diff(dim=1) >= -1e-4).all())


def test_presets_say_which_version_they_follow() -> None:
    assert (GMI().steps, gmi.original().steps, gmi.original().mean_over) == (3000, 1500, 100.0)
    assert (KEDMI().log_var, KEDMI().bound) == (0.0, 1.0)
    assert (kedmi.original().steps, kedmi.original().log_var, kedmi.original().bound) == (1500, 1.0, None)


def test_kedmi_draws_of_its_gaussians() -> None:
    rows = Rows(ALL, ALL, CLASSES, 0, 0)
    mean, log_var = torch.full((CLASSES, 4), 0.25), torch.full((CLASSES, 4), -2.0)
    wide = KEDMI(bound=None)._search.latents([mean, log_var], rows)
    torch.testing.assert_close(wide, 0.25 + torch.exp(torch.tensor(-1.0)) * rows.normal(4))
    assert torch.equal(KEDMI(bound=0.1)._search.latents([mean, log_var], rows), wide.clamp(-0.1, 0.1))


def test_lomma_measures_embeddings_and_may_draw_where_it_pulls() -> None:
    means = lamp_means("inversion")
    drawn, mean = LOMMA(pull="drawn", students=()), LOMMA(students=(), statistics=10)
    for attack in (drawn, mean):
        attack.fit(means)
    public = lamp_public().read(torch.arange(40)).flatten(1) / 255
    trial = Trial(torch.zeros(1), torch.zeros(1), [], Rows(ALL, ALL, CLASSES, 3, 0), means.white.classify, torch.zeros(1))
    torch.testing.assert_close(mean._toward(trial), public[:10].mean(0)[None])
    expected = public.mean(0) + public.std(0) * trial.rows.normal(CLASSES, purpose="pull")
    torch.testing.assert_close(drawn._toward(trial), expected)


def test_lomma_averages_over_its_students() -> None:
    means = lamp_means("inversion")
    attack = LOMMA(students=("mlp",), distillation=SHORT)
    attack.fit(means)
    x = torch.rand(CLASSES, *SHAPE)
    trial = Trial(x, x, [], Rows(ALL, ALL, CLASSES, 0, 0), means.white.classify, x)
    (student,) = attack._students
    by_hand = -(means.white.classify(x).logits.diagonal() + student(x).diagonal()) / 2
    torch.testing.assert_close(attack._wanted(trial), by_hand)


def test_a_student_comes_to_answer_as_the_target_does() -> None:
    means = lamp_means()
    known = answers(means)
    x = lamp_public().read(torch.arange(40)) / 255
    torch.testing.assert_close(known[0].exp(), torch.softmax(6 * x.flatten(1), 1))
    torch.testing.assert_close(known[1].exp(), torch.softmax(6 * x.flip(-1).flatten(1), 1))
    apart = [
        float(divergence(distilled(means, "mlp", known, settings=Distillation(epochs=epochs, batch_size=8))(x), known[0]))
        for epochs in (1, 40)
    ]
    assert apart[1] < 0.1 * apart[0]


def test_attacks_refuse_what_does_not_fit() -> None:
    def run(prior_kind: str = "gan", shape: tuple[int, int, int] = SHAPE, classes: tuple[int, ...] = (0,)) -> None:
        prior = lamp_prior(prior_kind)  # type: ignore[arg-type]
        prior.image_shape = shape
        GMI(steps=1)(lamp_target(), prior, lamp_public(), torch.tensor(classes), outputs=CLASSES)

    with pytest.raises(ConfigError, match="GMI searches a prior of kind 'gan', got one of kind 'inversion'"):
        run("inversion")
    with pytest.raises(ConfigError, match=r"makes pictures of \(1, 4, 4\) and the target takes \(1, 2, 2\)"):
        run(shape=(1, 4, 4))
    with pytest.raises(ConfigError, match=r"must be different numbers, got \[1, 1\]"):
        run(classes=(1, 1))
    with pytest.raises(ConfigError, match=r"must be from 0 to 3, those of the target, got \[4\]"):
        run(classes=(4,))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (GMI, {"steps": 0}, "steps must be at least 1"),
        (GMI, {"bound": 0.0}, "bound must be above 0"),
        (KEDMI, {"learning_rate": -1.0}, "learning_rate must be above 0"),
        (KEDMI, {"log_var": -30.0}, "log_var must be at least -20"),
        (LOMMA, {"base": "ppa"}, "base must be one of kedmi, gmi"),
        (LOMMA, {"statistics": 1}, "statistics must be at least 2"),
    ],
)
def test_constants_out_of_range_are_refused(kind: type[InversionAttack], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**arguments)
