# SPDX-License-Identifier: Apache-2.0
"""From TOML to a study. Every problem of a study is reported at once.

`base` names a study to take columns, sizes and rows from. Tables are merged key by key. A row takes from the row of its label
what it does not say, all but published numbers and notes, and a study that lists rows has these rows only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from sfumato import registry
from sfumato.arguments import construct
from sfumato.errors import ConfigError, RecipeError, UnknownNameError, nearest
from sfumato.settings import Train
from sfumato.studies.column import Column, read_column
from sfumato.studies.study import SIZES, Average, Keys, Row, RowKeys, Size, Study, merge
from sfumato.studies.trace import read_trace

_INHERITED = ("columns", "extra", "selection", "matched", "size", "setups", "rows", "planned")
_TABLES = ("size", "setups", "rows", "averages")
_T = TypeVar("_T")


def shipped() -> dict[str, str]:
    """Return the TOML of every study that comes with Sfumato, by name, in the order of their names."""
    folders = [folder for folder in files("sfumato").joinpath("studies").iterdir() if folder.is_dir()]
    found = {
        path.name.removesuffix(".toml"): path.read_text(encoding="utf-8")
        for folder in folders
        for path in folder.iterdir()
        if path.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def shipped_titles() -> dict[str, str]:
    """Return the title of every study that comes with Sfumato, by name."""
    return {name: str(tomllib.loads(text)["title"]) for name, text in shipped().items()}


def load_study(name: str | Path) -> Study:
    """Read a study and check it.

    Args:
        name: of a study that comes with Sfumato, or the path of a TOML file.

    Raises:
        UnknownNameError: there is no such study.
        ConfigError: there is no such file.
        RecipeError: it is no study; every problem is named.

    Example:
        >>> load_study("cem-table1").rows[1].label
        'Bottleneck'
    """
    table = _complete(str(name), ())
    return read_study(table, name=Path(name).stem if str(name).endswith(".toml") else str(name))


def _complete(name: str, below: tuple[str, ...]) -> dict[str, Any]:
    """Return the table of a study with what it takes from its base."""
    try:
        own = tomllib.loads(_text(name))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(name, [f"not TOML: {error}"]) from error
    base = own.pop("base", None)
    if base is None:
        return own
    beside = str(Path(name).parent / base) if name.endswith(".toml") and str(base).endswith(".toml") else base
    if not isinstance(beside, str) or beside in (*below, name):
        raise RecipeError(name, [f"base: expected the name of another study, found {base!r}"])
    above = _complete(beside, (*below, name))
    merged = merge({key: above[key] for key in _INHERITED if key in above}, own)
    given, rows = above.get("rows", []), merged.get("rows", [])
    if not (_are_tables(given) and _are_tables(rows)):
        return merged  # `read_study` says so
    known = {str(row.get("label")): {key: row[key] for key in row if key not in ("published", "notes")} for row in given}
    merged["rows"] = [{**known.get(str(row.get("label")), {}), **row} for row in rows] if "rows" in own else [*known.values()]
    return merged


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _text(name: str) -> str:
    if name.endswith(".toml"):
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"expected a study (TOML) at {name}, found none: {error}; check the path") from error
    known = shipped()
    if name not in known:
        raise UnknownNameError(
            f"no study named '{name}'{nearest(name, known)}; known: {', '.join(known)}, or the path of a .toml"
        )
    return known[name]


def read_study(table: Mapping[str, Any], *, name: str) -> Study:
    """Read a study from the values that its TOML stands for.

    Args:
        table: the study, key by key, complete.
        name: of the study.

    Raises:
        RecipeError: it is no study; every problem is named.
    """
    reader = _Reader(table)
    study = reader.read(name)
    if reader.problems or study is None:
        raise RecipeError(name, dict.fromkeys(reader.problems))
    return study


@dataclass
class _Reader:
    """Goes through the tables of a study and gathers what is wrong."""

    table: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)

    def read(self, name: str) -> Study | None:
        """Return the study, or None where its keys are not those of one."""
        keys = self._made(Keys, {key: value for key, value in self.table.items() if key not in _TABLES}, "")
        rows, averages, sizes = self._list("rows", RowKeys), self._list("averages", Average), self._sizes()
        setups, columns = self._setups(), self._columns()
        if self.problems or keys is None:
            return None
        study = Study(name, self.table, keys, columns, tuple(self._expanded(rows, setups)), tuple(averages), sizes)
        self._check_columns(study)
        self._check_traces(study)
        self._check_labels(study)
        self._check_recipes(study)
        return study

    def _made(self, target: type[_T], value: Mapping[str, Any], where: str) -> _T | None:
        made, problems = construct(target, value, where=where)
        self.problems += problems
        return made if isinstance(made, target) else None

    def _list(self, key: str, target: type[_T]) -> list[_T]:
        value = self.table.get(key, [])
        if not _are_tables(value):
            self.problems.append(f"{key}: expected tables written [[{key}]], found {value!r}")
            return []
        made = [self._made(target, item, f"{key}[{place}]") for place, item in enumerate(value)]
        return [item for item in made if item is not None]

    def _sizes(self) -> dict[str, Size]:
        sizes: dict[str, Size] = {}
        tables = self.table.get("size", {})
        if not isinstance(tables, Mapping) or not tables:
            self.problems.append(f"size: missing; a study needs at least one table [size.{SIZES[0]}], a recipe without defenses")
            return {}
        for name, value in tables.items():
            if name not in SIZES:
                self.problems.append(f"size.{name}: unknown size{nearest(name, SIZES)}; known: {', '.join(SIZES)}")
            elif not isinstance(value, Mapping):
                self.problems.append(f"size.{name}: expected a table, found {value!r}")
            else:
                own = {key: value[key] for key in ("defenses", "points") if key in value}
                recipe = {key: item for key, item in value.items() if key not in own}
                if size := self._made(Size, {"recipe": recipe, **own}, f"size.{name}"):
                    sizes[name] = size
        return {name: sizes[name] for name in SIZES if name in sizes}

    def _setups(self) -> dict[str, Mapping[str, Any]]:
        tables = self.table.get("setups", {})
        if isinstance(tables, Mapping) and all(isinstance(value, Mapping) for value in tables.values()):
            return dict(tables)
        self.problems.append(f"setups: expected tables written [setups.NAME], found {tables!r}")
        return {}

    def _columns(self) -> tuple[Column, ...]:
        columns = []
        for key in ("columns", "extra"):
            texts = self.table.get(key, [])
            for text in texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else ():
                try:
                    columns.append(read_column(text))
                except ConfigError as error:
                    self.problems.append(f"{key}: {error}")
        return tuple(columns)

    def _expanded(self, rows: list[RowKeys], setups: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
        """Yield the rows with their setup, the defenses of those that they add to, and one for each value of what is varied."""
        known: dict[str, Row] = {}
        for keys in rows:
            row = Row(**vars(keys), series=keys.label)
            if row.setup in setups:
                row = replace(row, size=merge(setups[row.setup], row.size))
            elif row.setup:
                self.problems.append(f"row '{row.label}': setup: no setup '{row.setup}'{nearest(row.setup, setups)}")
            if row.label in known:
                self.problems.append(f"row '{row.label}': a second row of this label; give it one of its own")
            if row.over and row.over not in known:
                self.problems.append(f"row '{row.label}': over: no row '{row.over}' above it{nearest(row.over, known)}")
            elif row.over:
                below = known[row.over]
                taken = {key: getattr(row, key) or getattr(below, key) for key in ("vary", "cut", "against", "start", "size")}
                row = replace(row, defenses=(*below.defenses, *row.adds), **taken)
            known[row.label] = row
            yield from self._varied(row, with_it=bool(row.over and row.over in known and known[row.over].vary))

    def _varied(self, row: Row, *, with_it: bool) -> Iterator[Row]:
        """Yield a row for each value of what is varied; `with_it` says that the row it adds to is varied with it."""
        if not row.vary:
            yield row
            return
        (varied, values), *more = row.vary.items()
        name, _, argument = varied.partition(".")
        trains = name == "train" and argument in {key.name for key in fields(Train)}
        if more or not values or not (trains or name in [defense.get("name") for defense in row.defenses]):
            self.problems.append(
                f"row '{row.label}': vary: expected one argument of one of its defenses, or of train, with its values, such as "
                f'{{ "noise.sigma" = [0.1, 0.2] }} or {{ "train.stop" = [1, 2] }}, found {dict(row.vary)}'
            )
            return
        for place, value in enumerate(values):
            defenses = tuple({**part, argument: value} if part.get("name") == name else part for part in row.defenses)
            at = f", {argument} = {value}" if isinstance(value, str) else f", {argument} = {value:g}"
            yield replace(
                row,
                label=f"{row.label}{at}",
                over=f"{row.over}{at}" if with_it else row.over,
                defenses=defenses,
                place=(place, len(values)),
                train={argument: _whole(value)} if trains else {},
            )

    def _check_columns(self, study: Study) -> None:
        """See that there is a number for each column, and that what names a column names one of the study."""
        texts = [column.text for column in study.columns]
        lines: tuple[Row | Average, ...] = (*study.rows, *study.averages)
        for line in lines:
            if line.published and len(line.published) != len(study.keys.columns):
                found = f"{len(line.published)} numbers for {len(study.keys.columns)} columns"
                self.problems.append(f"row '{line.label}': published: expected a number for each column, found {found}")
            self.problems += [
                f"row '{line.label}': notes: no column '{key}'{nearest(key, texts)}" for key in line.notes if key not in texts
            ]
        chart, drawn = study.keys.chart, [column.text for column in study.columns if column.whole is None]
        self.problems += [
            f"chart: no column '{key}'{nearest(key, drawn)}; known: {', '.join(drawn)}"
            for key in dict.fromkeys(key for pair in (chart.pairs if chart else ()) for key in pair)
            if key not in drawn
        ]

    def _check_traces(self, study: Study) -> None:
        """See that there is a trace of each name, and that an attack in it is one that a column shows."""
        for text in study.keys.traces:
            try:
                trace = read_trace(text)
            except ConfigError as error:
                self.problems.append(f"traces: {error}")
                continue
            if trace.attack and not any(trace.of(name) for name in study.attacks):
                self.problems.append(
                    f"traces: '{text}': no column shows an attack '{trace.attack}'{nearest(trace.attack, study.attacks)}"
                )

    def _check_labels(self, study: Study) -> None:
        """See that rows stand against rows and start from undefended ones, and that averages and changed sizes are there."""
        rows, series = {row.label: row for row in study.rows}, {row.series for row in study.rows}
        for row in study.rows:
            others = [label for label in rows if label != row.label]
            self.problems += [
                f"row '{row.label}': {key}: no other row '{label}'{nearest(label, others)}"
                for key, label in (("against", row.against), ("start", row.start))
                if label and label not in others
            ]
            first = rows.get(row.start)
            if first and (first.defenses or first.start):
                self.problems.append(
                    f"row '{row.label}': start: expected a row without defenses that starts from no other, found '{row.start}'"
                )
            self.problems += [
                f"row '{row.label}': size: no size '{size}'{nearest(size, study.sizes)}; known: {', '.join(study.sizes)}"
                for size in row.size
                if size not in study.sizes
            ]
        if any(column.beside == "ratio" for column in study.columns) and not any(row.against for row in study.rows):
            self.problems.append("columns: 'ratio/...' compares rows with those that they stand against, found none; set against")
        if any(column.beside == "matched" for column in study.columns) and study.keys.matched not in series:
            self.problems.append(
                f"matched: expected the label of a row, which columns 'matched/...' compare with, found '{study.keys.matched}'"
                f"{nearest(study.keys.matched, series)}"
            )
        self.problems += [
            f"average '{line.label}': of: expected 'without', 'with' or the label of a row that is varied, found '{line.of}'"
            f"{nearest(line.of, series)}"
            for line in study.averages
            if line.of not in ("without", "with", *series)
        ]

    def _check_recipes(self, study: Study) -> None:
        """See that every cell is a recipe; a defense that is planned is no problem of the study."""
        for row in study.rows:
            self.problems += [
                f"row '{row.label}': no defense named '{name}'{nearest(name, registry.TABLE['defenses'])}; known: "
                f"{', '.join(registry.TABLE['defenses'])}; one that a later version will have stands in `planned`"
                for name in row.missing
                if name not in study.keys.planned
            ]
        plain = Row(label="no defense")
        for size in study.sizes:
            before = len(self.problems)
            attacks = self._parsed(study, plain, size, f"size.{size}")
            if len(self.problems) == before:  # otherwise each row would say so again
                self.problems += [
                    f"size.{size}: no attack '{name}', which a column shows{nearest(name, attacks)}"
                    for name in study.attacks
                    if name not in attacks
                ]
                for row in study.rows_at(size):
                    if not row.missing:
                        self._parsed(study, row, size, f"size.{size}, row '{row.label}'")

    def _parsed(self, study: Study, row: Row, size: str, where: str) -> list[str]:
        """Return the names of a recipe's attacks."""
        try:
            recipe = study.recipe(row, size, seed=0)
            if row.start and recipe.inference:
                self.problems.append(
                    f"row '{row.label}': start: the model to start from was trained on the members, and reference models, which "
                    "start from it too, would know them; leave start out where attacks are on predictions"
                )
            return [*recipe.attacks, *recipe.inference, *recipe.inverting]
        except RecipeError as error:
            self.problems += [f"{where}: {problem}" for problem in error.problems]
        except ConfigError as error:  # what the row makes of the size
            self.problems.append(f"{where}: {error}")
        return []


def _whole(value: float | str) -> float | str:
    """Return a number that is whole as an integer: TOML's integers are read as numbers here."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
