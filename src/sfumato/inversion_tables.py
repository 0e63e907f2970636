# SPDX-License-Identifier: Apache-2.0
"""What audits found of the weights as tables: rows of text. Nothing is measured here.

Example:
    >>> CLASS_COLUMNS[:3]
    ('Class', 'Attack accuracy', "Target's confidence")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from sfumato.inversion_types import ClassResult, Inversion, InversionResult, PriorFacts, Yardstick
from sfumato.inversion_words import describe_inversion, leak_of, show_distance
from sfumato.tables import Row, show_number, show_share

CLASS_COLUMNS = ("Class", "Attack accuracy", "Target's confidence", "KNN distance", "Reached")
"""Headings of `class_table`."""
PRIOR_COLUMNS = ("Prior", "Initial selection alone", "Fréchet distance to public", "Training steps", "Source")
"""Headings of `prior_table`."""
REFUSED = "not concluded"
"""What stands in place of a number where the evaluator is below its gate."""
_NONE = "–"

_Cell = Callable[[InversionResult], str]
_Mark = Callable[[Yardstick], str]


_NUMBERS: Mapping[str, _Cell] = {
    "Top-1": lambda result: show_share(result.top1),
    "Top-5": lambda result: show_share(result.top5),
    "Target's confidence": lambda result: show_share(result.confidence),
    "Named by target": lambda result: show_share(result.named),
    "KNN distance": lambda result: show_distance(result.knn),
    "Centroid distance": lambda result: show_distance(result.centroid),
    "Fréchet": lambda result: show_distance(result.frechet),
    "KID": lambda result: show_distance(result.kid),
}
_OPTIONAL: Mapping[str, Callable[[InversionResult], str | None]] = {
    "Face distance": lambda result: None if result.face is None else show_distance(result.face),
    "Factor error": lambda result: None if result.factors is None else show_share(result.factors),
}
_MARKS: Mapping[str, _Mark] = {
    "Top-1": lambda mark: show_share(mark.top1),
    "KNN distance": lambda mark: show_distance(mark.knn),
    "Centroid distance": lambda mark: show_distance(mark.centroid),
    "Fréchet": lambda mark: show_distance(mark.frechet),
    "KID": lambda mark: show_distance(mark.kid),
    "Factor error": lambda mark: show_share(mark.factors) if mark.factors else _NONE,
}
_HOW: Mapping[str, _Cell] = {
    "Access": lambda result: result.access,
    "Prior": lambda result: result.prior,
    "Seconds": lambda result: f"{result.seconds:,.1f}",
    "Queries": lambda result: f"{result.queries:,}",
}


def ordered(found: Inversion) -> list[InversionResult]:
    """Return the results of all attacks and seeds, the highest attack accuracy first, and what is no number last."""

    def key(result: InversionResult) -> float:
        return math.inf if math.isnan(result.top1.value) else -result.top1.value

    return sorted(found.results, key=key)


def prior_of(found: Inversion, result: InversionResult) -> PriorFacts | None:
    """Return the facts of the prior that an attack searched, or None where there are none."""
    return next((prior for prior in found.priors if prior.kind == result.prior), None)


def inversion_columns(found: Inversion) -> tuple[str, ...]:
    """Return the headings of `inversion_table`: that of the label, then one for each cell."""
    return ("Attack", *_cells(found))


def inversion_table(found: Inversion) -> list[Row]:
    """Return every attack on the weights, the strongest first, between the two yardsticks.

    Args:
        found: the record.

    Returns:
        Private pictures that were held out, as near as an adversary gets; one row for each attack and seed; public pictures, as
        if nothing leaked. `inversion_columns` gives the headings.
    """
    cells = _cells(found)
    attacks = [Row(result.name, tuple(cell(result) for cell in cells.values())) for result in ordered(found)]

    def marked(label: str, mark: Yardstick) -> Row:
        return Row(label, tuple(_MARKS[name](mark) if name in _MARKS else _NONE for name in cells))

    return [marked("private pictures, held out", found.floor), *attacks, marked("public pictures", found.ceiling)]


def _cells(found: Inversion) -> dict[str, _Cell]:
    """Return the cells of an attack by their headings; those that only some audits measure are there where this one did."""

    def optional(cell: Callable[[InversionResult], str | None]) -> _Cell:
        return lambda result: cell(result) or "not measured"

    several = len({result.seed for result in found.results}) > 1
    seeds: dict[str, _Cell] = {"Seed": lambda result: str(result.seed)} if several else {}
    missed = any(result.unreached for result in found.results)
    reach: dict[str, _Cell] = {"Not reached": lambda result: f"{result.unreached:,} of {result.identities:,}"} if missed else {}
    known = {name: optional(cell) for name, cell in _OPTIONAL.items() if any(cell(result) for result in found.results)}
    return {**_NUMBERS, **known, **reach, **seeds, **_HOW}


def brief_table(found: Inversion) -> tuple[tuple[str, ...], list[Row]]:
    """Return what of `inversion_table` fits a terminal: a number, and its interval on the line below.

    Args:
        found: the record.

    Returns:
        The headings, that of the label first, and one row for each attack and seed.
    """
    several = len({result.seed for result in found.results}) > 1
    headings = ("attack", "top-1", "top-5", "target's\nconfidence", "KNN\ndistance", "prior\nalone", "not\nreached")
    rows = []
    for result in ordered(found):
        prior = prior_of(found, result)
        numbers = (
            show_share(result.top1),
            show_share(result.top5),
            show_share(result.confidence),
            show_distance(result.knn),
            "not known" if prior is None else show_share(prior.ceiling),
            f"{result.unreached:,} of {result.identities:,}",
        )
        label = f"{result.name}{f', {result.seed}' if several else ''}\n{result.access}, {result.prior}"
        rows.append(Row(label, tuple(map(_stacked, numbers))))
    return headings, rows


def _stacked(cell: str) -> str:
    value, _, interval = cell.partition(" (")
    return f"{value}\n{interval.removesuffix(')').replace(' to ', '–')}".rstrip()


def class_table(classes: Sequence[ClassResult]) -> list[Row]:
    """Return how well an attack did on each class, the most exposed first.

    Args:
        classes: each by itself.

    Returns:
        One row for each class; `CLASS_COLUMNS` gives the headings.
    """
    exposed = sorted(classes, key=lambda one: (-one.accuracy, one.distance))
    return [
        Row(
            one.name,
            (
                f"{show_number(100 * one.accuracy, '.0f')} %",
                f"{show_number(100 * one.confidence, '.1f')} %",
                show_distance(one.distance),
                "yes" if one.reached else "no",
            ),
        )
        for one in exposed
    ]


def prior_table(priors: Sequence[PriorFacts]) -> list[Row]:
    """Return how good the priors are, one row for each; `PRIOR_COLUMNS` gives the headings."""
    return [
        Row(
            prior.kind,
            (show_share(prior.ceiling), show_distance(prior.frechet), f"{prior.steps:,}", prior.source or "not recorded"),
        )
        for prior in priors
    ]


def inversion_rows(inversions: Sequence[Inversion | None]) -> list[Row]:
    """Return the headline numbers of the weights, one column for each audit.

    Args:
        inversions: of each audit; None where the weights were not asked about.

    Returns:
        The strongest attack, or the prior that reaches more alone and then the strongest search; its numbers beside chance and
        what its prior reaches alone, the target's own confidence, and always the evaluator's accuracy. Below its gate nothing
        but these two is quoted. Empty where nobody asked.
    """
    if not any(inversions):
        return []
    leaks = [leak_of(found) for found in inversions if found]
    search: dict[str, Callable[[Inversion], str]] = {}
    if any(leak and leak.prior for leak in leaks):
        search = {"Strongest search": _of_strongest(lambda found, result: describe_inversion(result))}
    cells: Mapping[str, Callable[[Inversion], str]] = {
        "Strongest attack on weights": _of_strongest(_leading),
        **search,
        "Attack accuracy, top-1": _of_strongest(lambda found, result: show_share(result.top1)),
        "Attack accuracy, top-5": _of_strongest(lambda found, result: show_share(result.top5)),
        "Chance": lambda found: f"{show_number(100 * found.chance, '.1f')} %",
        "Prior alone": _of_strongest(_prior_alone),
        "Target's own confidence": _own_confidence,
        "KNN distance": _of_strongest(lambda found, result: show_distance(result.knn)),
        "Evaluator, held out": lambda found: show_share(found.evaluator.accuracy),
        "Classes attacked": lambda found: f"{found.identities:,} of {found.outputs:,}",
    }
    return [
        Row(label, tuple("not asked" if found is None else cell(found) for found in inversions)) for label, cell in cells.items()
    ]


def _of_strongest(cell: Callable[[Inversion, InversionResult], str]) -> Callable[[Inversion], str]:
    """Return what writes a number of the strongest attack, or why there is none."""

    def written(found: Inversion) -> str:
        if not found.evaluator.trusted:
            return REFUSED
        result = found.strongest()
        return "not run" if result is None else cell(found, result)

    return written


def _leading(found: Inversion, result: InversionResult) -> str:
    leak = leak_of(found)
    return f"{leak.by}, {show_share(leak.share)}" if leak and leak.prior else describe_inversion(result)


def _own_confidence(found: Inversion) -> str:
    """Write the confidence in the pictures of the strongest attack; where nobody can tell which that is, the highest of all."""
    strongest = found.strongest()
    if strongest is not None:
        return show_share(strongest.confidence)
    surest = max(found.results, key=lambda result: result.confidence.value, default=None)
    return "not run" if surest is None else f"{show_share(surest.confidence)}, {surest.name}"


def _prior_alone(found: Inversion, result: InversionResult) -> str:
    prior = prior_of(found, result)
    return "not measured" if prior is None else show_share(prior.ceiling)
