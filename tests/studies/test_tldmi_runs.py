# SPDX-License-Identifier: Apache-2.0
"""The studies of TL-DMI that come with Sfumato run, at a size that takes seconds: from pictures to numbers, traces and charts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.data.base import Reading
from sfumato.store import Store
from sfumato.studies.compared import number
from sfumato.studies.load import read_study
from sfumato.studies.report import curves
from sfumato.studies.results import Results
from sfumato.studies.runner import run_study
from sfumato.studies.study import Study, merge
from sfumato.studies.table import study_table
from sfumato.workplace import Workplace
from tldmi_cells import load

SMALL: Mapping[str, Any] = {
    "data": {"identities": 14, "per_identity": 8, "size": 16, "private_identities": 4, "pretrain_identities": 4},
    "model": {"width": 0.0625},
    "train": {"epochs": 2, "batch_size": 8},
    "pretrain": {"epochs": 1},
    "evaluator": {"options": {"width": 0.125}, "epochs": 2, "gate": 0.0},
    "inversion": {"identities": 3},
    "prior": {"gan": {"steps": 3, "width": 4}, "inversion": {"steps": 3, "width": 4}},
}


def tiny(name: str, *attacks: Mapping[str, object], setups: Mapping[str, object] | None = None, **keys: object) -> Study:
    table = load(name).table
    size = {"smoke": merge(table["size"]["smoke"], {**SMALL, "attacks": list(attacks)})}
    return read_study({**table, "setups": setups or {"VGG16": {}}, "size": size, **keys}, name="tiny")


def run(study: Study, folder: Path) -> Results:
    workplace = Workplace(store=Store(folder), reading=Reading(), device=torch.device("cpu"))
    found = run_study(study, "smoke", workplace)
    assert not found.failed, found.failed[0].error
    return found


def gmi(**keys: object) -> dict[str, object]:
    return {"name": "gmi", "steps": 3, "per_class": 2, **keys}


def kedmi(**keys: object) -> dict[str, object]:
    return {"name": "kedmi", "steps": 3, "per_class": 2, **keys}


TRACED = {
    "tldmi-fig1II": (kedmi(),),
    "tldmi-fig5": (kedmi(), *(kedmi(label=f"kedmi-{steps}") for steps in (10, 30, 100))),
    "tldmi-fig6": (kedmi(),),
    "tldmi-fig7": (gmi(),),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", TRACED)
def test_a_figure_runs_from_pictures_to_numbers_and_traces(name: str, tmp_path: Path) -> None:
    found = run(tiny(name, *TRACED[name]), tmp_path)
    for row in found.study.rows:
        for column in found.study.columns:
            assert number(found, row, column) is not None, (row.label, column.text)
    for cell in found.cells:
        assert {trace for trace in found.study.keys.traces if "likelihood" not in trace} <= set(cell.traces)
        assert cell.traces  # pictures are hits or misses, and there may be none of one of these
        for trace, taken in cell.traces.items():
            assert sum(taken.y) == pytest.approx(100), trace  # shares of layers, or of pictures
            assert trace.startswith("fisher") == bool(taken.labels)
    assert study_table(found).sources[:2] == (("ours", "paper"),) * 2


@pytest.mark.timeout(120)
def test_the_targets_of_figure_2_start_from_different_pictures_and_stand_on_three_lines(tmp_path: Path) -> None:
    """Without an attack: a prior of KEDMI would be trained for each target."""
    pictures = {"identities": 4, "per_identity": 8, "size": 16}
    street = {"identities": 4, "test_identities": 2, "cameras": 2, "per_camera": 2, "size": 16}
    sets = {"VGG16": {"name": "street", **street}, "PubFig83": {"name": "portraits", "seed": 2, **pictures}}
    setups = {name: {"smoke": {"pretrain": {**one, "epochs": 1}}} for name, one in sets.items()}
    columns = ["accuracy", "training/parameters"]
    shown = {"columns": columns, "extra": [], "chart": dict(zip("xy", columns, strict=True))}
    found = run(tiny("tldmi-fig2", setups={"FaceScrub": {}, **setups}, **shown), tmp_path)
    assert len({cell.target for cell in found.cells}) == len(found.cells) == 12
    ((lines, x, y),) = curves(found)
    assert (x.title, y.title) == ("accuracy", "trained parameters")
    assert [len(one.points) for one in lines] == [1, 3] * 3
