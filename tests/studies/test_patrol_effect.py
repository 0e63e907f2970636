# SPDX-License-Identifier: Apache-2.0
"""What PATROL must do on the street, three seeds: hide the driver as noise and dropout do not, and find vehicles as its parts do.

Of the order of Table II, the drops of PATROL and of its parts are not asked for: their intervals overlap at this size. An
adversary whose decoder is trained against the finished net undoes much of what the surrogate and the Lipschitz term did.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.data.base import Reading
from sfumato.store import Store
from sfumato.studies.compared import number
from sfumato.studies.load import load_study
from sfumato.studies.runner import run_study
from sfumato.workplace import Workplace


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_patrol_hides_the_driver_and_keeps_the_vehicle(tmp_path: Path) -> None:
    study = load_study("patrol-effect")
    workplace = Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))
    results = run_study(study, "smoke", workplace, seeds=(0, 1, 2))
    assert not results.failed
    columns = {column.text: column for column in study.columns}

    def value(row: str, column: str) -> float:
        found = number(results, next(one for one in study.rows if one.label == row), columns[column])
        assert found is not None
        return found.value

    for part in ("Pruning-only", "Pruning with Adv", "Pruning with Lip"):
        assert value("PATROL", "accuracy") >= value(part, "accuracy")
    for other in ("Noise", "Dropout"):
        assert value("PATROL", "drop/decoder/infer/psnr") > value(other, "drop/decoder/infer/psnr")
        assert value("PATROL", "drop/mirror/infer/ssim") > value(other, "drop/mirror/infer/ssim")
        assert value(other, "decoder/infer/recognized") > 0.25
    assert value("PATROL", "decoder/infer/recognized") < 0.18  # one of eight drivers is 0.125
