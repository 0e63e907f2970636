# SPDX-License-Identifier: Apache-2.0
"""What attacks on weights must do on drawn portraits of 40 people: 5 times chance, 3 times where they see labels alone."""

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

CHANCE = 1 / 40


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_attacks_rebuild_the_people_of_an_undefended_classifier(tmp_path: Path) -> None:
    study = load_study("inversion-portraits")
    workplace = Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))
    results = run_study(study, "smoke", workplace)
    save_study(results, tmp_path)
    assert not results.failed
    top1: dict[str, float] = {}
    for column in study.columns:
        interval = number(results, study.rows[0], column)
        assert interval is not None, column.text
        assert interval.low <= interval.value <= interval.high
        if column.key == "top1":
            top1[column.name] = interval.value
    for name in ("gmi", "kedmi", "lomma", "lomma-gmi", "ppa", "ifgmi", "mirror-weights", "plg", "vmi"):
        assert top1[name] >= 5 * CHANCE, name
    assert top1["brepmi"] >= 3 * CHANCE
    assert top1["kedmi"] > top1["gmi"]
    assert top1["lomma"] > top1["kedmi"]
    assert top1["lomma-gmi"] > top1["gmi"]
