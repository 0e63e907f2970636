# SPDX-License-Identifier: Apache-2.0
"""A study: the rows of a paper's table as recipes, with the published numbers beside them.

A study is TOML. Its sizes are recipes without defenses, its rows are defenses; a cell is a row at a size with a seed: a recipe.

    columns = ["accuracy", "decoder/infer/mse"]
    [[rows]]
    label = "Bottleneck"
    defenses = [{ name = "bottleneck", channels = 8 }, { name = "noise", sigma = 0.025 }]
    published = [90.87, 0.0041]                      # column by column
    [[rows]]
    label = "Bottleneck+CEM"
    over = "Bottleneck"                              # the same defenses, and those that it adds
    adds = [{ name = "cem", weight = 16 }]

A row may stand `against` another, of whose numbers the columns "drop/..." show what it loses; `start` from the trained model of
another; and change a `size`, key by key:

    [[rows]]
    label = "PATROL at 128 pixels"
    against = "PATROL at 256 pixels"
    start = "No defense at 128 pixels"
    defenses = [{ name = "patrol" }]
    size.full.data = { size = 128 }

What rows have in common may stand in a setup, which is such a change of sizes with a name:

    [setups."CIFAR-10 VGG16"]
    full = { data = { name = "cifar10" }, model = { name = "vgg16" } }
    [[rows]]
    label = "CIFAR-10 VGG16, baseline"
    setup = "CIFAR-10 VGG16"

What a study need not say again it takes from its `base`, see `sfumato.studies.load`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sfumato import registry
from sfumato.errors import ConfigError, UnknownNameError
from sfumato.recipe import Recipe, read_recipe
from sfumato.studies.column import Column

SIZES = ("smoke", "gpu", "full")
"""The sizes that a study may have: minutes on a CPU, meant for under an hour on a large GPU, the paper's."""


Published = float | Literal["-"]
"""A number that the paper prints, in the unit of its column; "-" where it prints none."""


@dataclass(frozen=True, kw_only=True)
class RowKeys:
    """A row as a study writes it.

    Attributes:
        label: its name, as the paper has it.
        defenses: in the order in which they see the features, each a name and arguments.
        over: label of the row that this one adds to, or "".
        adds: what it adds to the defenses of that row.
        vary: one argument, as "noise.sigma" or "train.stop", with the values at which the row is run; each becomes a row.
        cut: where the model is split, if not where the size says.
        against: label of the row that drops are from, or "".
        start: label of an undefended row whose trained model this one starts from; drawn by the seed where "".
        setup: of the study, whose changes of sizes this row has, or "".
        size: what this row changes of a size, key by key, by the name of the size; over what its setup does.
        published: a number for each column, in the unit of the column, or "-" where the paper has none; or nothing.
        notes: what is to be said about a published number, by column.
    """

    label: str
    defenses: tuple[Mapping[str, Any], ...] = ()
    over: str = ""
    adds: tuple[Mapping[str, Any], ...] = ()
    vary: Mapping[str, tuple[float | str, ...]] = field(default_factory=dict)
    cut: str = ""
    against: str = ""
    start: str = ""
    setup: str = ""
    size: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row(RowKeys):
    """A row of a study, to run: it has all its defenses, and one value of what is varied.

    Attributes:
        series: the row that was varied into this one; its own label where none was.
        place: which of the values of that row this one has, from 0, and of how many.
        train: what is varied of how it is trained.
    """

    series: str = ""
    train: Mapping[str, Any] = field(default_factory=dict)
    place: tuple[int, int] = (0, 1)

    @property
    def missing(self) -> list[str]:
        """The defenses that this version does not have."""
        names = [str(defense.get("name")) for defense in self.defenses]
        return [name for name in dict.fromkeys(names) if name not in registry.TABLE["defenses"]]


@dataclass(frozen=True, kw_only=True)
class Average:
    """The mean of rows that stand in pairs, or of those that one row is varied into.

    Attributes:
        label: its name, as the paper has it.
        of: "without" the rows that others add to, "with" those others; or the label of the row that is varied.
        published: a number for each column, or "-".
        notes: what is to be said about a published number, by column.
    """

    label: str
    of: str
    published: tuple[Published, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Pictures of columns against another.

    Attributes:
        x: the column along the horizontal axis.
        y: the column along the vertical axis, or several, each in a picture of its own.
    """

    x: str
    y: str | tuple[str, ...]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The columns of each picture."""
        return tuple((self.x, y) for y in ((self.y,) if isinstance(self.y, str) else self.y))


@dataclass(frozen=True)
class Size:
    """One size of a study.

    Attributes:
        recipe: a recipe without defenses, key by key.
        defenses: arguments that this size gives to the defenses of every row, by name.
        points: how many values of a row that is varied are run at most; 0 is all.

    Raises:
        ConfigError: the recipe has no tables `data` and `model`, attacks that are no tables, or a seed; or the arguments of a
            defense are no table.
    """

    recipe: Mapping[str, Any]
    defenses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    points: int = 0

    def __post_init__(self) -> None:
        for key in ("data", "model"):
            if not isinstance(self.recipe.get(key), Mapping):
                raise ConfigError(f"{key}: expected a table with a name, found {self.recipe.get(key)!r}")
        attacks = self.recipe.get("attacks", [])
        if not isinstance(attacks, list) or not all(isinstance(attack, Mapping) for attack in attacks):
            raise ConfigError(f"attacks: expected a list of tables, found {attacks!r}")
        if not isinstance(self.defenses, Mapping) or not all(isinstance(given, Mapping) for given in self.defenses.values()):
            raise ConfigError(f"defenses: expected a table with arguments for each, by name, found {self.defenses!r}")
        if "seed" in self.recipe:
            raise ConfigError("seed: whoever runs the study gives the seeds; leave it out")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of a study beside its rows, averages and sizes.

    Attributes:
        title: a line for people.
        source: where in the paper.
        columns: what is shown.
        extra: what is shown after them, of which the paper has no numbers.
        selection: which weights of an attack are scored.
        gain: published mean gain in percent of the rows that add over those that they add to, by part.
        chart: a picture to draw.
        traces: what is recorded of each row along an axis, and drawn, see `sfumato.studies.trace`.
        pictures: how many reconstructions of each row to show.
        notes: what is to be said about the study.
        matched: label of a row that is varied along its training, with whose checkpoints columns "matched/..." compare.
        planned: defenses of its rows that a later version will have.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    extra: tuple[str, ...] = ()
    selection: Literal["best", "last"] = "last"
    gain: Mapping[str, float] = field(default_factory=dict)
    chart: Chart | None = None
    traces: tuple[str, ...] = ()
    pictures: int = 0
    notes: tuple[str, ...] = ()
    matched: str = ""
    planned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study, checked.

    Attributes:
        name: its file's name without the ending.
        table: what it stands for, key by key, with what it took from its base.
        keys: title, source and how it is shown.
        columns: what it shows.
        rows: what is run, in order.
        averages: the rows of means.
        sizes: by name.
    """

    name: str
    table: Mapping[str, Any]
    keys: Keys
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    averages: tuple[Average, ...]
    sizes: Mapping[str, Size]

    def rows_at(self, size: str) -> tuple[Row, ...]:
        """Return the rows of a size, of those that are varied no more than it runs.

        Raises:
            UnknownNameError: the study has no such size.
        """
        if size not in self.sizes:
            raise UnknownNameError(f"the study '{self.name}' has no size '{size}'; it has {', '.join(self.sizes)}")
        points = self.sizes[size].points
        return tuple(row for row in self.rows if not points or row.place[0] in spread(row.place[1], points))

    def describe(self, size: str) -> str:
        """Say what a size runs: data, models and cuts, epochs, attacks, rows."""
        rows = self.rows_at(size)
        bare = [self.recipe(Row(label="", cut=row.cut, size=row.size), size, seed=0) for row in rows]
        data = dict.fromkeys(str(self._size(row, size).recipe["data"]["name"]) for row in rows)
        cuts: dict[str, dict[str, None]] = {}
        for one in bare:
            cuts.setdefault(one.model, {}).update({one.split.cut: None} if one.split.cut else {})
        models = _listed(f"{model} cut at {_listed(own)}" if own else model for model, own in cuts.items())
        epochs = sorted({one.train.epochs for one in bare})
        trained = f"{epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else f"{epochs[0]}"
        names = dict.fromkeys(name for one in bare for name in (*one.attacks, *one.inference, *one.inverting))
        attacks = _listed(names) or "no attack"
        return f"{_listed(data)}, {models}, {trained} epochs, {attacks}, {len(rows)} rows"

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks that columns show, each once."""
        of_attacks = ("attack", "inference", "inversion")
        return tuple(dict.fromkeys(column.name for column in self.columns if column.source in of_attacks))

    def recipe(self, row: Row, size: str, *, seed: int, auxiliary: str = "private") -> Recipe:
        """Return the recipe of a cell; of the attacks of the size it has those that a column shows.

        Args:
            row: the row; this version has all its defenses.
            size: name of the size.
            seed: of everything random.
            auxiliary: where the adversary's pictures come from.

        Raises:
            RecipeError: it is no recipe.
        """
        own, shown = self._size(row, size), self.attacks
        attacks = own.recipe.get("attacks", [])
        model = {"model": {**own.recipe["model"], "cut": row.cut}} if row.cut else {}
        table = {
            **own.recipe,
            **model,
            "seed": seed,
            "attacks": [attack for attack in attacks if attack.get("label", attack.get("name")) in shown],
            "data": {**own.recipe["data"], "auxiliary": auxiliary},
            "defenses": [{**defense, **own.defenses.get(str(defense.get("name")), {})} for defense in row.defenses],
        }
        text = json.dumps(table, indent=1, sort_keys=True, default=str)
        name = f"{row.label}, seed {seed}" + (f", with {auxiliary} pictures" if auxiliary != "private" else "")
        return read_recipe(table, text=text, name=name, source=f"{self.name}, {row.label}")

    def row(self, label: str) -> Row:
        """Return the row of a label."""
        return next(row for row in self.rows if row.label == label)

    def _size(self, row: Row, size: str) -> Size:
        """Return a size as a row changes it."""
        own = self.sizes[size]
        recipe = merge({**own.recipe, "defenses": own.defenses}, row.size.get(size, {}))
        if row.train:
            recipe["train"] = merge(recipe.get("train", {}), row.train)
        return Size(recipe, recipe.pop("defenses", {}))


def _listed(names: Iterable[str]) -> str:
    """Write names as a list."""
    *most, last = [*names] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Put a table over its base, key by key. A table with another name replaces that of the base, and false takes it away.

    Example:
        >>> merge({"train": {"epochs": 9, "batch_size": 4}, "task": {"margin": 0.3}}, {"train": {"epochs": 1}, "task": False})
        {'train': {'epochs': 1, 'batch_size': 4}}
        >>> merge({"data": {"name": "street", "drivers": 4}}, {"data": {"name": "veri"}})
        {'data': {'name': 'veri'}}
    """
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        if isinstance(below, Mapping) and value is False:
            del merged[key]
        elif isinstance(below, Mapping) and isinstance(value, Mapping) and value.get("name") in (None, below.get("name")):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def spread(count: int, points: int) -> set[int]:
    """Return some of the places 0 to count - 1, the first and the last among them and the others evenly between.

    Example:
        >>> sorted(spread(7, 3))
        [0, 3, 6]
    """
    if points >= count:
        return set(range(count))
    return {round(number * (count - 1) / max(1, points - 1)) for number in range(points)}
