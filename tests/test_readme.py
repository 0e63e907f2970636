# SPDX-License-Identifier: Apache-2.0
"""What the README and CONTRIBUTING show is run, at a size that a test can afford."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

import sfumato as sf
from sfumato import registry
from sfumato.attacks.naming import names_of
from sfumato.attacks.weights.base import InversionAttack
from sfumato.data.ffhq import Ffhq
from sfumato.options import MembershipOptions
from sfumato.priors.settings import SMOKE
from sfumato.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def replaced(code: str, small: dict[str, str]) -> str:
    """The code of the README with what takes long made small, each once."""
    for written, run in small.items():
        assert code.count(written) == 1, written
        code = code.replace(written, run)
    return code


def test_the_python_example_runs_as_written_but_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, *_ = blocks("python")
    small = {
        'sf.load_data("digits")': 'shrunk(sf.load_data("digits"))',
        "shape=(1, 28, 28))": 'shape=(1, 28, 28), options={"width": 0.1})',
        "epochs=5": "epochs=1",
        'attacks=["decoder"]': "attacks=[sf.Decoder(blocks=0, channels=4, fitting=quick)]",
    }
    code = replaced(code, small)

    def shrunk(data: sf.Data) -> sf.Data:
        return sf.partition(data.with_parts(**{name: data.part(name).subset(torch.arange(80)) for name in ("train", "test")}))

    from sfumato.attacks.features.regression import Fitting

    monkeypatch.chdir(tmp_path)
    names = {"shrunk": shrunk, "quick": Fitting(epochs=1)}
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "audit.html").read_text().lstrip().startswith("<!")
    audit = names["audit"]
    assert isinstance(audit, sf.Audit)
    audit.save("audit.json")
    audit.save("audit.md")
    record = json.loads((tmp_path / "audit.json").read_text())
    assert 0 <= record["accuracy"] <= 1
    assert {(row["name"], row["part"], row["selection"]) for row in record["attacks"]} == {
        ("decoder", part, selection) for part in ("train", "inference") for selection in ("best", "last")
    }
    for row in record["attacks"]:
        for metric in ("mse", "psnr", "ssim"):
            assert row[metric]["low"] <= row[metric]["value"] <= row[metric]["high"]
        assert row["seconds"] > 0
        assert row["queries"] > 0


def test_the_recipe_is_one() -> None:
    text, quick, *_ = blocks("toml")
    recipe = parse_recipe(text)
    assert parse_recipe(text + "\n[[attacks]]\nlabel = 'quick'\n" + quick).attacks["quick"].fitting.epochs == 12
    assert recipe.train.schedule.name == "step"
    assert [defense.name for defense in recipe.defenses] == ["bottleneck", "noise", "cem"]
    assert recipe.audit.seeds == (0, 1, 2)


def test_the_recipe_of_re_identification_is_one_and_its_task_has_the_defaults() -> None:
    _, _, text, *_ = blocks("toml")
    recipe = parse_recipe(text)
    assert recipe.task == sf.Reidentification()
    assert recipe.train.batch_size % sf.Reidentification().instances == 0


def test_the_recognizers_are_tables_of_a_recipe() -> None:
    *_, learned, own = blocks("toml")
    whole, *_ = blocks("toml")
    assert parse_recipe(whole + learned).recognizer == sf.Recognizer(attribute="driver")
    judge = parse_recipe(whole + own).recognizer
    assert judge is not None
    assert (judge.classes, judge.size, len(judge.accepts)) == (1000, 224, 3)


def test_the_commands_are_those_of_the_command_line() -> None:
    from sfumato.cli import app

    told = set(re.findall(r"^\| `sfumato (\w+)", README, re.MULTILINE))
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert told == known | {group.name for group in app.registered_groups}


def test_the_tables_name_every_attack_defense_and_extra() -> None:
    from sfumato.registry import TABLE

    for family in ("attacks", "defenses"):
        assert all(f"`{name}`" in README for name in TABLE[family])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert all(f"| `{extra}` |" in README for extra in extras)


def test_the_test_command_is_what_ci_runs() -> None:
    assert "make test " in README
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_the_defense_of_contributing_works(tmp_path: Path) -> None:
    (code,) = blocks("python", (ROOT / "CONTRIBUTING.md").read_text())
    header = "from __future__ import annotations\nimport torch\nfrom torch import Tensor\n"
    header += "from sfumato.defenses.base import Defense\nfrom sfumato.errors import ConfigError\n"
    path = tmp_path / "rounding.py"
    path.write_text(header + code)
    spec = importlib.util.spec_from_file_location("rounding", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    protected = module.Rounding(step=0.5).protect(torch.tensor([0.2, 0.3, 0.9]), None)
    assert protected.tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_the_recipe_of_predictions_is_one_and_says_the_defaults() -> None:
    (text,) = [block for block in blocks("toml") if "[membership]" in block]
    recipe = parse_recipe(text)
    assert recipe.membership == MembershipOptions(members=2000)
    assert [defense.name for defense in recipe.defenses] == ["mcmia", "minmax"]
    assert list(recipe.inference) == ["lira", "rmia", "nasr", "gap"]
    assert recipe.split.cut == ""


def test_the_python_of_predictions_runs_as_written_but_smaller() -> None:
    (code,) = [block for block in blocks("python") if "audit_membership" in block]
    small = {
        "members=2000": "members=30",
        "count=16": "count=4, workers=1",
        "classes=10": "classes=2",
        "epochs=30": "epochs=4",
        "sf.MCMIA(15.78)": "sf.MCMIA(2.0)",
    }
    code = replaced(code, small)
    x, y = torch.rand(200, 1, 8, 8), torch.arange(200) % 2
    names = {
        "sf": sf, "data": sf.load_data((x, y)), "model": sf.build_model("lenet5", classes=2, shape=(1, 8, 8)),
        "x": x[:40], "y": y[:40], "more_x": x[40:80], "more_y": y[40:80],
    }  # fmt: skip
    exec(compile(code, "README.md", "exec"), names)
    found = names["found"]
    assert isinstance(found, sf.Membership)
    assert found.references == 4
    assert found.strongest() is not None


def test_the_recipes_of_weights_are_recipes() -> None:
    drawn, own, hardened = [block for block in blocks("toml") if "private_identities" in block or "[public]" in block]
    recipe = parse_recipe(drawn)
    assert list(recipe.inverting) == ["gmi", "kedmi", "plg"]
    assert (recipe.data.private_identities, recipe.inversion.options.identities, recipe.split.cut) == (40, 20, "")
    assert recipe.inversion.evaluator.gate == sf.Evaluator().gate
    assert {kind: plan.settings for kind, plan in recipe.inversion.priors.items()} == SMOKE
    faces = parse_recipe(own)
    assert isinstance(faces.inversion.public, Ffhq)
    assert list(faces.inverting) == ["plg"]
    frozen = parse_recipe(hardened)
    assert [defense.describe() for defense in frozen.defenses] == [sf.TLDMI("c8").describe()]
    assert frozen.pretraining is not None
    assert frozen.pretraining.train == sf.Train(epochs=8)


def test_the_table_of_weights_says_the_prior_and_the_steps_that_each_attack_has() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", README, re.MULTILINE)
    told = {name: (access, prior, whose) for names, access, prior, whose in rows for name in re.findall("`([^`]+)`", names)}
    for name in names_of(InversionAttack):
        attack = registry.create("attacks", name, {})
        assert isinstance(attack, InversionAttack)
        access, prior, _ = told[name]
        assert attack.access in access
        assert f"`{attack.kind}`" in prior
    for name in ("gmi", "gmi-original", "kedmi", "kedmi-original", "mirror-weights", "vmi"):
        made = registry.create("attacks", name, {})
        assert f"{made.steps:,}" in told[name][2]  # type: ignore[attr-defined]


def test_the_python_of_weights_runs_as_written_but_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in blocks("python") if "audit_inversion" in block]
    small = {
        'sf.load_data("portraits", size=32)': 'sf.load_data("portraits", size=16, options={"identities": 8, "per_identity": 6})',
        "private=40": "private=4",
        'sf.build_model("resnet20", classes=40': 'sf.build_model("cnn4", classes=4',
        "epochs=12": "epochs=1",
        'model="vgg11", options={"width": 0.25}, gate=0.8': 'model="lenet5", epochs=1, gate=0.0',
        '["gmi", sf.KEDMI(steps=300)]': "[sf.GMI(steps=2)]",
        'priors="smoke"': "priors=tiny",
    }
    code = replaced(code, small)
    settings = sf.PriorSettings(width=4, latent=8, steps=1, batch_size=4)
    public = sf.load_data("portraits", size=16, options={"identities": 4, "per_identity": 6}).part("train")
    monkeypatch.chdir(tmp_path)
    names = {"sf": sf, "tiny": {"gan": sf.train_prior("gan", public, settings)}}
    exec(compile(code, "README.md", "exec"), names)
    assert "What the weights give away" in (tmp_path / "weights.html").read_text()
    best = names["best"]
    assert best is not None
    assert (names["found"].outputs, best.name) == (4, "gmi")  # type: ignore[attr-defined]


def test_the_python_of_transfer_runs_as_written_but_smaller() -> None:
    (code,) = [block for block in blocks("python") if "sf.transfer" in block]
    small = {
        'sf.load_data("portraits", size=32)': 'sf.load_data("portraits", size=16, options={"identities": 9, "per_identity": 6})',
        "private=40, pretrain=60": "private=4, pretrain=3",
        "classes=60": "classes=3",
        "classes=40": "classes=4",
        "others, epochs=8": "others, epochs=1",
        "[1].name)], epochs=8": "[1].name)], epochs=1",
    }
    code = replaced(code, small)
    names: dict[str, object] = {"sf": sf, "torch": torch}
    exec(compile(code, "README.md", "exec"), names)
    net, hardened, points = names["net"], names["hardened"], names["points"]
    assert isinstance(net, torch.nn.Module)
    assert isinstance(hardened, sf.Target)
    trained = sum(one.numel() for one in hardened.split.parameters() if one.requires_grad)
    assert trained == points[1].trainable  # type: ignore[index]
