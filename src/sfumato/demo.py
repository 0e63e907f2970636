# SPDX-License-Identifier: Apache-2.0
"""The demonstrations: one small target, audited undefended and hardened.

"digits" names handwritten digits; "street" finds a vehicle again that another camera saw, while nobody is to see who drives it.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from typing import Literal

from sfumato.pipeline import Workplace, audit_recipe, read_data
from sfumato.publish import publish_audit
from sfumato.recipe import Recipe, parse_recipe
from sfumato.types import Audit

Scene = Literal["digits", "street"]

FOLDER: dict[Scene, str] = {"digits": "demo", "street": "demo-street"}
"""Where the runs of a demonstration are, below the folder of runs."""
RUNS = ("before", "after")


def demo_recipe(scene: Scene, name: str) -> Recipe:
    """Return a recipe of a demonstration, "before" or "after"."""
    text = files("sfumato").joinpath("recipes", scene, f"{name}.toml").read_text(encoding="utf-8")
    return parse_recipe(text, name=name)


def run_demo(scene: Scene, workplace: Workplace) -> list[Audit]:
    """Train and audit both targets, or find them done, and write their runs.

    Args:
        scene: which demonstration. In "street" the hardened target starts from the undefended one, as PATROL does.
        workplace: where.

    Returns:
        The audits, before and after.
    """
    audits, trained = [], None
    for name in RUNS:
        recipe = demo_recipe(scene, name)
        if scene == "street":
            recipe = replace(recipe, split=replace(recipe.split, weights=trained))
        made, stage = audit_recipe(recipe, read_data(recipe, workplace), workplace)
        publish_audit(recipe, made, stage, workplace.store, f"{FOLDER[scene]}/{name}")
        audits.append(made)
        trained = stage.weights
    return audits
