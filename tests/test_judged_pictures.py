# SPDX-License-Identifier: Apache-2.0
"""What attacks of a recipe made is found again after its audit, judged picture by picture as the audit judged it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inversion_recipes import audited, place, recipe
from sfumato.inversions import judged_pictures
from sfumato.studies.subject import Subject
from sfumato.studies.trace import record
from sfumato.targets import train_recipe
from sfumato.workplace import read_data


def test_an_audited_recipe_gives_back_what_was_judged_without_any_work(tmp_path: Path) -> None:
    made, told = recipe(), list[str]()
    found = audited(made, place(tmp_path))
    here = place(tmp_path, watch=lambda name, done, total: told.append(name), resume=True)
    data = read_data(made, here)
    target, stage = train_recipe(made, data, here)
    classes, judged = judged_pictures(made, target, stage, data, here)
    assert [one.attack for one in judged] == ["gmi"] == [one.name for one in found.results]
    assert all(name.endswith("(found)") for name in told)
    for one, result in zip(judged, found.results, strict=True):
        assert one.pictures.x_hat.shape == (3, 2, 3, 16, 16)
        assert one.counted.float().mean().item() == pytest.approx(result.top1.value)
        assert one.confidence.mean().item() == pytest.approx(result.confidence.value, rel=1e-5)
        assert [data.classes[label] for label in classes.tolist()] == [own.name for own in result.classes]
    subject = Subject(target, data, [], None, made.seed, classes, {one.attack: one for one in judged})
    taken = record(["fisher/task", "fisher/gmi", "gmi/likelihood/misses"], subject)
    assert set(taken) >= {"fisher/task", "fisher/gmi"}
    assert sum(taken["fisher/gmi"].y) == pytest.approx(100)
