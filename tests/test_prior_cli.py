# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfumato.data.base import Pictures
from sfumato.data.identities import by_identity
from sfumato.data.load import load_data
from sfumato.errors import ConfigError, SfumatoError
from sfumato.prior_cli import prior
from sfumato.priors import saved, train
from sfumato.priors.saved import load_prior
from sfumato.types import Watch


def run(*arguments: str) -> str:
    """What the command prints; its error is raised."""
    result = CliRunner().invoke(prior, ["train", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


QUICK = ("--data", "portraits", "--size", "16", "--steps", "2", "--width", "2", "--batch", "4", "--device", "cpu")


@pytest.mark.parametrize("kind", ["gan", "style"])
def test_a_prior_is_trained_and_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "faces.safetensors"
    said = run(*QUICK, "--kind", kind, "--to", str(path))
    assert f"prior of kind {kind}: 2 steps on " in said
    assert f"prior: {path}" in said
    found = load_prior(path, image_shape=(3, 16, 16))
    assert found.prior.kind == kind
    assert "2 steps on" in found.source
    assert [grid.name for grid in (tmp_path / "faces-samples").iterdir()] == ["step-000002.png"]
    assert not list(tmp_path.glob("*checkpoint*"))


def test_people_who_are_private_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Pictures] = []
    monkeypatch.setattr(train, "train_prior", lambda kind, public, *_, **__: seen.append(public))
    monkeypatch.setattr(saved, "save_prior", lambda *_, **__: None)
    run(*QUICK, "--to", str(tmp_path / "prior.safetensors"), "--private-identities", "90", "--seed", "3")
    people = by_identity(load_data("portraits", size=16, seed=3), private=90, seed=3)
    assert seen[0].fingerprint == people.part("public").fingerprint
    assert len(seen[0]) == 10 * 50


def test_an_interrupted_run_goes_on_or_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prior.safetensors"
    monkeypatch.setattr(train, "PAUSE", 0.0)
    real = train.train_prior

    def stopped(*arguments: object, watch: Watch | None = None, **rest: object) -> object:
        def stop(step: int, total: int) -> None:
            if step == 2:
                raise KeyboardInterrupt

        return real(*arguments, watch=stop, **rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_prior", stopped)
        run(*QUICK, "--steps", "3", "--to", str(path))
    assert (tmp_path / "prior-checkpoint.safetensors").exists()
    assert not path.exists()
    with pytest.raises(ConfigError, match="go on with --resume, or start over with --restart"):
        run(*QUICK, "--steps", "3", "--to", str(path))
    run(*QUICK, "--steps", "3", "--to", str(path), "--resume")
    assert path.exists()
    assert (tmp_path / "samples" / "step-000003.png").exists()
    assert not list(tmp_path.glob("*checkpoint*"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--to", "prior.pt"), "--to must end in .safetensors, got prior.pt"),
        (("--size", "17"), "got 17x17 with 3 channels; resize the pictures, with --size 32"),
        (("--data", "portrait"), "did you mean 'portraits'"),
        (("--batch", "100000"), "lower batch_size"),
    ],
)
def test_what_is_wrong_is_said(changed: tuple[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SfumatoError, match=said):
        run(*QUICK, *changed)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_kinds_that_need_a_target_are_not_trained_here() -> None:
    assert "Invalid value for '--kind'" in run(*QUICK, "--kind", "inversion")
    said = CliRunner().invoke(prior, ["train", "--help"]).output
    assert "the audit of a recipe" in " ".join(said.split())
