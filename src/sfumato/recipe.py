# SPDX-License-Identifier: Apache-2.0
"""A recipe: names, arguments and a seed in TOML. Every problem of a recipe is reported at once."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sfumato import registry
from sfumato.attacks.base import FeatureAttack
from sfumato.attacks.predictions.base import MembershipAttack
from sfumato.attacks.weights.base import InversionAttack
from sfumato.data.source import Source
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.device import DeviceBudget
from sfumato.errors import ConfigError, RecipeError, nearest
from sfumato.inversion_recipe import INVERSION_TABLES, InversionPlan, read_plan
from sfumato.options import AuditOptions, DataOptions, MembershipOptions, ModelOptions
from sfumato.pretraining import PRETRAIN, Pretraining, read_pretraining, starting_problems
from sfumato.recipe_tables import Tables
from sfumato.recognize import Recognizer
from sfumato.settings import Train
from sfumato.task import TASKS, Task


@dataclass(frozen=True)
class Recipe:
    """A recipe, checked.

    Attributes:
        name: of the run: the file's name without its ending.
        text: the TOML, as it was written.
        seed: of everything random.
        source: the data set.
        data: how it is read and partitioned.
        model: name of the model.
        options: further arguments of the model.
        split: its cut and weights.
        pretraining: whose weights it starts from; None starts from those under [model], or as it is drawn.
        defenses: in the order in which they see the features.
        train: how the target is trained.
        task: what for; that of the data with its defaults where None.
        attacks: those on features, by the name that they get in the report.
        inference: those on predictions, by the name that they get in the report.
        inverting: those on weights, by the name that they get in the report.
        membership: the game of those; None where there are none and no table asks for one.
        inversion: how those on weights are run and judged.
        audit: how it is audited.
        recognizer: names what it sees in the reconstructions; None asks nobody.
        device: what the device has for the head; None asks nothing of it.
    """

    name: str
    text: str
    seed: int
    source: Source
    data: DataOptions
    model: str
    options: Mapping[str, object]
    split: ModelOptions
    pretraining: Pretraining | None
    defenses: tuple[Defense, ...]
    train: Train
    task: Task | None
    attacks: Mapping[str, FeatureAttack]
    inference: Mapping[str, MembershipAttack]
    inverting: Mapping[str, InversionAttack]
    membership: MembershipOptions | None
    inversion: InversionPlan
    audit: AuditOptions
    recognizer: Recognizer | None
    device: DeviceBudget | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the passes of the audit, at least one."""
        return self.audit.seeds or (self.seed,)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a file.

    Args:
        path: a TOML file.

    Raises:
        ConfigError: there is no such file.
        RecipeError: it is not TOML, or not a recipe; every problem is named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"expected a recipe (TOML) at {path}, found none: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"expected a recipe (TOML) at {path}, found a file that is not text; check the path") from error
    return parse_recipe(text, name=path.stem, source=str(path))


def parse_recipe(text: str, *, name: str = "recipe", source: str = "recipe") -> Recipe:
    """Read a recipe from a string.

    Args:
        text: TOML.
        name: of the run.
        source: where the text came from, for messages.

    Raises:
        RecipeError: it is not TOML, or not a recipe; every problem is named.

    Example:
        >>> recipe = parse_recipe('''
        ... data.name = "digits"
        ... model = { name = "vgg11", cut = "c2" }
        ... ''')
        >>> recipe.model, recipe.split.cut, recipe.train.epochs
        ('vgg11', 'c2', 10)
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(source, [f"not TOML: {error}"]) from error
    return read_recipe(table, text=text, name=name, source=source)


def read_recipe(table: Mapping[str, Any], *, text: str, name: str = "recipe", source: str = "recipe") -> Recipe:
    """Read a recipe from the values that its TOML stands for.

    Args:
        table: the recipe, key by key.
        text: how it is written down.
        name: of the run.
        source: where the table came from, for messages.

    Raises:
        RecipeError: it is not a recipe; every problem is named.
    """
    reader = _Reader(table)
    parts = reader.read()
    if reader.problems:
        raise RecipeError(source, dict.fromkeys(reader.problems))  # a value that fits none of two types is one problem
    return Recipe(name=name, text=text, **parts)


_TABLES = (
    *("seed", "data", "model", PRETRAIN, "defenses", "train", "task", "attacks"),
    *("membership", *INVERSION_TABLES, "audit", "recognizer", "device"),
)


class _Reader(Tables):
    """Goes through the tables of a recipe and gathers what is wrong."""

    def read(self) -> dict[str, Any]:
        """Return the fields of the recipe; incomplete where there are problems."""
        self.problems += [
            f"{key}: unknown key{nearest(key, _TABLES)}; known: {', '.join(_TABLES)}" for key in self.table if key not in _TABLES
        ]
        seed = self.table.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            self.problems.append(f"seed: expected an integer >= 0, found {seed!r}")
        model, options, split = self._model()
        source, data = self._data()
        parts = {
            "seed": seed,
            "source": source,
            "data": data,
            "model": model,
            "options": options,
            "split": split,
            "pretraining": read_pretraining(self),
            "defenses": self._defenses(),
            "train": self.construct(Train, self.mapping("train"), "train"),
            "task": self._task(),
            **self._attacks(),
            "inversion": read_plan(self),
            "audit": self.construct(AuditOptions, self.mapping("audit"), "audit"),
            "recognizer": self._recognizer(),
            "device": self.construct(DeviceBudget, self.mapping("device"), "device") if "device" in self.table else None,
        }
        self._require_cut(split, parts["defenses"], parts["attacks"])
        self._require_references(parts["membership"], parts["defenses"], parts["inference"])
        self._require_batch(parts["train"], parts["defenses"])
        if split is not None:
            self.problems += starting_problems(parts["pretraining"], split.weights, parts["defenses"], self.mapping("data"))
        return parts

    def _data(self) -> tuple[Source | None, DataOptions | None]:
        value = self.mapping("data", required=True)
        if not isinstance(self.table.get("data"), Mapping):
            return None, None
        name = self.named("datasets", value, "data")
        common, own = _divide(value, DataOptions)
        options = self.construct(DataOptions, common, "data")
        return None if name is None else self.source(
            name, own, "data", [key.name for key in dataclasses.fields(DataOptions)]
        ), options

    def _model(self) -> tuple[str | None, dict[str, object], ModelOptions | None]:
        value = self.mapping("model", required=True)
        if not isinstance(self.table.get("model"), Mapping):
            return None, {}, None
        name = self.named("models", value, "model")
        common, own = _divide(value, ModelOptions)
        given_by_data = [key for key in ("classes", "shape") if key in own]
        self.problems += [f"model.{key}: the data set gives it; leave it out" for key in given_by_data]
        if name is not None:
            self.check_options(name, own, "model")
        return name, own, self.construct(ModelOptions, common, "model")

    def _task(self) -> Task | None:
        if "task" not in self.table:
            return None
        value = self.mapping("task")
        if not isinstance(self.table["task"], Mapping):
            return None
        name = value.pop("name", None)
        if name is None:
            self.problems.append(f"task.name: missing; known: {', '.join(TASKS)}")
        elif not isinstance(name, str) or name not in TASKS:
            self.problems.append(f"task.name: expected one of {', '.join(TASKS)}, found {name!r}{nearest(str(name), TASKS)}")
        else:
            return cast(Task | None, self.construct(TASKS[name], value, "task"))
        return None

    def _recognizer(self) -> Recognizer | None:
        if "recognizer" not in self.table:
            return None
        made: Recognizer | None = self.construct(Recognizer, self.mapping("recognizer"), "recognizer")
        if made is not None:
            self.check_options(made.model, made.options, "recognizer.options")
        return made

    def _defenses(self) -> tuple[Defense, ...]:
        made = []
        for where, value in self.listed("defenses"):
            if name := self.named("defenses", value, where):
                made.append(self.construct(registry.entry("defenses", name).load(), value, where))
        whole = [part for part in made if part is not None]
        try:
            composed = Compose(*whole)
            if len(whole) == len(made):  # otherwise a part that another one asks for may only be misspelt
                composed.join(composed)
        except ConfigError as error:
            self.problems.append(f"defenses: {error}")
        return tuple(whole)

    def _attacks(self) -> dict[str, Any]:
        """Return the attacks on features, on predictions and on weights, and the game of those on predictions."""
        made: dict[str, Any] = {}
        for where, value in self.listed("attacks"):
            if not (name := self.named("attacks", value, where)):
                continue
            label = value.pop("label", name)
            if not isinstance(label, str):
                self.problems.append(f"{where}.label: expected a string, found {label!r}")
                continue
            if label in made:
                self.problems.append(f"{where}: a second attack named '{label}'; give it a label of its own")
            made[label] = self.construct(registry.entry("attacks", name).load(), value, where)
        inference = {label: attack for label, attack in made.items() if isinstance(attack, MembershipAttack)}
        asked = inference or "membership" in self.table
        return {
            "attacks": {label: attack for label, attack in made.items() if isinstance(attack, FeatureAttack)},
            "inference": inference,
            "inverting": {label: attack for label, attack in made.items() if isinstance(attack, InversionAttack)},
            "membership": self.construct(MembershipOptions, self.mapping("membership"), "membership") if asked else None,
        }

    def _require_batch(self, train: Train | None, defenses: Sequence[Defense]) -> None:
        """Note which defenses need larger batches."""
        self.problems += [
            f"train.batch_size: {defense.name} needs batches of at least {defense.least_batch} pictures, found {train.batch_size}"
            for defense in defenses
            if train is not None and train.batch_size < defense.least_batch
        ]

    def _require_references(
        self,
        options: MembershipOptions | None,
        defenses: Sequence[Defense],
        inference: Mapping[str, MembershipAttack],
    ) -> None:
        """Note which attacks on predictions have too few reference models, and what references cannot stand for."""
        if options is None:
            return
        there = options.references - 2 * options.leave_one_out  # a target in turn leaves with its complement
        turns = ", two of which leave where each is attacked in turn" if options.leave_one_out else ""
        self.problems += [
            f"attacks: {name} needs at least {attack.least} reference models, and [membership] has references = "
            f"{options.references}{turns}"
            for name, attack in inference.items()
            if "references" in attack.needs and there < attack.least
        ]
        if options.leave_one_out and not options.adaptive and defenses:
            self.problems.append(
                "membership: leave_one_out attacks the references, which adaptive = false trains without the defenses; set one"
            )

    def _require_cut(self, split: ModelOptions | None, defenses: Sequence[Defense], attacks: Mapping[str, FeatureAttack]) -> None:
        """Note where a model is not cut, and something is about the features that cross a cut."""
        of_features = [f"the attack {name}" for name in attacks]
        of_features += [f"the defense {defense.name}" for defense in defenses if defense.surface == "features"]
        of_features += [f"[{key}]" for key in ("recognizer", "device") if key in self.table]
        if split is not None and not split.cut and of_features:
            need = "needs" if len(of_features) == 1 else "need"
            self.problems.append(
                f"model.cut: missing; {' and '.join(of_features)} {need} the place where the model is split: "
                "`sfumato cuts MODEL` lists them"
            )


def _divide(value: Mapping[str, Any], options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the keys of a table into those of a dataclass of options and the others."""
    known = {key.name for key in dataclasses.fields(options)}
    return {k: v for k, v in value.items() if k in known}, {k: v for k, v in value.items() if k not in known}
