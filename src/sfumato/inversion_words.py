# SPDX-License-Identifier: Apache-2.0
"""How attacks on weights, their judge and its distances are put into words.

Example:
    >>> show_distance(412.4)
    '412'
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.inversion_types import EvaluatorFacts, Inversion, InversionResult
from sfumato.tables import show_interval, show_number, show_share
from sfumato.types import Interval

JUDGED = "Top-1 and top-5 are as the evaluator sees the pictures; the target's confidence is its own. Intervals are over classes."
"""What to keep in mind beside a table of attacks."""


@dataclass(frozen=True)
class Leak:
    """The most that an audit found, of all attacks and of all priors by themselves.

    Attributes:
        by: the attack, or the prior where picking among its pictures reaches more than every attack.
        share: of the pictures those that the evaluator takes for the class.
        prior: the kind of that prior, or "" where an attack reaches the most.
    """

    by: str
    share: Interval
    prior: str = ""


def leak_of(found: Inversion) -> Leak | None:
    """Return the most that an audit found: any adversary can pick among a prior's pictures, so a search that loses hides nothing.

    Args:
        found: the record.

    Returns:
        The strongest attack, or the prior that reaches more by itself; None without an attack, or where the evaluator is below
        its gate.
    """
    strongest = found.strongest()
    if strongest is None:
        return None
    best = Leak(strongest.name, strongest.top1)
    for prior in found.priors:
        if prior.ceiling.value > best.share.value:
            best = Leak(f"prior '{prior.kind}' alone", prior.ceiling, prior.kind)
    return best


def too_few(*counts: int) -> str:
    """Say that there were too few classes to tell something, which is not that there is nothing to tell.

    Example:
        >>> too_few(8, 20), too_few(1)
        ('8 and 20 classes are too few to tell whether', '1 class is too few to tell whether')
    """
    shown = " and ".join(f"{count:,}" for count in dict.fromkeys(counts))
    return f"{shown} {'class is' if set(counts) == {1} else 'classes are'} too few to tell whether"


def show_distance(number: float | Interval) -> str:
    """Write a distance in an embedding, of whatever scale that is, with its 95 % interval where there is one.

    Args:
        number: any float, or with its interval.

    Example:
        >>> show_distance(0.0125), show_distance(Interval(980.2, 960.0, 1002.5))
        ('0.0125', '980 (960 to 1,002)')
    """
    bounds = (number.value, number.low, number.high) if isinstance(number, Interval) else (number,)
    size = max(map(abs, bounds))
    form = ",.0f" if size >= 100 else ".1f" if size >= 10 else "#.3g"
    return show_interval(number, form) if isinstance(number, Interval) else show_number(number, form)


def describe_inversion(result: InversionResult) -> str:
    """Name an attack on the weights with its seed, what it sees and what it searches, such as "ppa, seed 0 (weights, style)"."""
    return f"{result.name}, seed {result.seed} ({result.access}, {result.prior})"


def describe_evaluator(evaluator: EvaluatorFacts) -> str:
    """Say who judges and how well, always: attack accuracy is worth what its judge is."""
    side = "above" if evaluator.trusted else "BELOW"
    gate = show_number(100 * evaluator.gate, ".1f")
    return (
        f"The evaluator ({evaluator.model}) is right on {show_share(evaluator.accuracy)} of held-out pictures of the classes, "
        f"{side} its gate of {gate} %."
    )


def warning(evaluator: EvaluatorFacts) -> str:
    """Say what the numbers of an audit are not worth, in a sentence, or "" where the evaluator may judge."""
    if evaluator.trusted:
        return ""
    return (
        f"The evaluator ({evaluator.model}) names {show_share(evaluator.accuracy)} of held-out pictures right, below its gate of "
        f"{show_number(100 * evaluator.gate, '.1f')} %: nothing is concluded from top-1, top-5, distances, Fréchet, KID and what "
        "a prior reaches alone; the target's own confidence needs no evaluator."
    )


def between(found: Inversion, result: InversionResult) -> str:
    """Say where the distance of an attack's pictures lies between the two yardsticks."""
    floor, ceiling = (show_distance(mark.knn) for mark in (found.floor, found.ceiling))
    return (
        f"The squared distance of the pictures by {result.name} to the nearest private picture of the class is "
        f"{show_distance(result.knn)}; private pictures that were held out come to {floor}, public ones to {ceiling}."
    )
