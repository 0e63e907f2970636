# SPDX-License-Identifier: Apache-2.0
"""The studies of TL-DMI and their recipes, each read once: to read a study checks a recipe of every row at every size."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from sfumato.recipe import Recipe
from sfumato.studies.load import load_study, shipped
from sfumato.studies.study import Row

NAMES = tuple(name for name in shipped() if name.startswith("tldmi"))
TABLES = tuple(name for name in NAMES if "table" in name)
FIGURES = tuple(name for name in NAMES if "fig" in name)
load = functools.cache(load_study)


@functools.cache
def cells(name: str) -> tuple[tuple[Row, str, Recipe], ...]:
    """The rows of a study at every size that it has."""
    study = load(name)
    return tuple((row, size, study.recipe(row, size, seed=0)) for size in study.sizes for row in study.rows_at(size))


def recipes(name: str, size: str) -> Mapping[str, Recipe]:
    """The recipes of a study at a size, by row."""
    return {row.label: recipe for row, of, recipe in cells(name) if of == size}
