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
from sfumato.inversion_words import Leak, describe_evaluator, leak_of, too_few
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
        Sentences: what a prior reaches alone where that is more than any attack; the strongest attack against chance and against
        picking from a prior, the target's own confidence, who judges, and classes that an attack did not get to. Where the
        evaluator is below its gate, that nothing can be concluded, and why.
    """
    if not found.evaluator.trusted:
        return [_refused(found)]
    result, leak = found.strongest(), leak_of(found)
    judge = describe_evaluator(found.evaluator)
    if result is None or leak is None:
        return ["No attack was run on the weights: this audit says nothing about what they show of the classes.", judge]
    attack = [_found(found, result), *_beside_prior(found, result)]
    if leak.prior:
        attack = [_picked(found, leak), f"{_found(found, result)} {_beside_picking(found, result, leak)}"]
    said = [*attack, _confidence(result), judge]
    return [*said, *inversion_reservations([""], [found])]


def _refused(found: Inversion) -> str:
    return (
        f"Nothing is concluded about the weights. {describe_evaluator(found.evaluator)} Who "
        "cannot name true pictures of the classes cannot say whether a reconstruction shows one: train the evaluator on more "
        "pictures or for longer, or choose another architecture."
    )


def _picked(found: Inversion, leak: Leak) -> str:
    """Lead with what needs no attack: a search that does worse protects nobody."""
    chance = _against_chance(found, leak.share, len(found.results) + len(found.priors))
    return (
        f"Without any search, whoever picks of the pictures of the prior '{leak.prior}' those that the target is surest of "
        f"already gets this far: of these pictures of {found.identities:,} classes the evaluator takes {show_share(leak.share)} "
        f"for the class; {chance}."
    )


def _found(found: Inversion, result: InversionResult) -> str:
    shown = f"of its pictures of {found.identities:,} classes the evaluator takes {show_share(result.top1)} for the class"
    chance = _against_chance(found, result.top1, len(found.results))
    return f"The strongest attack on the weights ({result.name}, which sees the {result.access}): {shown}; {chance}."


def _against_chance(found: Inversion, share: Interval, attempts: int) -> str:
    """Hold the best of several attempts against chance."""
    chance = f"{show_number(100 * found.chance, '.1f')} %"
    if beyond(share, found.chance, attempts):
        return f"chance is {chance}"
    picked = f" where the best of {attempts} was picked" if share.low > found.chance else ""
    return f"no better than chance, {chance}{picked}"


def _beside_picking(found: Inversion, result: InversionResult, leak: Leak) -> str:
    if result.top1.high < leak.share.low:
        return "That is less than picking alone reaches: its search loses what an adversary has without it."
    return f"{too_few(found.identities)} its search adds to picking alone or loses by it."


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
    return [f"{alone}; {too_few(found.identities)} the search adds anything."]


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
        Sentences. The most that each audit found is compared, by an attack or by picking from a prior. Where an evaluator is
        below its gate, that nothing can be compared. Where the 95 % intervals overlap, that the classes are too few to tell.
        Always who judged, and what of the difference may come from elsewhere.
    """
    paid = [f"{subject} {cost}."] if cost else []
    if old is None or new is None:
        return [*paid, _NOT_ASKED]
    doubted = [found for found in (old, new) if not found.evaluator.trusted]
    if doubted:
        return [*paid, *dict.fromkeys(_refused(found) for found in doubted)]
    before, after = old.strongest(), new.strongest()
    first, second = leak_of(old), leak_of(new)
    if before is None or after is None or first is None or second is None:
        return [*paid, _NOT_ASKED]
    changed = _change(subject, first.share, second.share, too_few(old.identities, new.identities))
    differ = first.by != second.by or before.access != after.access
    end = f"({_pair(first, second, differ=differ)}; {_chances(old, new)}){f', and {cost}' if cost else ''}."
    return [
        f"{changed} {end}",
        *([_searched(before, after)] if first.prior or second.prior else []),
        *_believed(before, after),
        _judges(old, new),
        *_elsewhere(old, new),
    ]


def _change(subject: str, before: Interval, after: Interval, unknown: str) -> str:
    if after.high < before.low:
        return f"{subject} lowers the accuracy of attacks on the weights"
    if after.low > before.high:
        return f"{subject} raises the accuracy of attacks on the weights"
    return f"{subject}: {unknown} it changes the accuracy of attacks on the weights"


def _pair(before: Leak, after: Leak, *, differ: bool) -> str:
    ends = (f"{_short(one.share)}{f' by {one.by}' if differ else ''}" for one in (before, after))
    return " → ".join(ends) + ("" if _moved(before.share, after.share) else ", the intervals overlap")


def _searched(before: InversionResult, after: InversionResult) -> str:
    """Say what the attacks reach where picking from a prior reaches more."""
    ends = " → ".join(f"{show_share(one.top1)} by {one.name}" for one in (before, after))
    return f"Picking from the prior alone, which any adversary can do, counts as an attack here; the searches reach {ends}."


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
            f"The target stays as sure of the attacks' pictures ({ends}): more of them are false positives, which convince "
            "nobody but it."
        ]
    return [f"The target's own confidence in the attacks' pictures: {ends}."]


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
