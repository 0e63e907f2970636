# SPDX-License-Identifier: Apache-2.0
"""What TL-DMI must do on drawn portraits, three seeds: at the same accuracy, less is rebuilt where the first layers are frozen.

What else the study finds, where another defense does better among that, is told and not asked for.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.data.base import Reading
from sfumato.store import Store
from sfumato.studies.compared import number
from sfumato.studies.load import load_study
from sfumato.studies.report import save_study
from sfumato.studies.runner import run_study
from sfumato.workplace import Workplace


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_less_is_rebuilt_of_a_model_whose_first_layers_are_frozen(tmp_path: Path) -> None:
    study = load_study("tldmi-effect")
    workplace = Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))
    results = run_study(study, "smoke", workplace, seeds=(0, 1, 2))
    save_study(results, tmp_path)
    assert not results.failed
    columns = {column.text: column for column in study.columns}

    def mean(row: str, column: str) -> float:
        interval = number(results, study.row(row), columns[column])
        assert interval is not None
        return interval.value

    frozen = [f"TL-DMI, {count} frozen" for count in ("4 of 13", "7", "10")]
    whole = "No defense, stop = 8"
    trained = [mean(row, "training/parameters") for row in (whole, *frozen)]
    rebuilt = [mean(row, "ppa/top1") for row in (whole, *frozen)]
    assert trained == sorted(trained, reverse=True)
    assert rebuilt == sorted(rebuilt, reverse=True)
    assert all(mean(row, "matched/ppa/top1") > 0 for row in frozen)
    assert all(mean(row, "matched/gmi/top1") > 0 for row in frozen)
    assert mean("TL-DMI, 7 frozen", "matched/ppa/top1") > mean("MID, weight = 0.3", "matched/ppa/top1")
    assert mean(whole, "evaluator/accuracy") > 0.9
