# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sfumato.cli
from sfumato.deploy.bundle import open_bundle

RECIPE = """
[data]
name = "folder"
path = "pictures"
[model]
name = "lenet5"
cut = "c1"
[[defenses]]
name = "noise"
sigma = 0.05
[train]
epochs = 1
batch_size = 8
[[attacks]]
name = "mean"
[audit]
pictures = 8
seeds = [3, 4]
"""


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sfumato", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        sfumato.cli.main()
    return int(stopped.value.code or 0)


def write_pictures(folder: Path, seed: int) -> None:
    """Two classes of 20 gray pictures."""
    stream = np.random.default_rng(seed)
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(20):
            Image.fromarray(stream.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{number:02}.png")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was audited, and one that was only trained."""
    folder = tmp_path_factory.mktemp("export-cli")
    write_pictures(folder / "pictures", seed=0)
    (folder / "small.toml").write_text(RECIPE)
    (folder / "trained.toml").write_text(RECIPE.split("[[attacks]]")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (("audit", "small.toml"), ("train", "trained.toml")):
            assert call(*command, "--device", "cpu", monkeypatch=patch) == 0
    return folder


@pytest.fixture
def place(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    shutil.copytree(audited, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_run_is_exported_with_every_format_attacked(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("export", "runs/small", "--to", "bundle", "--wire", "uint8", "--device", "cpu", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    manifest = open_bundle("bundle", "head").manifest
    for text in (
        "uint8 (exported)",
        "mean, seed",
        "MSE",
        f"model {manifest.name}, 96 bytes",
        "sfumato serve bundle",
        f"p = {manifest.parity.noise_p:.2g} (refused below 1e-06)",
        manifest.leak,
    ):
        assert text in said, text
    audit = json.loads(Path("runs/small/audit.json").read_text())
    wide, half, narrow = manifest.formats
    assert wide.utility["accuracy"] == audit["accuracy"]
    assert wide.leak is not None
    assert wide.leak.metrics["mse"] == min(one["mse"]["value"] for one in audit["attacks"] if one["part"] == "inference")
    assert {one.leak.attack for one in (half, narrow) if one.leak} == {"mean"}
    assert len(list(Path("runs/stages").glob("attack-*"))) == 6  # two seeds in each format
    assert Path("bundle/recipe.toml").read_text() == RECIPE
    assert (
        call("export", "runs/small", "--to", "again", "--wire", "uint8", "--only", "--device", "cpu", monkeypatch=monkeypatch)
        == 0
    )
    found = capsys.readouterr().err
    assert "mean on small, uint8 (found)" in found
    assert "mean on small " not in found  # what the run's own audit says is not looked for in stages
    assert Path("again/head.onnx").read_bytes() == Path("bundle/head.onnx").read_bytes()


def test_a_run_without_attacks_on_features_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("runs/stages")  # the run's folder is all that an export needs
    assert call("export", "runs/trained", "--to", "bundle", "--only", "--device", "cpu", monkeypatch=monkeypatch) == 0
    assert "not audited" in capsys.readouterr().out
    assert [one.leak for one in open_bundle("bundle", "tail").manifest.formats] == [None]


def spoil(what: str) -> None:
    """Do to the run what the name says."""
    run = Path("runs/small")
    if what == "no weights":
        (run / "weights.safetensors").unlink()
    elif what == "weights of another run":
        shutil.copyfile("runs/trained/weights.safetensors", run / "weights.safetensors")
        facts = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**facts, "target": "00"}))
    elif what == "other pictures":
        write_pictures(Path("pictures"), seed=1)
    elif what.startswith("an audit of"):
        audit = json.loads((run / "audit.json").read_text())
        if what == "an audit of a larger head":
            audit["target"]["head_parameters"] += 1
        else:
            audit["seeds"], audit["utility"]["accuracy"]["value"] = [0], 0.123
        (run / "audit.json").write_text(json.dumps(audit))
    elif what == "facts of nothing":
        (run / "run.json").write_text("[]")


@pytest.mark.parametrize(
    ("what", "arguments", "said"),
    [
        ("no weights", (), "the run at runs/small has no weights to export: expected a safetensors file"),
        ("weights of another run", (), "expected in runs/small the weights of the target 00, found those of"),
        ("other pictures", (), "the data set has changed"),
        (
            "an audit of a larger head",
            (),
            "audit of this target in runs/small/audit.json, its head_parameters 156, found one with 157",
        ),
        ("an audit of other weights", (), "its utility {'accuracy': "),
        ("facts of nothing", (), "expected the facts of a run in runs/small/run.json, found something else"),
        ("", ("runs",), "expected the folder of a run with run.json and recipe.toml at runs, found a folder without them"),
        ("", ("none",), "at none, found nothing; make one with: sfumato train RECIPE"),
        ("", ("small.toml",), "at small.toml, found a file"),
        ("", ("--to", "runs"), "expected a new folder for the bundle, found a folder of something else at runs"),
        ("", ("--wire", "uint4"), "'uint4' is not one of"),
    ],
)
def test_what_is_wrong_is_one_message_and_writes_nothing(
    what: str,
    arguments: tuple[str, ...],
    said: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(what)
    run = () if arguments and arguments[0] in ("runs", "none", "small.toml") else ("runs/small",)
    to = () if "--to" in arguments else ("--to", "bundle")
    assert call("export", *run, *arguments, *to, "--device", "cpu", monkeypatch=monkeypatch) == 2
    out, err = capsys.readouterr()
    assert (out, said in " ".join(err.replace("│", " ").split())) == ("", True), err
    assert not Path("bundle").exists()
    assert not list(place.glob(".*part"))
