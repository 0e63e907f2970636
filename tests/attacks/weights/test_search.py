# SPDX-License-Identifier: Apache-2.0
"""The one latent search against searches whose every step is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.attacks.weights.search import Rows, Search, Trial, search
from sfumato.errors import TrainingError
from sfumato.target import Classified
from sfumato.types import Images, Labels

CENTERS = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.0]])


def decode(latents: Tensor, labels: Labels) -> Images:
    return latents[:, :, None, None]


def ask(x: Images) -> Classified:
    return Classified(x.flatten(1), x.flatten(1))


def to_center(trial: Trial) -> Tensor:
    return (trial.latents - CENTERS[trial.rows.labels]).square().sum(1)


def descend(rate: float, momentum: float = 0.0) -> Search:
    return Search(
        decode=decode,
        ask=ask,
        terms=[(1.0, to_center)],
        optimizer=lambda variables: torch.optim.SGD(variables, lr=rate, momentum=momentum, nesterov=momentum > 0),
        steps=7,
    )


def started(rows: int = 6) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(3)
    return torch.randn(rows, 2, generator=stream), torch.arange(rows) % 3


def test_a_quadratic_is_descended_as_its_closed_form_says() -> None:
    start, labels = started()
    found = search(descend(0.1), [start], labels, batch=6, seed=0)
    expected = CENTERS[labels] + (1 - 2 * 0.1) ** 7 * (start - CENTERS[labels])
    torch.testing.assert_close(found.variables[0], expected)
    torch.testing.assert_close(found.first, (start - CENTERS[labels]).square().sum(1))
    torch.testing.assert_close(found.losses, found.first * (1 - 2 * 0.1) ** 12)  # before the seventh step


def test_the_accelerated_step_of_gmi_is_nesterov_momentum() -> None:
    start, labels = started()
    rate, momentum = 0.05, 0.9
    z, v, centers = (one.numpy().astype(np.float64) for one in (start, torch.zeros_like(start), CENTERS[labels]))
    for _ in range(7):  # as the release writes it out
        before = v.copy()
        v = momentum * v - rate * 2 * (z - centers)
        z = z + (-momentum * before + (1 + momentum) * v)
    found = search(descend(rate, momentum), [start], labels, batch=6, seed=0)
    np.testing.assert_allclose(found.variables[0].numpy(), z, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_what_a_row_finds_does_not_depend_on_its_batch(batch: int) -> None:
    def noisy(variables: Sequence[Tensor], rows: Rows) -> Tensor:
        return variables[0] + rows.normal(2) * rows.uniform(1)

    start, labels = started()
    parts = replace(descend(0.1), latents=noisy)
    found, whole = (search(parts, [start], labels, batch=size, seed=5).variables[0] for size in (batch, 6))
    torch.testing.assert_close(found, whole)
    assert not torch.equal(found, search(parts, [start], labels, batch=6, seed=6).variables[0])


@pytest.mark.parametrize("size", [3, 1 << 16])
def test_random_numbers_are_a_row_s_own(size: int) -> None:
    labels = torch.zeros(5, dtype=torch.int64)
    whole = Rows(torch.arange(5), labels, 5, 2, 0)
    some = replace(whole, index=torch.tensor([3, 1]), labels=labels[:2])
    assert torch.equal(some.normal(size), whole.normal(size)[[3, 1]])
    assert torch.equal(some.uniform(size), whole.uniform(size)[[3, 1]])
    others = (replace(whole, step=1), replace(whole, seed=1))
    drawn = [*whole.normal(size), *(one for other in others for one in other.normal(size)), *whole.normal(size, purpose="loose")]
    assert all(not torch.equal(one, two) for place, one in enumerate(drawn) for two in drawn[:place])


def test_long_rows_are_drawn_for_those_in_hand_alone() -> None:
    rows = Rows(torch.tensor([7]), torch.tensor([0]), 10**9, 0, 0)  # of all it would be half a million gigabytes
    assert rows.normal(2, 1 << 16).shape == (1, 2, 1 << 16)
    assert float(rows.uniform(1 << 16).mean()) == pytest.approx(0.5, abs=0.01)


def test_the_best_variables_are_kept_where_later_ones_are_worse() -> None:
    start, labels = started()
    away = replace(descend(0.1), best=True, optimizer=lambda variables: torch.optim.SGD(variables, lr=0.1, maximize=True))
    found = search(away, [start], labels, batch=6, seed=0)
    assert torch.equal(found.variables[0], start)
    assert torch.equal(found.losses, found.first)
    assert not torch.equal(search(replace(away, best=False), [start], labels, batch=6, seed=0).variables[0], start)


def test_clips_hold_from_the_start() -> None:
    seen = []

    def look(trial: Trial) -> Tensor:
        seen.append(float(trial.latents.detach().abs().max()))
        return to_center(trial)

    def clip(variables: Sequence[Tensor]) -> None:
        variables[0].clamp_(-0.75, 0.75)

    start, labels = started()
    found = search(replace(descend(0.48), terms=[(1.0, look)], clip=clip), [3 * start], labels, batch=6, seed=0)
    assert max(seen) <= 0.75
    torch.testing.assert_close(found.variables[0], CENTERS[labels].clamp(-0.75, 0.75))


def test_the_start_is_copied_and_progress_is_told() -> None:
    news: list[tuple[int, int]] = []
    start, labels = started()
    before = start.clone()
    search(descend(0.1), [start], labels, batch=4, seed=0, watch=lambda done, total: news.append((done, total)))
    assert torch.equal(start, before)
    assert not start.requires_grad
    assert news == [(step, 14) for step in range(1, 15)]


def test_a_schedule_scales_the_steps() -> None:
    start, labels = started()
    stopped = search(replace(descend(0.1), schedule=lambda share: float(share < 0.5)), [start], labels, batch=6, seed=0)
    expected = CENTERS[labels] + (1 - 2 * 0.1) ** 4 * (start - CENTERS[labels])  # steps 0 to 3 of 7
    torch.testing.assert_close(stopped.variables[0], expected)


def test_the_target_is_asked_once_a_step() -> None:
    calls = []

    def counted(x: Images) -> Classified:
        calls.append(len(x))
        return ask(x)

    def twice(trial: Trial) -> Tensor:
        return (trial.answer.logits + trial.answer.embedding).square().sum(1)

    start, labels = started()
    search(replace(descend(0.01), ask=counted, terms=[(1.0, twice), (0.5, twice)]), [start], labels, batch=6, seed=0)
    assert calls == [6] * 7


def test_a_loss_that_is_not_finite_stops_the_search() -> None:
    start, labels = started()

    def broken(trial: Trial) -> Tensor:
        return to_center(trial) / (trial.rows.labels > 0)

    with pytest.raises(TrainingError, match="2 of 6 rows stopped being finite at step 0.*lower the learning rate"):
        search(replace(descend(0.1), terms=[(1.0, broken)]), [start], labels, batch=6, seed=0)
