# SPDX-License-Identifier: Apache-2.0
"""The distribution for devices: exactly the files that its command needs, and they run on their own."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scripted_server import scripted
from toy_bundles import SHAPE, write_bundle

from sfumato.deploy import command

ROOT = Path(__file__).parents[2]
EDGE = tomllib.loads((ROOT / "edge" / "pyproject.toml").read_text())
FULL = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES: dict[str, str] = EDGE["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
START = """
import sys
sys.path[:0] = sys.argv[1:3]
sys.modules["torch"] = sys.modules["typer"] = sys.modules["pydantic"] = None
del sys.argv[1:3]
import sfumato
from sfumato.deploy.command import main
status = main()
print(sfumato.__file__, file=sys.stderr)
sys.exit(status)
"""


def needed(path: Path) -> set[Path]:
    """Return the files of the package that a file imports, with those that these import."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for node in ast.walk(ast.parse(current.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sfumato."):
                base = ROOT / "src" / node.module.replace(".", "/")
                inner = [base / f"{name.name}.py" for name in node.names if (base / f"{name.name}.py").exists()]
                waiting += inner or [base.with_suffix(".py")]
    return found


def test_the_files_are_those_that_the_command_imports() -> None:
    listed = {(ROOT / "edge" / name).resolve() for name in FILES}
    package = ROOT / "src" / "sfumato"
    always = {ROOT / "LICENSE", package / "__init__.py", package / "py.typed", package / "deploy" / "__init__.py"}
    always |= {package / "data" / "__init__.py", package / "deploy" / "asking" / "__init__.py"}
    assert listed == always | needed(package / "deploy" / "command.py")
    assert all(to == name.removeprefix("../").removeprefix("src/") for name, to in FILES.items() if "LICENSE" not in name)


def test_versions_and_ranges_are_those_of_the_full_distribution() -> None:
    assert EDGE["project"]["version"] == FULL["project"]["version"]
    assert EDGE["project"]["requires-python"] == FULL["project"]["requires-python"]
    extras = FULL["project"]["optional-dependencies"]
    known = {*FULL["project"]["dependencies"], *(one for name, extra in extras.items() if name != "dev" for one in extra)}
    assert set(EDGE["project"]["dependencies"]) <= known


@pytest.mark.slow
def test_the_wheel_runs_on_its_own(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / "edge", check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("sfumato_edge-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "device")
    assert {name for name in os.listdir(tmp_path / "device") if not name.endswith(".dist-info")} == {"sfumato"}
    np.save(tmp_path / "rows.npy", np.zeros((3, *SHAPE), np.uint8))
    with scripted(write_bundle(tmp_path / "bundle")) as server:
        given = ["infer", str(tmp_path / "bundle"), "--server", server.address, "--json", str(tmp_path / "rows.npy")]
        # -S and -I: nothing but these two folders is on the path, the checkout is not
        start = [sys.executable, "-S", "-I", "-c", START, str(tmp_path / "device"), sysconfig.get_path("purelib")]
        done = subprocess.run([*start, *given], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["upper"] * 3
    assert done.stderr.strip() == str(tmp_path / "device" / "sfumato" / "__init__.py")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 0, "usage: sfumato infer"),
        (["--help"], 0, "usage: sfumato infer"),
        (["serve", "bundle"], 2, "expected 'infer', the command of sfumato-edge, found 'serve'"),
        (["infer", "nowhere", "--server", "localhost:1", "-"], 2, "sfumato: expected a bundle"),
    ],
)
def test_the_command_of_a_device(
    arguments: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sfumato", *arguments])
    assert command.main() == status
    assert said in "".join(capsys.readouterr())
