# SPDX-License-Identifier: Apache-2.0
"""The demonstration: one small classifier of digits, audited undefended and hardened."""

from __future__ import annotations

from importlib.resources import files

from sfumato.pipeline import Workplace, audit_recipe, publish_audit, read_data
from sfumato.recipe import Recipe, parse_recipe
from sfumato.types import Audit

RUNS = ("before", "after")


def demo_recipe(name: str) -> Recipe:
    """Return a recipe of the demonstration, "before" or "after"."""
    text = files("sfumato").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")
    return parse_recipe(text, name=name)


def run_demo(workplace: Workplace) -> list[Audit]:
    """Train and audit both targets, or find them done, and write their runs under demo/.

    Args:
        workplace: where.

    Returns:
        The audits, before and after.
    """
    audits = []
    for name in RUNS:
        recipe = demo_recipe(name)
        made, stage = audit_recipe(recipe, read_data(recipe, workplace), workplace)
        publish_audit(recipe, made, stage, workplace.store, f"demo/{name}")
        audits.append(made)
    return audits
