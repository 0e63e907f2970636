# SPDX-License-Identifier: Apache-2.0
"""Run a study: every row at a size with every seed. What is there already is found, a cell that fails stops no other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from sfumato.audit import data_facts, facts, hardware, versions
from sfumato.checkpoint import EpochFacts
from sfumato.data.base import Data
from sfumato.errors import SfumatoError
from sfumato.inversions import judged_pictures
from sfumato.membership_types import Membership, Roc
from sfumato.modules import eval_mode
from sfumato.pipeline import audit_recipe
from sfumato.png import png
from sfumato.recipe import Recipe
from sfumato.seeds import generator
from sfumato.store import Stage
from sfumato.studies.inverted import gallery, kept
from sfumato.studies.results import Cell, Reading, Results, Training
from sfumato.studies.study import Row, Study
from sfumato.studies.subject import Subject, Trace
from sfumato.studies.trace import read_trace, record
from sfumato.target import Target
from sfumato.targets import train_recipe
from sfumato.types import Audit, Interval, NamedWatch
from sfumato.workplace import Workplace, read_data

TIMED_BATCH = 128
"""Pictures in a batch that is timed."""
TIMED = 100
"""How many times it is."""

_UNATTACKED = {"half", "target", "training"}
"""Sources of columns that need no audit."""
_ADVERSARIES: Mapping[Reading, tuple[str, ...]] = {"scored": ("private",), "trained": ("private", "test")}
"""Where the adversary's pictures come from, for columns of a part."""


def run_study(
    study: Study,
    size: str,
    workplace: Workplace,
    *,
    seeds: Sequence[int] = (0,),
    reading: Reading = "scored",
) -> Results:
    """Run a study, or what of it is not there yet.

    Args:
        study: what to run.
        size: name of the size.
        workplace: where.
        seeds: every row is trained and attacked with each.
        reading: what the columns train and infer mean; "trained" takes one more run of each attack.

    Returns:
        The results. A cell that failed is there with its error, as is one whose defense this version does not have.

    Raises:
        UnknownNameError: the study has no such size.
        DataError: the data set of the size is not there.
    """
    results = Results(study=study, size=size, reading=reading, seeds=tuple(seeds), versions=versions())
    place = replace(workplace, resume=True, watch=_unless_found(workplace.watch))
    for seed in seeds:
        read: dict[object, Data] = {}  # of one seed: how a data set is split may depend on it
        adversaries = _ADVERSARIES[reading if any(column.part for column in study.columns) else "scored"]
        here = [row for row in study.rows_at(size) if not row.missing]
        asked = {row.label: {name: study.recipe(row, size, seed=seed, auxiliary=name) for name in adversaries} for row in here}
        for recipe in (recipe for recipes in asked.values() for recipe in recipes.values()):
            _read(recipe, place, read)  # all of them first: what is not there shows before hours of training
        for row in study.rows_at(size):
            if row.missing:
                cell = _not_here(row, seed)
            else:
                recipes = asked[row.label]
                data = {name: _read(recipe, place, read) for name, recipe in recipes.items()}
                results = replace(results, data=results.data or data_facts(data["private"]))
                first = study.recipe(study.row(row.start), size, seed=seed) if row.start else None
                start = None if first is None else (first, _read(first, place, read))
                cell = _tried(study, row, seed, recipes, data, place, start=start)
            results = replace(results, cells=(*results.cells, cell))
    return results


def _not_here(row: Row, seed: int) -> Cell:
    named = " and ".join(f"'{name}'" for name in row.missing)
    return Cell(row=row.label, seed=seed, error=f"needs the defense {named}, which this version does not have")


def _read(recipe: Recipe, workplace: Workplace, read: dict[object, Data]) -> Data:
    """Read the pictures of a recipe, once for all recipes that ask for the same, and draw the same game from them."""
    others = recipe.pretraining.source if recipe.pretraining else None
    key = (recipe.source, recipe.data, recipe.membership, recipe.inversion.public, others)
    if key not in read:
        read[key] = read_data(recipe, workplace)
    return read[key]


def _tried(
    study: Study,
    row: Row,
    seed: int,
    recipes: Mapping[str, Recipe],
    data: Mapping[str, Data],
    workplace: Workplace,
    *,
    start: tuple[Recipe, Data] | None,
) -> Cell:
    """Run one cell; whatever goes wrong in it is written down, since others wait."""
    recipe = hashlib.sha256(recipes["private"].text.encode()).hexdigest()
    try:
        if start is not None:
            weights = train_recipe(*start, workplace)[1].weights
            recipes = {name: replace(one, split=replace(one.split, weights=weights)) for name, one in recipes.items()}
        made = _run(study, recipes, data, workplace)
        return replace(made, row=row.label, seed=seed, recipe=recipe, data=data_facts(data["private"]))
    except SfumatoError as error:
        return Cell(row=row.label, seed=seed, recipe=recipe, error=str(error))
    except Exception as error:  # a device out of memory, a defect of one method: the other cells are worth having
        return Cell(row=row.label, seed=seed, recipe=recipe, error=f"{type(error).__name__}: {error}")


def _run(study: Study, recipes: Mapping[str, Recipe], data: Mapping[str, Data], workplace: Workplace) -> Cell:
    """Return the numbers of a cell."""
    if {column.source for column in study.columns} <= _UNATTACKED:
        return _trained(study, recipes["private"], data["private"], workplace)
    audits = {}
    for auxiliary, recipe in recipes.items():
        audits[auxiliary], stage = audit_recipe(recipe, data[auxiliary], workplace)
    audit = audits["private"]
    return Cell(
        row="",
        seed=0,
        target=stage.key,
        facts=audit.target,
        accuracy=audit.accuracy,
        utility=audit.utility,
        attacks={auxiliary: made.attacks for auxiliary, made in audits.items()},
        membership=_without_curves(audit.membership),
        inversion=kept(audit.inversion),
        training=_training(stage),
        certificates=audit.certificates,
        pictures=_pictures(audit, study),
        traces=_traces(study, recipes["private"], data["private"], audit.membership, workplace),
        hardware=audit.hardware,
    )


def _trained(study: Study, recipe: Recipe, data: Data, workplace: Workplace) -> Cell:
    """Return the numbers of a cell that nobody attacks."""
    target, stage = train_recipe(recipe, data, workplace)
    took = _milliseconds(target, data) if any(column.key == "milliseconds" for column in study.columns) else {}
    known = stage.facts()["utility"]
    assert isinstance(known, dict)  # noqa: S101 -- as `conclude` writes it
    utility = {name: Interval(**reached) for name, reached in known.items()}
    return Cell(
        row="",
        seed=0,
        target=stage.key,
        facts=facts(target, data),
        accuracy=next(iter(utility.values())),
        utility=utility,
        training=_training(stage),
        milliseconds=took,
        traces=_traces(study, recipe, data, None, workplace),
        hardware=hardware(workplace.device),
    )


def _training(stage: Stage) -> Training:
    """Return what training a target cost."""
    known = stage.facts()
    return Training(sum(epoch.seconds for epoch in _history(stage)), int(str(known["parameters"])))


def _history(stage: Stage) -> list[EpochFacts]:
    """Return what the epochs of a target's training came to."""
    epochs = stage.facts()["epochs"]
    assert isinstance(epochs, list)  # noqa: S101 -- as `conclude` writes it
    return [EpochFacts(**epoch) for epoch in epochs]


def _traces(study: Study, recipe: Recipe, data: Data, membership: Membership | None, workplace: Workplace) -> dict[str, Trace]:
    """Take the traces of a study."""
    if not study.keys.traces:
        return {}
    target, stage = train_recipe(recipe, data, workplace)  # found: it was trained before
    of_weights = any(read_trace(name).attack in recipe.inverting for name in study.keys.traces)
    classes, judged = judged_pictures(recipe, target, stage, data, workplace) if of_weights else (None, ())
    made = {one.attack: one for one in judged}
    return record(study.keys.traces, Subject(target, data, _history(stage), membership, recipe.seed, classes, made))


def _without_curves(membership: Membership | None) -> Membership | None:
    """Leave out what no study shows and what is in the stages: hundreds of points for each attack of each cell."""
    if membership is None:
        return None
    return replace(membership, results=tuple(replace(result, roc=Roc((), ())) for result in membership.results))


def _pictures(audit: Audit, study: Study) -> dict[str, tuple[str, ...]]:
    """Return what was sent at inference time and what each attack made of it, or of classes, as PNG in base64."""
    chosen = ("only", study.keys.selection)
    shown = [exhibit for exhibit in audit.exhibits if exhibit.part == "inference" and exhibit.selection in chosen]
    count = study.keys.pictures
    sent = {exhibit.attack or "sent": tuple(png(one) for one in exhibit.pixels[:count]) for exhibit in shown if count}
    return {**sent, **gallery(audit.inversion.gallery if audit.inversion else (), count)}


def _milliseconds(target: Target, data: Data) -> dict[str, float]:
    """Return the mean wall time of a batch in the head and in the tail."""
    x = torch.rand(TIMED_BATCH, *data.shape, generator=generator(0, "timed")).to(target.device)
    with torch.no_grad(), eval_mode(target):
        z = target.features(x)
        return {
            "head": _timed(lambda: target.features(x), target.device),
            "tail": _timed(lambda: target.split.tail(z.clone()), target.device),  # a tail may work in place
        }


def _timed(work: Callable[[], object], device: torch.device) -> float:
    def done() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(3):
        work()
    start = done()
    for _ in range(TIMED):
        work()
    return 1000 * (done() - start) / TIMED


def _unless_found(watch: NamedWatch | None) -> NamedWatch | None:
    """Return a watch that is not told of what was computed before, which in a second run is nearly everything."""
    if watch is None:
        return None
    return lambda name, done, total: None if name.endswith("(found)") else watch(name, done, total)
