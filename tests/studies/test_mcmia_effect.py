# SPDX-License-Identifier: Apache-2.0
"""What MCMIA must do on 2,000 members of MNIST, three seeds: at the paper's ratio it costs at most one point of test accuracy.

Whether it lowers attack accuracy is not asked for but told, with intervals, whichever way it comes out: without a defense the
attacks find little here, and what is left to hide lies within the intervals.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sfumato.data.base import Reading
from sfumato.errors import MissingDataError
from sfumato.store import Store
from sfumato.studies.compared import number
from sfumato.studies.load import load_study
from sfumato.studies.report import save_study
from sfumato.studies.runner import run_study
from sfumato.workplace import Workplace


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_pruning_at_the_papers_ratio_costs_at_most_a_point(tmp_path: Path) -> None:
    study = load_study("mcmia-effect")
    root = os.environ.get("SFUMATO_DATA")
    workplace = Workplace(store=Store(tmp_path), reading=Reading(root=Path(root) if root else None), device=torch.device("cpu"))
    try:
        results = run_study(study, "smoke", workplace, seeds=(0, 1, 2))
    except MissingDataError as error:
        pytest.skip(f"MNIST is not on this machine: {error}")
    save_study(results, tmp_path)
    assert not results.failed
    columns = {column.text: column for column in study.columns}

    def found(row: str, column: str) -> tuple[float, float, float]:
        interval = number(results, study.row(row), columns[column])
        assert interval is not None
        return interval.value, interval.low, interval.high

    assert found("MCMIA-Pruning", "drop/accuracy")[0] <= 0.01
    assert found("MCMIA-Pruning", "compression/ratio")[0] == pytest.approx(15.78, rel=1e-3)
    for row in (one.label for one in study.rows):
        for attack in ("gap", "nasr", "loss", "rmia", "lira"):
            value, low, high = found(row, f"{attack}/attack_accuracy")
            assert 0.4 < value < 0.7
            assert low < value < high
