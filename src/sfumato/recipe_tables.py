# SPDX-License-Identifier: Apache-2.0
"""Read the tables of a recipe one by one, and gather what is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sfumato import registry
from sfumato.arguments import check, construct
from sfumato.data.source import Source
from sfumato.errors import ConfigError, nearest


@dataclass
class Tables:
    """The tables of a recipe, key by key.

    Args:
        table: as TOML gives it.
        problems: what is wrong, a sentence each.
    """

    table: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)

    def construct(self, target: Any, arguments: Mapping[str, object], where: str) -> Any:
        """Check arguments and call the target with them; None where there are problems."""
        made, problems = construct(target, arguments, where=where)
        self.problems += problems
        return made

    def mapping(self, key: str, *, required: bool = False) -> dict[str, Any]:
        """Return a copy of a table; empty where it is not there or not a table."""
        if key not in self.table and required:
            self.problems.append(f"{key}: missing; a recipe needs a table [{key}] with a name")
        value = self.table.get(key, {})
        if not isinstance(value, Mapping):
            self.problems.append(f"{key}: expected a table, found {value!r}")
            return {}
        return dict(value)

    def named(self, family: registry.Family, value: dict[str, Any], where: str) -> str | None:
        """Take the name out of a table; None where it is missing or unknown, which is then a problem."""
        name = value.pop("name", None)
        if name is None:
            self.problems.append(f"{where}.name: missing; known: {', '.join(registry.TABLE[family])}")
        elif not isinstance(name, str):
            self.problems.append(f"{where}.name: expected a string, found {name!r}")
        elif family == "models" and ":" in name:
            return name
        else:
            try:
                registry.entry(family, name)
            except ConfigError as error:
                self.problems.append(f"{where}.name: {error}")
            else:
                return name
        return None

    def check_options(self, model: str, options: Mapping[str, object], where: str) -> None:
        """Check the arguments of a model of the zoo."""
        if ":" not in model:
            given = {"classes": 2, "shape": (1, 8, 8), **options}  # what the data set will say; only the rest is checked here
            self.problems += check(registry.entry("models", model).load(), given, where=where)[1]

    def listed(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the tables of an array of tables, each with where it stands."""
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            self.problems.append(f"{key}: expected tables written [[{key}]], found {value!r}")
            return []
        return [(f"{key}[{place}]", dict(item)) for place, item in enumerate(value)]

    def source(self, name: str, own: dict[str, Any], where: str, common: Sequence[str] = ()) -> Source | None:
        """Make a source of data of its name and its own keys; `common` are those that every data set has there."""
        target = registry.entry("datasets", name).load()
        known = (*inspect.signature(target).parameters, *common)
        self.problems += [
            f"{where}.{key}: unknown key{nearest(key, known)}; known: {', '.join(known)}" for key in own if key not in known
        ]
        own = {key: value for key, value in own.items() if key in known}
        if "seed" in inspect.signature(target).parameters:
            own.setdefault("seed", self.table.get("seed", 0))  # how the source itself splits is random too
        return cast(Source | None, self.construct(target, own, where))
