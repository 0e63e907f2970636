# SPDX-License-Identifier: Apache-2.0
"""What CEM must do, at the size of the tests and with three seeds: more error for the adversary, as much for the user."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.data.base import Reading
from sfumato.store import Store
from sfumato.studies.compared import number
from sfumato.studies.load import load_study
from sfumato.studies.runner import run_study
from sfumato.workplace import Workplace

SEEDS = (0, 1, 2)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("pair", ["Bottleneck", "Noise", pytest.param("ResSFL", marks=pytest.mark.slow)])
def test_cem_raises_the_error_of_the_adversary_at_the_same_accuracy(pair: str, tmp_path: Path) -> None:
    study = load_study("cem-effect")
    study = replace(study, rows=tuple(row for row in study.rows if pair in (row.label, row.over)))
    workplace = Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))
    results = run_study(study, "smoke", workplace, seeds=SEEDS)
    assert not results.failed
    accuracy, trained, inferred = study.columns
    without, hardened = study.rows
    for column, least in ((trained, 1.10), (inferred, 1.10)):
        before, after = number(results, without, column), number(results, hardened, column)
        assert before is not None
        assert after is not None
        assert after.value >= least * before.value, f"{column.text}: {before.value:.5f} to {after.value:.5f}"
    before, after = number(results, without, accuracy), number(results, hardened, accuracy)
    assert before is not None
    assert after is not None
    assert after.value >= before.value - 0.01, f"accuracy: {before.value:.4f} to {after.value:.4f}"
