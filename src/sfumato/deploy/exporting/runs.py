# SPDX-License-Identifier: Apache-2.0
"""A published run, opened for export: its target with its weights, and what its own attacks make of other formats on the wire."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from sfumato import report
from sfumato.audit import assemble_audit, facts, sample
from sfumato.data.base import Data
from sfumato.deploy.exporting.calibration import Wire
from sfumato.errors import ConfigError, ExportError, WeightsError
from sfumato.files import read_tensors
from sfumato.pipeline import attack_target
from sfumato.recipe import Recipe, load_recipe
from sfumato.store import Stage, digest
from sfumato.target import Target
from sfumato.targets import build_target
from sfumato.task import task_for
from sfumato.train import restore
from sfumato.types import Audit
from sfumato.workplace import Workplace, read_data

_TARGET = ("model", "cut", "defenses", "feature_shape", "head_parameters", "sticky")
"""Of a target, what its audit says too."""
_MAKE = "make one with: sfumato train RECIPE, or sfumato audit RECIPE"


@dataclass(frozen=True)
class Run:
    """A published run.

    Attributes:
        name: of the run.
        recipe: what was trained.
        data: its pictures.
        target: with its weights.
        trained: the stage that its weights came from; its folder may be gone.
        audit: its own; None where it was only trained.
        workplace: where its attacks are computed.
    """

    name: str
    recipe: Recipe
    data: Data
    target: Target
    trained: Stage
    audit: Audit | None
    workplace: Workplace

    @property
    def seed(self) -> int:
        """Of the first pass of its audit."""
        return self.recipe.seeds[0]

    def audited(self, target: Target, wire: Wire) -> Audit | None:
        """Attack a target that sends in a format with the attacks and seeds of the run, or find it attacked.

        Args:
            target: what the run's target is with this format on the wire.
            wire: the format.

        Returns:
            An audit of what crosses the wire, that of the run itself where nothing is rounded; None where the recipe has no
            attack on features.
        """
        if not self.recipe.attacks:
            return None
        if wire.wire == "float32" and self.audit is not None and self.audit.attacks:
            return self.audit
        seeds = self.recipe.seeds
        scored = sample(self.data, self.recipe.audit.pictures, seeds[0])
        recipe = self.recipe if wire.wire == "float32" else replace(self.recipe, name=f"{self.recipe.name}, {wire.wire}")
        findings = [
            attack_target(
                name,
                seed,
                recipe=recipe,
                target=target,
                trained=_sending(self.trained, wire),
                data=self.data,
                scored=scored,
                witness=None,
                workplace=self.workplace,
            )
            for seed in seeds
            for name in recipe.attacks
        ]
        return assemble_audit(
            target,
            self.data,
            attacks=recipe.attacks,
            scored=scored,
            findings=findings,
            seeds=seeds,
            utility=task_for(self.data, recipe.task).utility(target, self.data, seeds[0]),
            title=recipe.name,
        )


def open_run(folder: str | Path, workplace: Workplace) -> Run:
    """Open the folder of a run.

    Args:
        folder: with `recipe.toml`, `run.json` and `weights.safetensors`.
        workplace: where its pictures are, and its attacks are computed.

    Returns:
        The run, its target in eval mode on the device of the workplace.

    Raises:
        ExportError: the folder is no run, has no weights, or those of another run.
        ConfigError: the audit in the folder is one of other pictures, or of another target.
        SfumatoError: whatever is wrong with its recipe or its pictures.
    """
    folder = Path(folder)
    name, key, utility = _facts(folder)
    recipe = replace(load_recipe(folder / "recipe.toml"), name=name)
    tensors, said = _weights(folder)
    if said.get("definition") != key:
        raise ExportError(
            f"expected in {folder} the weights of the target {key[:16]}, found those of {said.get('definition', 'none')[:16]}; "
            "train or audit the recipe again"
        )
    data = read_data(recipe, workplace)
    # its own weights are all that it needs: not those that its training started from, which may be gone
    draft = replace(recipe, pretraining=None, device=None, split=replace(recipe.split, weights=None))
    target = build_target(draft, data, workplace)
    restore(target, tensors, source=folder / "weights.safetensors")
    target.sticky = recipe.audit.sticky
    trained = Stage(folder, key, {})
    run = Run(name, recipe, data, target.eval(), trained, _audit(folder, data), workplace)
    if run.audit is not None:
        _require_own(run.audit, run, utility)
    return run


def _facts(folder: Path) -> tuple[str, str, object]:
    """Return what a run is called, the key of its target, and how useful that is, None where it does not say."""
    path = folder / "run.json"
    if not path.is_file() or not (folder / "recipe.toml").is_file():
        found = "a folder without them" if folder.is_dir() else "a file" if folder.exists() else "nothing"
        raise ExportError(f"expected the folder of a run with run.json and recipe.toml at {folder}, found {found}; {_MAKE}")
    try:
        record = json.loads(path.read_bytes())
        return str(record["name"]), str(record["target"]), record.get("utility")
    except (ValueError, LookupError, TypeError) as error:
        raise ExportError(f"expected the facts of a run in {path}, found something else: {error}; {_MAKE}") from error


def _weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_tensors(folder / "weights.safetensors")
    except WeightsError as error:
        raise ExportError(f"the run at {folder} has no weights to export: {error}") from error


def _audit(folder: Path, data: Data) -> Audit | None:
    """Return the audit of a run, if it has one, of these pictures."""
    path = folder / "audit.json"
    if not path.is_file():
        return None
    audit = report.load(path)[0]
    found = data.part("train").fingerprint
    if audit.data.fingerprint != found:
        raise ConfigError(
            f"expected the pictures that {path} was measured on, {audit.data.fingerprint[:16]}, found {found[:16]}: the data set "
            "has changed, or --data-root is another; give the one of before, or audit the recipe again"
        )
    return audit


def _require_own(audit: Audit, run: Run, utility: object) -> None:
    """Refuse an audit of another target: it would be said of a head that nobody attacked.

    Args:
        audit: in the folder of the run.
        run: what it should be of.
        utility: what training measured; None where it did not.
    """
    of_run, told = asdict(facts(run.target, run.data)), asdict(audit.target)
    pairs = {name: (of_run[name], told[name]) for name in _TARGET}
    if utility is not None and audit.seeds[0] == run.recipe.seed:  # the audit took that over
        pairs["utility"] = (utility, {name: asdict(reached) for name, reached in audit.utility.items()})
    for name, (expected, found) in pairs.items():
        if found != expected:
            raise ConfigError(
                f"expected the audit of this target in {run.trained.folder / 'audit.json'}, its {name} {expected}, found one "
                f"with {found}; audit the recipe again"
            )


def _sending(trained: Stage, wire: Wire) -> Stage:
    """Return the stage of a target with a format on the wire: another target to attack, unless nothing is rounded."""
    if wire.wire == "float32":
        return trained
    ranges = {"low": wire.low.tolist(), "scale": wire.scale.tolist()}
    return replace(trained, key=digest({"target": trained.key, "wire": wire.wire, **ranges}))
