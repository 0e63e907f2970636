# SPDX-License-Identifier: Apache-2.0
"""The house keeps its order: imports point one way, names are listed once, the table is the files, heavy things stay out."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sfumato as sf
from sfumato import registry
from sfumato.attacks.base import FeatureAttack
from sfumato.attacks.predictions.base import MembershipAttack
from sfumato.attacks.weights.base import InversionAttack
from sfumato.data.source import Source

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sfumato"
FILES = sorted(PACKAGE.rglob("*.py"))

# A file imports from rows above its own, or from its own row.
ROWS = [
    {"cores", "errors", "seeds"},
    {"types", "membership_types", "inversion_types"},
    {"arguments", "files", "modules", "packing", "parallel", "quantity"},
    {"registry"},
    {"data", "models", "graph", "split", "metrics"},
    {"target", "pruning"},
    {"priors"},
    {"analysis"},
    {"defenses", "attacks", "settings", "checkpoint", "utility", "options"},
    {"batched", "reference", "task"},
    {"loop"},
    {"train"},
    {"classifier", "evaluator"},
    {"factors", "judge", "recognize"},
    {"court", "prior_facts"},
    {"device", "measure"},
    {
        "audit",
        "inversion_exhibits",
        "inversion_untested",
        "inversion_recipe",
        "membership",
        "model_audit",
        "pretraining",
        "recipe",
        "recipe_tables",
        "store",
        "trials",
        "untested",
    },
    {"inversion", "weights_audit"},
    {"record", "plain", "png", "membership_record", "inversion_record", "page"},
    {"importance_record", "fisher_samples"},
    {"tables", "membership_tables", "inversion_tables", "inversion_words"},
    {"scale", "lettering", "markdown"},
    {"gallery", "inversion_gallery", "verdict", "membership_verdict", "inversion_verdict", "curve", "roc_drawing"},
    {"fisher_drawing"},
    {"surface_report", "fisher_words", "fisher_report"},
    {"report", "membership_report", "inversion_report", "inversion_sections"},
    {"workplace"},
    {"targets", "publish"},
    {"inversions", "inversion_priors", "predictions"},
    {"pipeline"},
    {"fisher_stages", "importance"},
    {"deploy"},
    {"demo"},
    {"studies"},
    {"display", "place", "pairs_cli", "prior_cli", "fisher_cli", "cli_options", "export_cli", "serve_cli"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}


def part(module: str) -> str:
    """The row's name for a module: `data.idx` and `data` are `data`."""
    return module.split(".")[0]


def imports(path: Path, *, inside_functions: bool) -> list[str]:
    """Modules of the package that a file imports, without "sfumato."."""
    tree = ast.parse(path.read_text())
    inner = {
        node
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(f)
        if node is not f
    }
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("sfumato")
            and (inside_functions or node not in inner)
        ):
            inside = node.module.removeprefix("sfumato").removeprefix(".")
            found += [inside] if inside else [name.name for name in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if module == "__init__":
        return
    for imported in imports(path, inside_functions=False):
        assert RANK[part(imported)] <= RANK[part(module)], f"{module} imports {imported}"
        families = {part(imported), part(module)}
        assert families != {"defenses", "attacks"}, f"{module} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_inside_functions_point_up_in_named_places_only(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if module in {"__init__", "cli", "display"}:
        return
    up = [name for name in imports(path, inside_functions=True) if RANK[part(name)] > RANK[part(module)]]
    saves = {"types": ["report"], "membership_types": ["membership_report"], "inversion_types": ["inversion_report"]}
    assert up == saves.get(module, [])


def test_methods_of_a_family_never_import_each_other() -> None:
    methods = {entry.path.split(":")[0] for family in ("attacks", "defenses") for entry in registry.TABLE[family].values()}
    for method in methods:
        path = PACKAGE / (method.removeprefix("sfumato.").replace(".", "/") + ".py")
        others = {f"sfumato.{name}" for name in imports(path, inside_functions=True)} & methods - {method}
        assert not others, f"{method} imports {others}"


def test_no_two_files_of_tests_have_the_same_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert not {name for name in names if names.count(name) > 1}  # they are imported by their names alone


def test_public_names_are_listed_once_and_sorted() -> None:
    assert sf.__all__ == sorted(sf.__all__, key=lambda name: (name.lower() == name, name))
    assert len(sf.__all__) <= 80  # three surfaces, each with its own defenses and its own audit
    assert set(sf._HOME) == set(sf.__all__)
    for name in sf.__all__:
        assert getattr(sf, name).__name__ == name
    assert inspect.isfunction(sf.split)
    assert inspect.isfunction(sf.audit)


def test_the_type_checker_sees_the_same_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert {name: f"sfumato.{home}" for name, home in sf._HOME.items()} == seen


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sf.nothing


@pytest.mark.parametrize("family", registry.TABLE)
def test_the_table_is_the_files(family: registry.Family) -> None:
    listed = {entry.path.split(":")[0] for entry in registry.TABLE[family].values()}
    for entry in registry.TABLE[family].values():
        assert callable(entry.load())
        assert entry.summary
    if family in ("attacks", "defenses", "datasets"):
        base = {"attacks": FeatureAttack | MembershipAttack | InversionAttack, "defenses": sf.Defense, "datasets": Source}[family]
        folder = PACKAGE / ("data" if family == "datasets" else family)
        defining = set()
        for path in folder.rglob("*.py"):
            module = "sfumato." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            __import__(module)
            made = [
                value for value in vars(sys.modules[module]).values() if inspect.isclass(value) and value.__module__ == module
            ]
            if any(issubclass(value, base) and not inspect.isabstract(value) for value in made):
                defining.add(module)
        assert defining - {"sfumato.defenses.base", "sfumato.defenses.compose"} == listed


def test_every_citation_is_in_the_references() -> None:
    known = set()
    for line in (ROOT / "references.bib").read_text().splitlines():
        if line.startswith("@"):
            known.add(line.split("{")[1].rstrip(","))
    cited = {entry.citation for entries in registry.TABLE.values() for entry in entries.values() if entry.citation}
    assert cited <= known


def test_the_acronym_of_two_attacks_is_no_identifier() -> None:
    for path in FILES:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not {name for name in names if "mia" in name.lower().split("_")}, path


@pytest.mark.parametrize("call", ["torch.manual_seed", ".cuda()", "pickle.load", "torch.load("])
def test_what_the_library_never_calls(call: str) -> None:
    users = {str(path.relative_to(PACKAGE)) for path in FILES if call in path.read_text()}
    assert users <= ({"seeds.py"} if call == "torch.manual_seed" else set())


def test_help_does_not_import_torch() -> None:
    code = "import sys, sfumato.cli; print(*[name for name in ('torch', 'numpy', 'pyarrow', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_nothing_needs_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import importlib, pkgutil, sfumato\n"
        "for module in pkgutil.walk_packages(sfumato.__path__, 'sfumato.'):\n"
        "    if module.name != 'sfumato.__main__': importlib.import_module(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
