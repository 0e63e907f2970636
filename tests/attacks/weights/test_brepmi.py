# SPDX-License-Identifier: Apache-2.0
"""Walks away from the border of a class, where the class is a half-space or a ball of latents and so its middle is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.attacks.weights import brepmi
from sfumato.attacks.weights.base import MEMORY, Inverted
from sfumato.attacks.weights.brepmi import BREPMI, _Walk, repulsion, sphere
from sfumato.data.resident import ResidentPictures
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.priors.base import Prior
from sfumato.split import whole
from sfumato.target import Target

LATENT, SHAPE, SOFT = 16, (1, 4, 4), 0.2
AHEAD = torch.ones(LATENT) / LATENT**0.5
CENTER, ROOM = torch.full((LATENT,), -0.6), 3.5
OTHER, HALF, BALL, NEVER = range(4)
SMALL = BREPMI(budget=4_000, draws=64, radius=0.5, patience=60, per_class=3)


class Veil(nn.Module):
    """Makes a picture from which the latent can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.soft = nn.Parameter(torch.tensor(SOFT))

    def forward(self, latent: Tensor) -> Tensor:
        return torch.sigmoid(self.soft * latent).unflatten(1, SHAPE)


class Regions(nn.Module):
    """Names the half-space, the ball, or neither, and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.largest = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        self.largest = max(self.largest, len(x))
        z = latent_of(x)
        half, ball = z @ AHEAD - 1, ROOM - (z - CENTER).norm(dim=1)
        return torch.stack([torch.zeros(len(z)), half, ball, torch.full((len(z),), -9.0)], 1)


def latent_of(x: Tensor) -> Tensor:
    return torch.logit(x.flatten(-3)) / SOFT


def attacked(
    attack: BREPMI, classes: list[int], *, seed: int = 0, memory: int = MEMORY, told: list[tuple[int, int]] | None = None
) -> tuple[Inverted, Regions]:
    model = Regions()
    public = ResidentPictures(torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    prior = Prior("gan", Veil(), None, latent=LATENT, image_shape=SHAPE)
    watch = None if told is None else lambda done, total: told.append((done, total))
    target = Target(whole(model), Compose()).eval()
    found = attack(target, prior, public, torch.tensor(classes), outputs=4, seed=seed, memory=memory, watch=watch)
    return found, model


def walk_in(inside: bool, *, left: int, rules: BREPMI = SMALL) -> _Walk:
    """A walk of one row in a world that is all of the class, or none of it."""
    return _Walk(rules, torch.zeros(1, LATENT), torch.tensor([left]), lambda z, _: torch.full((len(z),), inside))


def walked(walk: _Walk, directions: int = 32) -> int:
    """Walk to the end; return how many rounds that took."""
    rounds, stream = 0, torch.Generator().manual_seed(3)
    while len(rows := walk.going()):
        walk.step(rows, torch.randn(len(rows), directions, LATENT, generator=stream))
        rounds += 1
    return rounds


def test_spheres_have_exactly_their_radii() -> None:
    radius = torch.tensor([0.5, 2.0, 41.0])
    points = sphere(torch.randn(3, 32, 100, generator=torch.Generator().manual_seed(0)), radius)
    torch.testing.assert_close(points.norm(dim=2), radius[:, None].expand(-1, 32), rtol=1e-6, atol=0)
    assert float(points.mean(1).norm(dim=1).div(radius).max()) < 0.3  # all around, not to one side


def test_repulsion_is_its_formula() -> None:
    stream = torch.Generator().manual_seed(1)
    radius = torch.tensor([2.0, 0.5])
    points = sphere(torch.randn(2, 5, 3, generator=stream), radius)
    inside = torch.tensor([[True, False, False, True, False], [False, True, True, True, True]])
    expected = np.zeros((2, 3))
    for row in range(2):
        for point, good in zip(points[row].numpy(), inside[row].tolist(), strict=True):
            expected[row] += (((1 if good else -1) - 1) / 2) * point / 5 / float(radius[row])
    np.testing.assert_allclose(repulsion(points, inside, radius).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("radius", "length"), [(0.6, 0.2), (6.0, 2.0), (90.0, 3.0)])
def test_a_step_is_a_third_of_the_radius_and_at_most_three(radius: float, length: float) -> None:
    rules = BREPMI(radius=radius, bound=100.0)
    # the points of the sphere are outside, where the step leads is not
    walk = _Walk(rules, torch.zeros(1, LATENT), torch.tensor([99]), lambda z, _: z.norm(dim=1) < 0.9 * radius)
    noise = torch.zeros(1, 32, LATENT)
    noise[:, :, 0] = 1
    walk.step(torch.tensor([0]), noise)
    torch.testing.assert_close(walk.at[0, 0], torch.tensor(-length))
    assert not walk.at[0, 1:].any()
    assert int(walk.left) == 99 - 33


@pytest.mark.parametrize(
    ("expand_at", "inside", "grows"), [(0.75, 28, False), (0.75, 29, True), (1.0, 31, False), (1.0, 32, True)]
)
def test_a_sphere_grows_by_its_rule(expand_at: float, inside: int, grows: bool) -> None:
    def first(z: Tensor, _: Tensor) -> Tensor:
        return torch.arange(len(z)) < inside

    walk = _Walk(BREPMI(expand_at=expand_at), torch.zeros(1, LATENT), torch.tensor([99]), first)
    walk.steps += 7
    walk.step(torch.tensor([0]), torch.randn(1, 32, LATENT, generator=torch.Generator().manual_seed(0)))
    assert bool(walk.grown) is grows
    torch.testing.assert_close(walk.radius, torch.tensor([2.6 if grows else 2.0]))
    assert int(walk.left) == 99 - 32 - (not grows)
    assert int(walk.steps) == (0 if grows else 8)  # patience is with one sphere


def test_steps_that_are_not_accepted_end_a_walk() -> None:
    walk = walk_in(False, left=10_000)
    assert walked(walk) == SMALL.patience
    assert int(walk.left) == 10_000 - 33 * SMALL.patience
    assert not walk.at.any()


@pytest.mark.parametrize("left", [33, 65, 66, 500])
def test_the_budget_ends_a_walk(left: int) -> None:
    nowhere, everywhere = walk_in(False, left=left), walk_in(True, left=left)
    assert walked(nowhere) == left // 33
    assert int(nowhere.left) == left % 33
    grown = walked(everywhere)
    assert int(everywhere.left) == left - 32 * grown < 33
    torch.testing.assert_close(everywhere.radius, torch.tensor([0.5 * 1.3**grown]))


def test_a_walk_is_where_its_sphere_last_grew_and_never_outside() -> None:
    begin = CENTER + 0.8 * ROOM * torch.eye(LATENT)[:3]
    walk = _Walk(SMALL, begin, torch.full((3,), 3_000), lambda z, _: (z - CENTER).norm(dim=1) < ROOM)
    stream = torch.Generator().manual_seed(0)
    while len(rows := walk.going()):
        before, radius = walk.at.clone(), walk.radius.clone()
        walk.step(rows, torch.randn(len(rows), 32, LATENT, generator=stream))
        assert bool(((walk.at - CENTER).norm(dim=1) < ROOM).all())
        assert float(walk.at.abs().max()) <= max(SMALL.bound, float(begin.abs().max()))
        grew = walk.radius > radius
        assert torch.equal(walk.kept[grew], before[grew])
        assert torch.equal(walk.at[grew], before[grew])


def test_what_a_walk_found_is_where_its_sphere_last_grew_and_the_largest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[_Walk] = []

    def kept(*given: object) -> _Walk:
        walks.append(_Walk(*given))  # type: ignore[arg-type]
        return walks[0]

    monkeypatch.setattr(brepmi, "_Walk", kept)
    # so few steps that some spheres never grow
    found, _ = attacked(BREPMI(budget=3_000, draws=64, radius=1.5, patience=10, per_class=8), [BALL])
    walk = walks[0]
    assert not walk.grown.all()
    assert walk.grown.any()
    where = torch.stack([walk.kept[row] if walk.grown[row] else walk.at[row] for row in range(8)])
    apart = torch.cdist(latent_of(found.pictures.x_hat[0]), where)
    assert float(apart.amin(1).max()) < 1e-3
    assert apart.argmin(1).sort().values.tolist() == list(range(8))
    assert bool((walk.radius[apart.argmin(1)].diff() <= 0).all())


def test_a_walk_in_a_ball_ends_near_its_center_with_a_sphere_that_fills_it() -> None:
    begin = CENTER + 0.9 * ROOM * torch.eye(LATENT)[:3]
    walk = _Walk(SMALL, begin, torch.full((3,), 12_000), lambda z, _: (z - CENTER).norm(dim=1) < ROOM)
    walked(walk)
    away = (walk.kept - CENTER).norm(dim=1)
    assert float(away.max()) < 0.4 * 0.9 * ROOM
    assert bool((walk.radius > 2.0).all())
    assert bool((walk.radius / 1.3 < ROOM).all())  # no larger sphere has most of its points in the ball


def test_pictures_are_further_inside_than_where_they_started() -> None:
    at_once, late = (attacked(BREPMI(**{**vars(SMALL), "budget": budget}), [HALF, BALL])[0] for budget in (256, 8_000))
    deep = []
    for found in (at_once, late):
        assert found.pictures.reached.tolist() == [True, True]
        z = latent_of(found.pictures.x_hat)
        deep.append((float((z[0] @ AHEAD).mean()), -float((z[1] - CENTER).norm(dim=1).mean())))
        assert bool((z[0] @ AHEAD > 1).all())
        assert bool(((z[1] - CENTER).norm(dim=1) < ROOM).all())
        assert float(z.abs().max()) < 1.51
    assert deep[1][0] > deep[0][0] + 1
    assert deep[1][1] > deep[0][1] + 0.5


def test_a_class_that_is_never_named_is_reported_within_the_budget() -> None:
    found, model = attacked(SMALL, [NEVER])
    assert found.pictures.reached.tolist() == [False]
    assert found.queries == model.asked == 64 * (SMALL.budget // 2 // 64)
    assert found.pictures.x_hat.shape == (1, 3, *SHAPE)
    assert len(found.pictures.x_hat.unique()) > LATENT  # pictures of the prior, not blanks
    both, _ = attacked(SMALL, [NEVER, HALF])
    assert both.pictures.reached.tolist() == [False, True]


def test_queries_are_counted_exactly_and_shared_starts_once() -> None:
    alone = [attacked(SMALL, [label])[0].queries for label in (HALF, BALL)]
    both, model = attacked(SMALL, [HALF, BALL])
    assert both.queries == model.asked
    assert max(alone) <= SMALL.budget
    assert sum(alone) - SMALL.budget // 2 <= both.queries < sum(alone)


@pytest.mark.parametrize("memory", [MEMORY, 1])
def test_classes_at_once_are_as_one_at_a_time(memory: int) -> None:
    together, model = attacked(SMALL, [BALL, NEVER, HALF], memory=memory)
    for place, label in enumerate([BALL, NEVER, HALF]):
        alone, _ = attacked(SMALL, [label])
        torch.testing.assert_close(alone.pictures.x_hat[0], together.pictures.x_hat[place])
    assert model.largest == (6 * 32 if memory == MEMORY else 1)


def test_the_seed_decides() -> None:
    first, again, other = (attacked(SMALL, [HALF], seed=seed)[0].pictures.x_hat for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_progress_never_goes_back() -> None:
    told: list[tuple[int, int]] = []
    attacked(SMALL, [HALF, BALL], told=told)
    done = [done for done, _ in told]
    assert done == sorted(done)
    assert done[-1] == told[0][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 511}, "at least 512 queries a class, half of them for 256 draws .* got 511"),
        ({"budget": 3_000, "per_class": 50}, "at least 3300 queries"),
        ({"expand_at": 1.1}, "expand_at must be at most 1"),
        ({"expand_at": 0.0}, "expand_at must be above 0"),
        ({"factor": 0.5}, "factor must be at least 1"),
        ({"radius": 0.0}, "radius must be above 0"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BREPMI(**arguments)
