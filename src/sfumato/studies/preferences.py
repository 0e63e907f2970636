# SPDX-License-Identifier: Apache-2.0
"""Which of two rows people found closer to the real pictures, and how sure that is.

Source: ho2024tldmi, Appendix G and Figure 9 (share of the answers for each defense); clopper1934.
Equations: none.
Departures: intervals, of which the paper has none. The exact one takes answers as independent, which those of several people on
one pair are not; the second draws classes again with all answers on them, and is the one to trust where people were several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch

from sfumato import markdown
from sfumato.metrics.interval import ratio_interval
from sfumato.metrics.proportion import exact_share
from sfumato.plain import plain
from sfumato.seeds import generator
from sfumato.studies.answers import Answer, Outcome
from sfumato.studies.pairs import PairFacts
from sfumato.tables import Row
from sfumato.types import Interval

PUBLISHED = {"BiDO": 87.1, "TL-DMI + BiDO": 12.9}
"""Percent of the answers for each defense in the paper: KEDMI on CelebA, 300 classes, ten people a pair. The figure that was read
is damaged: 12.9 is what 87.1 leaves."""

HEADINGS = ("participant", "{first}", "{second}", "can't tell", "time over", "not shown")


@dataclass(frozen=True)
class Tally:
    """What one participant answered, in pairs.

    Attributes:
        participant: who.
        first: closer on the first row.
        second: closer on the second.
        skipped: those of which the participant could not tell.
        over: those of which the time was over.
        left: those that were not answered yet.
    """

    participant: str
    first: int
    second: int
    skipped: int
    over: int
    left: int


@dataclass(frozen=True)
class Preference:
    """What the answers on pairs come to.

    Attributes:
        facts: what the pairs are.
        tallies: one for each participant, in the order in which they came.
        first: answers for the first row.
        second: answers for the second row.
        share: of the first row among the answers, [0, 1], exact 95 % interval; None without an answer.
        over_classes: the same share, 95 % bootstrap interval over classes; None without an answer.
        p_value: two-sided and exact, of a share that is a half; None without an answer.
        left: share of the answers that took what was on the left, exact 95 % interval; None without an answer.
    """

    facts: PairFacts
    tallies: tuple[Tally, ...]
    first: int
    second: int
    share: Interval | None = None
    over_classes: Interval | None = None
    p_value: float | None = None
    left: Interval | None = None


def preference(facts: PairFacts, answers: Sequence[Answer]) -> Preference:
    """Count answers. Only a participant's first answer on a pair counts, and pairs without an answer are left out.

    Args:
        facts: what the pairs are.
        answers: in the order in which they were stored.

    Example:
        >>> facts = PairFacts("", "small", "smoke", "digits", ("plain", "noise"), "gmi", 0, (3, 5))
        >>> said = [Answer("anna", pair, "first", "second", 4.0, "") for pair in (0, 1)]
        >>> found = preference(facts, said)
        >>> found.share, found.p_value
        (Interval(value=1.0, low=0.15811388300841897, high=1.0), 0.5)
    """
    once: dict[tuple[str, int], Answer] = {}
    for answer in answers:
        once.setdefault((answer.participant, answer.pair), answer)
    chosen = [answer for answer in once.values() if answer.outcome in ("first", "second")]
    names = list(dict.fromkeys(answer.participant for answer in once.values()))
    tallies = tuple(_tally(name, [one for one in once.values() if one.participant == name], len(facts.classes)) for name in names)
    first = sum(answer.outcome == "first" for answer in chosen)
    if not chosen:
        return Preference(facts, tallies, 0, 0)
    return Preference(
        facts,
        tallies,
        first,
        len(chosen) - first,
        share=exact_share(first, len(chosen)),
        over_classes=_over_classes(chosen, facts),
        p_value=binomial_p(first, len(chosen)),
        left=exact_share(sum(answer.outcome == answer.left for answer in chosen), len(chosen)),
    )


def _tally(name: str, own: Sequence[Answer], pairs: int) -> Tally:
    first, second, skipped, over = (sum(answer.outcome == what for answer in own) for what in get_args(Outcome))
    return Tally(name, first, second, skipped, over, pairs - len(own))


def _over_classes(chosen: Sequence[Answer], facts: PairFacts) -> Interval:
    first, total = torch.zeros(2, len(facts.classes), dtype=torch.float64)
    for answer in chosen:
        total[answer.pair] += 1
        first[answer.pair] += answer.outcome == "first"
    answered = total > 0
    return ratio_interval(first[answered], total[answered], generator(facts.seed, "pairs", "intervals"))


def binomial_p(count: int, total: int) -> float:
    """Return the two-sided exact p-value of a share that is a half.

    Args:
        count: successes, 0 to total.
        total: trials, at least 1.

    Example:
        >>> binomial_p(5, 5), binomial_p(2, 4)
        (0.0625, 1.0)
    """
    far = max(count, total - count)
    tail = sum(math.comb(total, number) for number in range(far, total + 1))  # integers: exact at any number of answers
    return float(min(1.0, 2 * tail / 2**total))


def tally_table(found: Preference) -> tuple[list[str], list[Row]]:
    """Return a table with a row for each participant, and one for all of them.

    Args:
        found: what the answers come to.
    """
    names = dict(zip(("first", "second"), found.facts.rows, strict=True))
    rows = [Row(one.participant, tuple(map(str, _counts(one)))) for one in found.tallies]
    if len(rows) > 1:
        sums = (sum(column) for column in zip(*map(_counts, found.tallies), strict=True))
        rows.append(Row("all", tuple(map(str, sums))))
    return [heading.format(**names) for heading in HEADINGS], rows


def _counts(one: Tally) -> tuple[int, ...]:
    return one.first, one.second, one.skipped, one.over, one.left


def sentences(found: Preference) -> list[str]:
    """Say what the answers come to, how sure that is, and what the paper has.

    Args:
        found: what the answers come to.
    """
    facts, (first, second) = found.facts, found.facts.rows
    what = f"{len(facts.classes):,} classes of {facts.data}, a reconstruction by {facts.attack} on each row, seed {facts.seed}."
    missed = [
        f"{facts.attack} did not get to {count:,} of them on '{row}': what was shown there is the prior's."
        for row, count in zip(facts.rows, facts.unreached, strict=True)
        if count
    ]
    if found.share is None or found.over_classes is None or found.left is None or found.p_value is None:
        return [what, *missed, "Nobody has chosen a picture yet.", published(facts)]
    total = found.first + found.second
    return [
        what,
        *missed,
        f"'{first}' was taken for closer to the real picture in {found.first:,} of {total:,} answers, {_percent(found.share)} "
        f"(exact binomial), and '{second}' in {100 - 100 * found.share.value:.1f} %; who is closer leaks more.",
        f"Two-sided exact p-value of no preference: {_p(found.p_value)}.",
        f"Over classes drawn again with all their answers: {_percent(found.over_classes)} (bootstrap).",
        "The exact interval and the p-value take each participant's answer on each pair as independent. Those of several "
        "participants on one pair are not: with more than one, trust the interval over classes.",
        "Pairs without an answer are left out.",
        f"The picture on the left was taken in {_percent(found.left)}.",
        published(facts),
    ]


def published(facts: PairFacts) -> str:
    """Say what the paper found.

    Args:
        facts: what the pairs are.
    """
    said = " and ".join(
        f"{share} % {'of the answers ' * (not place)}for {row}" for place, (row, share) in enumerate(PUBLISHED.items())
    )
    same = "" if set(facts.rows) == set(PUBLISHED) else ", other rows than these"
    return f"The paper (ho2024tldmi, Figure 9) has {said}{same}: KEDMI on CelebA, 300 classes, ten people a pair."


def to_json(found: Preference) -> dict[str, object]:
    """Return the record of what the answers come to.

    Args:
        found: what the answers come to.
    """
    values = plain(found)
    assert isinstance(values, dict)  # noqa: S101 -- a record becomes a dictionary
    return {"format": 1, **values, "published_percent": dict(PUBLISHED)}


def to_markdown(found: Preference) -> str:
    """Write what the answers come to as Markdown.

    Args:
        found: what the answers come to.
    """
    headings, rows = tally_table(found)
    told = [heading if place else "" for place, heading in enumerate(headings)]
    first, second = found.facts.rows
    title = markdown.escape(f"Which is closer, {first} or {second}?")
    return "\n\n".join([f"# {title}", *map(markdown.escape, sentences(found)), markdown.table(told, rows)]) + "\n"


def _percent(share: Interval) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
