# SPDX-License-Identifier: Apache-2.0
"""What the numbers of the weights say, in plain English: what attacks rebuild, whether the judge may be believed, what changed.

Source: ho2024tldmi, Appendix B.2 (false positives: pictures that the target is sure of and that do not show the class).
Equations: none.
Departures: the paper reads false positives off histograms; here the mean confidence of the target stands beside attack accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfumato.inversion_tables import prior_of
from sfumato.inversion_types import Inversion, InversionResult
from sfumato.inversion_words import describe_evaluator, show_distance
from sfumato.membership_verdict import beyond
from sfumato.tables import show_number, show_share
from sfumato.types import Interval

_NOT_ASKED = "What the weights give away cannot be compared: not every audit has an attack on them."
_APART = 0.05  # of held-out accuracy: evaluators further apart than this do not judge alike


def inversion_verdict(names: Sequence[str], inversions: Sequence[Inversion]) -> list[str]:
    """Say what one audit found of the weights, or compare each of several with the first.

    Args:
        names: a heading for each.
        inversions: one or several.

    Example:
        >>> inversion_verdict([], [])
        []
    """
    if len(inversions) == 1:
        return inversion_alone(inversions[0])
    said = []
    for name, found in zip(names[1:], inversions[1:], strict=True):
        said += inversion_compared(f"Compared with “{names[0]}”, “{name}”", inversions[0], found)
    return [*said, *inversion_reservations(names, inversions)]


def inversion_alone(found: Inversion) -> list[str]:
    """Say what one audit found of the weights.

    Args:
        found: the record.

    Returns:
        Sentences: the strongest attack against chance and against what its prior reaches alone, the target's own confidence, who
        judges, and classes that an attack did not get to. Where the evaluator is below its gate, that nothing can be concluded,
        and why.
    """
    if not found.evaluator.trusted:
        return [_refused(found)]
    result = found.strongest()
    judge = describe_evaluator(found.evaluator)
    if result is None:
        return ["No attack was run on the weights: this audit says nothing about what they show of the classes.", judge]
    said = [_found(found, result), *_beside_prior(found, result), _confidence(result), judge]
    return [*said, *inversion_reservations([""], [found])]


def _refused(found: Inversion) -> str:
    return (
        f"Nothing is concluded about the weights. {describe_evaluator(found.evaluator)} Who "
        "cannot name true pictures of the classes cannot say whether a reconstruction shows one: train the evaluator on more "
        "pictures or for longer, or choose another architecture."
    )


def _found(found: Inversion, result: InversionResult) -> str:
    shown = f"of its pictures of {found.identities:,} classes the evaluator takes {show_share(result.top1)} for the class"
    chance = f"chance is {show_number(100 * found.chance, '.1f')} %"
    if not beyond(result.top1, found.chance, len(found.results)):
        picked = f" where the best of {len(found.results)} was picked" if result.top1.low > found.chance else ""
        chance = f"no better than chance, {show_number(100 * found.chance, '.1f')} %{picked}"
    return f"The strongest attack on the weights ({result.name}, which sees the {result.access}): {shown}; {chance}."


def _beside_prior(found: Inversion, result: InversionResult) -> list[str]:
    """Hold the attack against picking among the pictures that its prior makes anyhow."""
    prior = prior_of(found, result)
    if prior is None:
        return []
    alone = (
        f"Picking from what its prior makes the pictures that the target is surest of already reaches {show_share(prior.ceiling)}"
    )
    if result.top1.low > prior.ceiling.high:
        return [f"{alone}; the search adds the rest."]
    if result.top1.high < prior.ceiling.low:
        return [f"{alone}, which is more: the search of this attack loses what it starts from."]
    return [f"{alone}, and these classes cannot show that the search adds anything."]


def _confidence(result: InversionResult) -> str:
    """Hold what the target believes against what the evaluator sees."""
    sure = f"The target itself gives the class {show_share(result.confidence)} in these pictures"
    if result.confidence.low > result.top1.high:
        return f"{sure}, more than the evaluator does: some are false positives, which convince nobody but the target."
    return f"{sure}."


def inversion_compared(subject: str, old: Inversion | None, new: Inversion | None, cost: str = "") -> list[str]:
    """Say whether the weights show more or less than before.

    Args:
        subject: what made the difference, such as "Hardening".
        old: what was found before; None where nobody asked.
        new: what was found after.
        cost: what it costs in natural accuracy, as the end of the first sentence.

    Returns:
        Sentences. Where an evaluator is below its gate, that nothing can be compared. Where the 95 % intervals overlap, that
        these classes show no difference. Always who judged, and what of the difference may come from elsewhere.
    """
    paid = [f"{subject} {cost}."] if cost else []
    if old is None or new is None:
        return [*paid, _NOT_ASKED]
    doubted = [found for found in (old, new) if not found.evaluator.trusted]
    if doubted:
        return [*paid, *dict.fromkeys(_refused(found) for found in doubted)]
    before, after = old.strongest(), new.strongest()
    if before is None or after is None:
        return [*paid, _NOT_ASKED]
    end = f"({_pair(before, after)}; {_chances(old, new)}){f', and {cost}' if cost else ''}."
    return [
        f"{subject} {_change(before.top1, after.top1)} {end}",
        *_believed(before, after),
        _judges(old, new),
        *_elsewhere(old, new),
    ]


def _change(before: Interval, after: Interval) -> str:
    if after.high < before.low:
        return "lowers the accuracy of attacks on the weights"
    if after.low > before.high:
        return "raises the accuracy of attacks on the weights"
    return "makes no difference to the accuracy of attacks on the weights that these classes can show"


def _pair(before: InversionResult, after: InversionResult) -> str:
    differ = (before.name, before.access) != (after.name, after.access)
    ends = (f"{_short(one.top1)}{f' by {one.name}' if differ else ''}" for one in (before, after))
    return " → ".join(ends) + ("" if _moved(before.top1, after.top1) else ", the intervals overlap")


def _short(share: Interval) -> str:
    return f"{show_number(100 * share.value, '.1f')} %"


def _moved(before: Interval, after: Interval) -> bool:
    return after.high < before.low or after.low > before.high


def _chances(old: Inversion, new: Inversion) -> str:
    shares = list(dict.fromkeys(f"{show_number(100 * found.chance, '.1f')} %" for found in (old, new)))
    return f"chance {' → '.join(shares)}"


def _believed(before: InversionResult, after: InversionResult) -> list[str]:
    """Say that the target is as sure as before where the evaluator is not: what false positives look like."""
    ends = f"{_short(before.confidence)} → {_short(after.confidence)}"
    kept = after.confidence.high >= before.confidence.low
    if kept and after.top1.high < before.top1.low:
        return [
            f"The target stays as sure of the pictures ({ends}): more of them are false positives, which convince nobody but it."
        ]
    return [f"The target's own confidence in the pictures: {ends}."]


def _judges(old: Inversion, new: Inversion) -> str:
    if old.evaluator == new.evaluator:
        return describe_evaluator(new.evaluator)
    models = f"{old.evaluator.model} and {new.evaluator.model}"
    first, second = (show_share(found.evaluator.accuracy) for found in (old, new))
    return f"The evaluators ({models}) are right on {first} and on {second} of held-out pictures of the classes."


def _elsewhere(old: Inversion, new: Inversion) -> list[str]:
    """Say what of a difference may come from somewhere else than from the weights."""
    said = []
    judges = old.evaluator, new.evaluator
    if judges[0].model != judges[1].model or abs(judges[0].accuracy.value - judges[1].accuracy.value) > _APART:
        said.append("Not the same evaluator judged both, so part of the difference may come from who judges.")
    if (old.identities, old.outputs) != (new.identities, new.outputs):
        said.append("Not as many classes were attacked in both, so part of the difference may come from the classes.")
    names = [{result.name for result in found.results} for found in (old, new)]
    if names[0] != names[1]:
        only = ", ".join(sorted(names[0] ^ names[1]))
        said.append(f"Not both were attacked by {only}, so part of the difference may come from the attacks.")
    return said


def inversion_reservations(names: Sequence[str], inversions: Sequence[Inversion | None]) -> list[str]:
    """Say which classes attacks did not get to, and which pictures were left out.

    Args:
        names: a heading for each, or "" where there is only one.
        inversions: what was found; None where nobody asked.

    Example:
        >>> inversion_reservations([], [])
        []
    """
    missed: dict[str, list[str]] = {}
    for name, found in zip(names, inversions, strict=True):
        for result in found.results if found else ():
            if result.unreached:
                missed.setdefault(
                    f"{result.name} did not reach {result.unreached:,} of {result.identities:,} classes", []
                ).append(name)
    return [
        f"{what}{_owners(owners)}: within its budget it found no picture that the target takes for them. They count as failures; "
        "a larger budget may reach them."
        for what, owners in missed.items()
    ]


def _owners(names: Sequence[str]) -> str:
    """Return " of “before” and “after”", or "" where there is only one audit."""
    quoted = [f"“{name}”" for name in dict.fromkeys(names) if name]
    return f" of {' and '.join(quoted)}" if quoted else ""


def between(found: Inversion, result: InversionResult) -> str:
    """Say where the distance of an attack's pictures lies between the two yardsticks."""
    floor, ceiling = (show_distance(mark.knn) for mark in (found.floor, found.ceiling))
    return (
        f"The squared distance of the pictures by {result.name} to the nearest private picture of the class is "
        f"{show_distance(result.knn)}; private pictures that were held out come to {floor}, public ones to {ceiling}."
    )
