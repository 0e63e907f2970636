# SPDX-License-Identifier: Apache-2.0
"""How many rows of a search fit a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inversion_toys import lamp_means
from sfumato.attacks.weights.budget import rows_within, search_within
from sfumato.attacks.weights.search import Search, Trial
from sfumato.errors import ConfigError
from sfumato.target import Classified

WIDE = 1000


def squares(trial: Trial) -> Tensor:
    return trial.latents.square().sum(1)


PARTS = Search(
    decode=lambda latents, labels: latents[:, :, None, None],
    ask=lambda x: Classified(x.flatten(1), x.flatten(1)),
    terms=[(1.0, squares)],
    optimizer=lambda variables: torch.optim.SGD(variables, lr=0.1),
    steps=2,
)


def rows(memory: int, count: int = 50) -> int:
    return rows_within(memory, PARTS, [torch.zeros(count, WIDE)], torch.zeros(count, dtype=torch.int64))


def test_rows_are_linear_in_the_memory() -> None:
    each = 4 * WIDE  # the square keeps its input and nothing else that grows
    found = [rows(number * each + each // 2) for number in (10, 20, 40)]
    assert found == [10, 20, 40]


def test_a_budget_is_at_least_one_row_and_at_most_all() -> None:
    assert rows(1 << 30) == 50
    assert rows(1 << 30, count=1) == 1
    for count in (1, 50):
        with pytest.raises(ConfigError, match=r"needs 4,\d\d\d bytes for one picture, and has 100; give it more memory"):
            rows(100, count)


def test_memory_does_not_change_what_is_found() -> None:
    start, labels = [torch.rand(6, WIDE)], torch.zeros(6, dtype=torch.int64)
    few, many = (search_within(lamp_means(memory=memory), PARTS, start, labels) for memory in (9 * WIDE, 1 << 30))
    torch.testing.assert_close(few.variables[0], many.variables[0])
    steps: list[int] = []
    means = replace(lamp_means(memory=9 * WIDE), watch=lambda done, total: steps.append(total))
    search_within(means, PARTS, start, labels)
    assert steps[0] == 2 * 3  # two rows at once
