# SPDX-License-Identifier: Apache-2.0
"""The commands, end to end, on a folder of small pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sfumato.cli
from example_study import STUDY


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with pictures and a study of them."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "pictures" / name / f"{number}.png")
    (tmp_path / "small.toml").write_text(STUDY.replace('name = "digits"', 'name = "folder", path = "pictures"'))
    return tmp_path


def call(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["sfumato", *arguments])
    try:
        sfumato.cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_study_from_run_to_report(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("study", "run", "small.toml", "--device", "cpu", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    for text in (
        "A small study",
        "Plain",
        "91.86",
        "1 of 2 pairs",
        "needs the defense 'magic'",
        "One seed",
        "the paper says 50.0 %",
    ):
        assert text in said
    written = folder / "runs" / "studies" / "small-smoke"
    assert sorted(path.name for path in written.iterdir()) == ["report.html", "report.md", "study.json"]
    assert json.loads((written / "study.json").read_text())["seeds"] == [0]
    page = (written / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "| Plain |" in (written / "report.md").read_text()

    monkeypatch.setattr("sfumato.targets.fit", None)  # nothing is computed again
    assert call("study", "report", "small.toml", monkeypatch=monkeypatch) == 0
    again = capsys.readouterr().out
    assert again == said[: said.index("report: ")]


def test_a_run_of_one_reading_leaves_that_of_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for reading in ("scored", "trained"):
        assert call("study", "run", "small.toml", "--device", "cpu", "--reading", reading, monkeypatch=monkeypatch) == 0
    assert {path.name for path in (folder / "runs" / "studies").iterdir()} == {"small-smoke", "small-smoke-trained"}
    capsys.readouterr()
    assert call("study", "report", "small.toml", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert 'Reading "scored"' in said
    assert 'Reading "trained"' in said
    assert call("study", "report", "small.toml", "--reading", "trained", monkeypatch=monkeypatch) == 0
    assert 'Reading "scored"' not in capsys.readouterr().out


def test_a_failed_cell_is_said_at_the_end_with_status_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sfumato.targets.fit", None)
    assert call("study", "run", "small.toml", "--device", "cpu", monkeypatch=monkeypatch) == 1
    said = capsys.readouterr().out
    assert "Plain, seed 0: failed: TypeError" in said
    assert "91.86" in said


def test_studies_are_listed_and_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("study", "list", monkeypatch=monkeypatch) == 0
    assert "cem-table1" in capsys.readouterr().out
    assert call("study", "show", "cem-table1", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    for text in ("vgg11 cut at c2, 240 epochs", "noise(sigma = 0.025)", "0.0146", "xia2025cem"):
        assert text in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "no study named 'nothing'"),
        (["report", "cem-table1", "--size", "gpu"], "found no cem-table1-gpu or cem-table1-gpu-trained; run it with"),
        (["run", "small.toml", "--size", "gpu"], "the study 'small' has no size 'gpu'"),
    ],
)
def test_what_is_wrong_is_one_message(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("study", *arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("sfumato: ")


def test_notes_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets are no markup."""
    assert call("study", "show", "patrol-table8", monkeypatch=monkeypatch) == 0
    assert "[size.full.recognizer]" in capsys.readouterr().out
