# SPDX-License-Identifier: Apache-2.0
"""How attacks on weights, their judge and its distances are put into words.

Example:
    >>> show_distance(412.4)
    '412'
"""

from __future__ import annotations

from sfumato.inversion_types import EvaluatorFacts, InversionResult
from sfumato.tables import show_interval, show_number, show_share
from sfumato.types import Interval

JUDGED = "Top-1 and top-5 are as the evaluator sees the pictures; the target's confidence is its own. Intervals are over classes."
"""What to keep in mind beside a table of attacks."""


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
