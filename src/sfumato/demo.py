# SPDX-License-Identifier: Apache-2.0
"""The demonstrations: one small target, audited undefended and hardened.

"digits" names handwritten digits; "street" finds a vehicle again that another camera saw, while nobody is to see who drives it.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Literal

from sfumato.pipeline import audit_recipe
from sfumato.publish import publish_audit
from sfumato.recipe import Recipe, parse_recipe
from sfumato.types import Audit
from sfumato.workplace import Workplace, read_data

Scene = Literal["digits", "street"]

FOLDER: dict[Scene, str] = {"digits": "demo", "street": "demo-street"}
"""Where the runs of a demonstration are, below the folder of runs."""
RUNS = ("before", "after")


def demo_recipe(scene: Scene, name: str, *, weights: Path | None = None) -> Recipe:
    """Return a recipe of a demonstration, "before" or "after".

    Args:
        scene: which demonstration.
        name: of the run.
        weights: to start from; the text of the recipe names them too, so that the run can be repeated from it.
    """
    text = files("sfumato").joinpath("recipes", scene, f"{name}.toml").read_text(encoding="utf-8")
    if weights is not None:
        # A string of JSON is one of TOML, unless it has a character beyond 16 bits escaped as two halves.
        told = json.dumps(str(weights.resolve()), ensure_ascii=False)
        text = text.replace("[model]", f"[model]\nweights = {told}", 1)
    return parse_recipe(text, name=name)


def run_demo(scene: Scene, workplace: Workplace) -> list[Audit]:
    """Train and audit both targets, or find them done, and write their runs.

    Args:
        scene: which demonstration. In "street" the hardened target starts from the undefended one, as PATROL does.
        workplace: where.

    Returns:
        The audits, before and after.
    """
    audits: list[Audit] = []
    trained: Path | None = None
    for name in RUNS:
        recipe = demo_recipe(scene, name, weights=trained if scene == "street" else None)
        made, stage = audit_recipe(recipe, read_data(recipe, workplace), workplace)
        publish_audit(recipe, made, stage, workplace.store, f"{FOLDER[scene]}/{name}")
        audits.append(made)
        trained = stage.weights
    return audits
