# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.defenses.posteriors import FLOOR, answers, floored_log, fraction_of, keep_label


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_posterior_has_a_finite_logarithm(dtype: torch.dtype) -> None:
    logs = floored_log(torch.tensor([[1.0, 0.25, 0.0]], dtype=dtype))
    assert logs.dtype == dtype
    assert logs.isfinite().all()
    assert logs[0, :2].tolist() == pytest.approx([0.0, math.log(0.25)], abs=1e-2)
    if dtype in (torch.float32, torch.float64):
        assert logs[0, 2].item() == pytest.approx(math.log(FLOOR), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", [0.0, -1e-3, -27.6, 5.0, 300.0])
def test_a_label_that_ties_is_the_answer_still(level: float, dtype: torch.dtype) -> None:
    changed = torch.full((4, 4), level, dtype=dtype)
    kept = keep_label(changed, torch.eye(4, dtype=dtype))
    assert kept.argmax(1).tolist() == [0, 1, 2, 3]
    assert torch.allclose(kept, changed, rtol=2e-2, atol=2e-2)
    assert (kept != changed).sum() == 4


def test_a_label_that_leads_is_left_as_it_is() -> None:
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keep_label(logits / 2, logits), logits / 2)


def test_the_fractions_of_different_rows_are_spread_evenly() -> None:
    rows = torch.tensor(list(itertools.permutations(range(7))))
    fractions = fraction_of(rows)
    assert fractions.dtype == torch.float64
    assert fractions.min() >= 0
    assert fractions.max() < 1
    assert fractions.unique().numel() == len(rows)
    counts = np.histogram(fractions.numpy(), bins=20, range=(0, 1))[0]
    # chi-square with 19 degrees of freedom: above 43.8 once in a thousand
    assert ((counts - len(rows) / 20) ** 2 / (len(rows) / 20)).sum() < 43.8


@pytest.mark.parametrize("offset", [0, -(2**40), 2**40, -1])
def test_the_fraction_of_a_row_is_its_polynomial_modulo_the_prime(offset: int) -> None:
    row = [5 + offset, offset, 7 + offset]
    prime, base = 2**31 - 1, 1_103_515_245
    expected = sum(value * base ** (place + 1) for place, value in enumerate(row)) % prime / prime
    assert fraction_of(torch.tensor([row, row]))[1].item() == pytest.approx(expected, abs=1e-15)


def test_a_model_answers_as_deployed_and_keeps_its_mode() -> None:
    class Halved(sf.Defense):
        name = "halved"

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return z / 2

    split = sf.Split(nn.Dropout(0.5), nn.Flatten()).train()
    found = answers(split, Halved().protect, torch.ones(2, 3, 1, 1).half())
    assert torch.equal(found, torch.full((2, 3), 0.5))
    assert found.dtype == torch.float32
    assert split.head.training
