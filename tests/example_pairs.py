# SPDX-License-Identifier: Apache-2.0
"""A study of two rows whose weights are attacked, run in seconds, and pairs that can be told apart by a glance at one pixel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import torch

from inversion_recipes import place
from sfumato.studies.load import read_study
from sfumato.studies.pairs import PairFacts, Pairs
from sfumato.studies.report import save_study
from sfumato.studies.results import Results
from sfumato.studies.runner import run_study

STUDY = """
title = "Two rows"
source = "nobody2026, Table 1"
columns = ["accuracy", "gmi/top1"]

[size.smoke]
data = { name = "portraits", identities = 8, per_identity = 6, size = 16, private_identities = 4 }
model = { name = "cnn4", width = 0.25 }
train = { epochs = 1, batch_size = 8 }
evaluator = { model = "lenet5", epochs = 1, gate = 0.0 }
prior = { gan = { width = 4, latent = 8, steps = 40, batch_size = 8 } }
inversion = { identities = 3 }
attacks = [{ name = "gmi", steps = 20, per_class = 2 }]

[[rows]]
label = "Plain"

[[rows]]
label = "Smoothed"
defenses = [{ name = "label_smoothing", alpha = 0.1 }]
"""

FACTS = PairFacts(
    fingerprint="f" * 64,
    study="two",
    size="smoke",
    data="portraits",
    rows=("Plain", "Smoothed"),
    attack="gmi",
    seed=0,
    classes=(1, 4, 6),
)


def ran(root: Path, old: str = "", new: str = "", name: str = "two") -> tuple[Results, Path]:
    """The study with a line of it changed, run below a folder, and its own folder."""
    assert old in STUDY
    study = read_study(tomllib.loads(STUDY.replace(old, new, 1) if old else STUDY), name=name)
    results = run_study(study, "smoke", place(root))
    assert not results.failed, [cell.error for cell in results.cells]
    folder = root / "studies" / f"{name}-smoke"
    save_study(results, folder)
    return results, folder


def telling_pairs(count: int = 3, side: int = 8) -> Pairs:
    """Pairs whose every pixel says what it is: red of 200 for real ones, 20 and 90 for the rows; green is the class."""
    made = torch.zeros(3, count, 3, side, side, dtype=torch.uint8)
    for kind, red in enumerate((200, 20, 90)):
        made[kind, :, 0] = red
        made[kind, :, 1] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    classes = tuple(range(10, 10 + count))
    facts = PairFacts("f" * 64, "two", "smoke", "portraits", ("Plain", "Smoothed"), "gmi", 0, classes)
    return Pairs(facts, made[0], made[1:])
