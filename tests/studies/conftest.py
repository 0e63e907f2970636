# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.data.base import Data, Reading
from sfumato.data.partition import partition
from sfumato.recipe import Recipe
from sfumato.store import Store
from sfumato.workplace import Workplace


@pytest.fixture
def workplace(tmp_path: Path, blobs: Data, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A place whose only pictures are the blobs."""

    def read(recipe: Recipe, _: Workplace) -> Data:
        return partition(blobs, auxiliary=recipe.data.auxiliary, seed=recipe.seed)

    monkeypatch.setattr("sfumato.studies.runner.read_data", read)
    return Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))
