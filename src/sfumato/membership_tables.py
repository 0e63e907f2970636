# SPDX-License-Identifier: Apache-2.0
"""What audits found of the predictions, and what pruning left of a model, as tables: rows of text. Nothing is measured here.

Example:
    >>> show_bound(Bound(0.071, 0.05, 0.097), ".1f")
    '7.1 % (5.0 to 9.7)'
    >>> show_bound(Bound(None, None, None, "too few non-members (500): 0.1 % false alarms need at least 10,000"), ".2f")
    'too few non-members (500)'
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from sfumato.inversion_tables import inversion_rows
from sfumato.membership_types import Bound, Membership, MembershipResult, Slice
from sfumato.quantity import show_bytes
from sfumato.tables import Row, percent, show_interval, show_number, show_share, table
from sfumato.types import Audit, Compression, Interval

SLICE_COLUMNS = ("Slice", "Members", "Non-members", "Accuracy gap", "AUC", "Balanced accuracy")
"""Headings of `slice_table`."""
EPSILON = (
    "Epsilon takes the examples as drawn independently of each other, which for one model is an idealization, and each bound "
    "holds at 95 % by itself: the largest of several does not."
)
"""What to keep in mind beside a table with the bounds on epsilon."""

_Cell = Callable[[MembershipResult], str]


class _Measure(NamedTuple):
    """A number of an attack: how it is written, and how large it is, or None where the largest of several means nothing."""

    show: _Cell
    size: Callable[[MembershipResult], float] | None


_NUMBERS: Mapping[str, _Measure] = {
    "AUC": _Measure(lambda result: show_interval(result.auc, ".3f"), lambda result: result.auc.value),
    "TPR at 1 % FPR": _Measure(lambda result: show_bound(result.tpr_at_1, ".1f"), lambda result: share_of(result.tpr_at_1)),
    "TPR at 0.1 % FPR": _Measure(lambda result: show_bound(result.tpr_at_01, ".2f"), lambda result: share_of(result.tpr_at_01)),
    "Balanced accuracy": _Measure(
        lambda result: show_share(result.balanced_accuracy), lambda result: result.balanced_accuracy.value
    ),
    "Epsilon at least": _Measure(lambda result: show_number(result.epsilon, ".2f"), None),
}
_HOW: Mapping[str, _Cell] = {
    "References": lambda result: show_references(result),
    "Access": lambda result: result.access,
    "Members + non-members": lambda result: f"{result.members:,} + {result.nonmembers:,}",
}
_COSTS: Mapping[str, _Cell] = {
    "Seconds": lambda result: f"{result.seconds:,.1f}",
    "Queries": lambda result: f"{result.queries:,}",
}


def show_bound(bound: Bound, form: str) -> str:
    """Write a share in [0, 1] as a percentage with its 95 % interval, or in a few words why it is not quoted.

    Args:
        bound: the share.
        form: a format specification, such as ".1f".
    """
    if bound.value is None or bound.low is None or bound.high is None:
        return bound.missing.partition(":")[0] or "not quoted"  # the cell of a table has no room for what would do it
    return show_interval(percent(Interval(bound.value, bound.low, bound.high)), form, " %")


def share_of(bound: Bound) -> float:
    """Return a share for comparing: one that is not quoted is below all others."""
    return -1.0 if bound.value is None else bound.value


def show_references(result: MembershipResult) -> str:
    """Write how many reference models an attack used, and whether they came about as the target did."""
    if not result.references:
        return "none"
    return f"{result.references:,}, {'adaptive' if result.adaptive else 'NOT ADAPTIVE'}"


def turns_of(result: MembershipResult) -> str:
    """Return ", 16 models in turn" where so many were attacked, and "" where the target was."""
    return f", {result.targets:,} models in turn" if result.targets > 1 else ""


def named(result: MembershipResult) -> str:
    """Name an attack, such as "lira", or "lira, 16 models in turn" where these were attacked in place of the target."""
    return result.name + turns_of(result)


def ordered(membership: Membership) -> list[MembershipResult]:
    """Return the results of all attacks and seeds, those on the target before those over models in turn.

    Of each kind the strongest goes first, and an AUC that is not a number last.
    """

    def key(result: MembershipResult) -> tuple[bool, float]:
        return result.targets > 1, math.inf if math.isnan(result.auc.value) else -result.auc.value

    return sorted(membership.results, key=key)


def judged(membership: Membership) -> list[MembershipResult]:
    """Return the results that the target is judged by, `ordered`: those on it, or without any those over models in turn."""
    results = ordered(membership)
    return [result for result in results if result.targets <= 1] or results


def in_turn(membership: Membership) -> list[MembershipResult]:
    """Return the results over models in turn, `ordered`, where there are others to judge the target by."""
    return ordered(membership)[len(judged(membership)) :]


def membership_columns(membership: Membership) -> tuple[str, ...]:
    """Return the headings of `membership_table`: that of the label, then one for each cell."""
    return ("Attack", *_cells(membership))


def membership_table(membership: Membership) -> list[Row]:
    """Return every attack on the predictions, those on the target first, and of these the strongest.

    Args:
        membership: the record.

    Returns:
        One row for each attack and seed, and for each over models in turn; `membership_columns` gives the headings.
    """
    cells = _cells(membership).values()
    return [Row(named(result), tuple(cell(result) for cell in cells)) for result in ordered(membership)]


def brief_table(membership: Membership) -> tuple[tuple[str, ...], list[Row]]:
    """Return what of `membership_table` fits a terminal: a number, and its interval on the line below.

    Args:
        membership: the record.

    Returns:
        The headings, that of the label first, and one row for each attack and seed.

    Example:
        >>> brief_table(Membership((), 9, 9, 0, (Interval(1, 1, 1), Interval(1, 1, 1)), 0, "", (), (0,), {}, "cpu"))[0][:2]
        ('attack', 'AUC')
    """
    several = len({result.seed for result in membership.results}) > 1
    headings = (
        "attack",
        "AUC",
        "TPR at\n1 % FPR",
        "TPR at\n0.1 % FPR",
        "balanced\naccuracy",
        "epsilon\nat least",
        "refer-\nences",
    )
    rows = [
        Row(
            "\n".join(
                [
                    f"{result.name}{f', {result.seed}' if several else ''}",
                    *([turns_of(result).removeprefix(", ")] if turns_of(result) else []),
                    f"{result.members:,} + {result.nonmembers:,}",
                ]
            ),
            (*(_stacked(measure.show(result)) for measure in _NUMBERS.values()), show_references(result).replace(", ", "\n")),
        )
        for result in ordered(membership)
    ]
    return headings, rows


def _stacked(cell: str) -> str:
    value, _, interval = cell.partition(" (")
    return f"{value}\n{interval.removesuffix(')').replace(' to ', '–')}".rstrip()


def _cells(membership: Membership) -> dict[str, _Cell]:
    """Return the cells of an attack by their headings; seeds have one only where there are several."""
    seeds: dict[str, _Cell] = {"Seed": lambda result: str(result.seed)}
    several = len({result.seed for result in membership.results}) > 1
    numbers = {label: measure.show for label, measure in _NUMBERS.items()}
    return {**numbers, **_HOW, **(seeds if several else {}), **_COSTS}


def slice_table(slices: Mapping[str, Slice]) -> list[Row]:
    """Return how well an attack did on each slice of the examples, the most exposed first.

    Args:
        slices: by name.

    Returns:
        One row for each slice; `SLICE_COLUMNS` gives the headings.
    """
    exposed = sorted(slices.items(), key=lambda pair: math.inf if math.isnan(pair[1].auc.value) else -pair[1].auc.value)
    return [
        Row(
            name,
            (
                f"{one.members:,}",
                f"{one.nonmembers:,}",
                f"{show_number(100 * one.gap, '+.1f')} points",
                show_interval(one.auc, ".3f"),
                show_share(one.balanced_accuracy),
            ),
        )
        for name, one in exposed
    ]


def membership_rows(memberships: Sequence[Membership | None]) -> list[Row]:
    """Return the headline numbers of the predictions, one column for each audit.

    Args:
        memberships: of each audit; None where the predictions were not asked about.

    Returns:
        The strongest attack; the largest of each share, with the attack where that is another one; the bound on epsilon of the
        strongest attack; what the gap attack reaches, the accuracy on either side, and how many examples there were. All of the
        target, and over models in turn only where it was not attacked. Empty where no predictions were asked about.
    """
    if not any(memberships):
        return []
    asked: Mapping[str, Callable[[Membership], str]] = {
        "Strongest attack on predictions": _strongest,
        **{label: partial(_headline, measure) for label, measure in _NUMBERS.items()},
        "Gap attack, balanced accuracy": lambda found: f"{show_number(100 * found.gap, '.1f')} %",
        "Accuracy on members": lambda found: show_share(found.accuracy[0]),
        "Accuracy on non-members": lambda found: show_share(found.accuracy[1]),
        "Members + non-members": lambda found: f"{found.members:,} + {found.nonmembers:,}",
    }
    return [
        Row(label, tuple("not asked" if found is None else cell(found) for found in memberships)) for label, cell in asked.items()
    ]


def _strongest(membership: Membership) -> str:
    result = membership.strongest()
    return "not run" if result is None else describe_membership(result)


def _headline(measure: _Measure, membership: Membership) -> str:
    """Write the largest of a number, and by which attack where that is not the strongest: an adversary may choose."""
    strongest = membership.strongest()
    if strongest is None:
        return "not run"
    if measure.size is None:
        return f"{measure.show(strongest)} by {named(strongest)}"
    result = max(judged(membership), key=measure.size)
    if measure.size(result) <= measure.size(strongest) or named(result) == named(strongest):
        return measure.show(strongest)
    value, parenthesis, interval = measure.show(result).partition(" (")
    return f"{value} by {named(result)}{parenthesis}{interval}"


def describe_membership(result: MembershipResult) -> str:
    """Name an attack on the predictions with its seed and its references, such as "lira, seed 0 (16 references, adaptive)"."""
    kind = "adaptive" if result.adaptive else "NOT ADAPTIVE"
    used = (
        f" ({result.references:,} {'reference' if result.references == 1 else 'references'}, {kind})" if result.references else ""
    )
    return f"{named(result)}, seed {result.seed}{used}"


def headline_table(audits: Sequence[Audit]) -> list[Row]:
    """Return the headline numbers of audits, those of predictions and weights included, one column for each audit.

    Args:
        audits: one or several; `columns` gives the headings of their columns.

    Example:
        >>> headline_table([])[0].label
        'Accuracy'
    """
    asked = membership_rows([audit.membership for audit in audits]), inversion_rows([audit.inversion for audit in audits])
    return table(audits, [*asked[0], *asked[1]])


def compression_table(audits: Sequence[Audit]) -> list[Row]:
    """Return what pruning left of each target, one column for each audit; empty where none was pruned.

    Args:
        audits: one or several.

    Example:
        >>> compression_table([])
        []
    """
    pruned = [audit.target.compression for audit in audits]
    if not any(pruned):
        return []
    counts: Mapping[str, Callable[[Compression], str]] = {
        "Weights that may be pruned": lambda one: f"{one.weights:,}",
        "Weights kept": lambda one: f"{one.kept:,}",
        "Ratio of weights": lambda one: f"{show_number(one.ratio, ',.2f')} ×",
        "Bytes with every zero": lambda one: show_bytes(one.bytes_dense),
        "Bytes on disk": lambda one: show_bytes(one.bytes_stored),
        "MACs with every weight": lambda one: f"{one.macs_dense:,}",
        "MACs with a weight that is not zero": lambda one: f"{one.macs_kept:,}",
        "Milliseconds per picture, before → after": _milliseconds,
    }
    return [Row(label, tuple("not pruned" if one is None else cell(one) for one in pruned)) for label, cell in counts.items()]


def _milliseconds(compression: Compression) -> str:
    if compression.milliseconds is None:
        return "not measured"
    before, after = compression.milliseconds
    return f"{show_number(before, '#.3g')} → {show_number(after, '#.3g')}"
