# SPDX-License-Identifier: Apache-2.0
"""Attacks on weights in a study: what is kept of them, which number a column shows, and what is to be said beside the table.

Where the evaluator of a cell is below its gate, what it says of reconstructions is no number of the study, and a remark says why.
What others see is shown nevertheless: the target's own confidence, the user's embedding, the reader of factors, the costs.

Source: ho2024tldmi, Tables 3 to 7 (natural accuracy beside attack accuracy and distances) and Appendix D.2 (what they are).
Equations: none.
Departures: the paper prints the standard deviation of attack accuracy over repeated draws; here intervals are over classes, and
over seeds where there are several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sfumato.inversion_record import InversionRecord, record_of
from sfumato.inversion_types import EvaluatorFacts, Inversion, InversionExhibit
from sfumato.inversion_words import describe_evaluator
from sfumato.png import png
from sfumato.studies.column import Column
from sfumato.studies.results import Results
from sfumato.studies.study import spread
from sfumato.tables import show_number
from sfumato.types import Interval

_OTHERS = ("confidence", "named", "face", "factors", "unreached", "queries", "seconds")
"""Numbers of an attack that are not the evaluator's."""


def kept(inversion: Inversion | None) -> InversionRecord | None:
    """Return what a study keeps: no gallery and no class by itself, which would be most of its record."""
    if inversion is None:
        return None
    return record_of(replace(inversion, results=tuple(replace(one, classes=()) for one in inversion.results), gallery=()))


def gallery(exhibits: Sequence[InversionExhibit], count: int) -> dict[str, tuple[str, ...]]:
    """Return what each attack ranks first of some classes, as PNG in base64, by attack; never a private picture.

    Args:
        exhibits: the classes of an audit, the most exposed first.
        count: how many to show, spread evenly from the most exposed to the least.
    """
    shown = [exhibits[place] for place in sorted(spread(len(exhibits), count))] if count else []
    attacks = dict.fromkeys(one.attack for exhibit in shown for one in exhibit.rebuilt)
    return {
        name: tuple(png(one.pixels[0]) for exhibit in shown for one in exhibit.rebuilt if one.attack == name) for name in attacks
    }


def numbers(found: InversionRecord, column: Column) -> list[Interval]:
    """Return what a column shows of attacks on weights: of an attack a number for each of its seeds in this audit.

    Args:
        found: of one cell.
        column: of an attack on weights, its evaluator, a yardstick or a prior.

    Returns:
        Nothing where that was not measured, or where the evaluator is below its gate and the number is its own.
    """
    if column.source == "evaluator":
        return [found.evaluator.accuracy]
    if not (found.evaluator.trusted or (column.source == "inversion" and column.key in _OTHERS)):
        return []
    sources: Mapping[str, Iterable[object]] = {
        "inversion": (one for one in found.attacks if one.name == column.name),
        "prior": (one for one in found.priors if one.kind == column.name),
        "yardstick": (found.floor if column.name == "floor" else found.ceiling,),
    }
    values = (getattr(one, column.key) for one in sources[column.source])
    return [value if isinstance(value, Interval) else Interval(value, value, value) for value in values if value is not None]


def judged(results: Results) -> list[str]:
    """Say how reconstructions were judged, by whom, and what chance is; nothing where no weights were attacked.

    Args:
        results: of the study.
    """
    found = [cell.inversion for cell in results.cells if cell.inversion is not None]
    if not found:
        return []
    judges: dict[tuple[str, float], list[EvaluatorFacts]] = {}
    for one in found:
        judges.setdefault((one.evaluator.model, one.evaluator.gate), []).append(one.evaluator)
    classes = (
        f"{one.identities:,} of {one.outputs:,} classes were attacked; chance is {show_number(100 / one.outputs, '.1f')} %."
        for one in found
    )
    return [
        "Attack accuracy is the share of the pictures that an attack made of a class which the evaluator takes for that class.",
        *map(_told, judges.values()),
        *dict.fromkeys(classes),
        "Distances are in the evaluator's embedding, the KNN distance squared; higher is safer.",
    ]


def _told(judges: Sequence[EvaluatorFacts]) -> str:
    """Say how well the evaluators of several cells, all of one model, know the classes."""
    shares = [100 * one.accuracy.value for one in judges]
    if len(judges) == 1 or not min(shares) < max(shares):
        return describe_evaluator(judges[0])
    least, most, gate = (show_number(share, ".1f") for share in (min(shares), max(shares), 100 * judges[0].gate))
    return (
        f"The evaluators ({judges[0].model}) are right on {least} to {most} % of held-out pictures of the classes, with "
        f"a gate of {gate} %."
    )


def reservations(results: Results) -> list[str]:
    """Say of which cells the evaluator's numbers are left out, and which attacks did not get to every class.

    Args:
        results: of the study.
    """
    said: list[str] = []
    missed: dict[str, tuple[int, int]] = {}
    for cell in results.cells:
        if cell.inversion is None:
            continue
        if not cell.inversion.evaluator.trusted:
            told = describe_evaluator(cell.inversion.evaluator)
            said.append(f"{cell.row}, seed {cell.seed}: {told} What it says of reconstructions is left out")
        for one in cell.inversion.attacks:
            if one.unreached:
                missed[one.name] = max(missed.get(one.name, (0, 0)), (one.unreached, one.identities))
    return said + [
        f"{name} did not get to every class, up to {most:,} of {identities:,} in one audit: these count as failures"
        for name, (most, identities) in missed.items()
    ]
