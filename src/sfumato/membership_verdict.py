# SPDX-License-Identifier: Apache-2.0
"""What the numbers of the predictions say, in plain English: how well members are told from others, and whether it got better."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from sfumato.membership_tables import in_turn, judged, named, share_of, show_bound
from sfumato.membership_types import Bound, Membership, MembershipResult
from sfumato.metrics.proportion import ALPHA, QUANTILE
from sfumato.tables import show_interval, show_number, show_share
from sfumato.types import Interval

_NOT_ASKED = "What the predictions give away cannot be compared: not every audit has an attack on them."


def membership_verdict(names: Sequence[str], memberships: Sequence[Membership]) -> list[str]:
    """Say what one audit found of the predictions, or compare each of several with the first.

    Args:
        names: a heading for each.
        memberships: one or several.

    Example:
        >>> membership_verdict([], [])
        []
    """
    if len(memberships) == 1:
        return membership_alone(memberships[0])
    said = []
    for name, membership in zip(names[1:], memberships[1:], strict=True):
        said += membership_compared(f"Compared with “{names[0]}”, “{name}”", memberships[0], membership)
    return [*said, *over_models(names, memberships), *reservations(names, memberships)]


def membership_alone(membership: Membership, on: str = "") -> list[str]:
    """Say what one audit found of the predictions.

    Args:
        membership: the record.
        on: what the attacks were on, such as " on the predictions", where there are others too.

    Returns:
        Sentences: the strongest attack, the attack that finds more at 1 % false alarms where that is another one, the yardstick
        that costs nothing, what is found over models in turn, and what to keep in mind.
    """
    strongest = membership.strongest()
    if strongest is None:
        return ["No attack was run on the predictions: this audit says nothing about who can be told to have been trained on."]
    return [
        *_found(strongest, on, membership),
        *_finds_more(membership, strongest),
        _yardstick(membership),
        *over_models([""], [membership]),
        *reservations([""], [membership]),
    ]


def _found(result: MembershipResult, on: str, membership: Membership) -> list[str]:
    auc, attacks = f"AUC {show_interval(result.auc, '.3f')}", len(judged(membership))
    if result.members < membership.members:
        auc += f" on the {result.members:,} + {result.nonmembers:,} examples that it was not told of"
    guess = "where 0.5 is a guess"
    if not beyond(result.auc, 0.5, attacks):
        guess = "which is no better than a guess" + (f" where the best of {attacks} was picked" if result.auc.low > 0.5 else "")
    if result.tpr_at_1.value is None:
        refused = _refused("1 %", result.tpr_at_1)
        return [f"The strongest attack{on} ({named(result)}) tells members from non-members with {auc}, {guess}.", refused]
    share = show_bound(result.tpr_at_1, ".1f")
    return [f"The strongest attack{on} ({named(result)}) finds {share} of the members at 1 % false alarms; {auc}, {guess}."]


def beyond(found: Interval, bound: float, attacks: int) -> bool:
    """Return whether the best of several attacks is above a bound, at 95 % confidence for all of them together.

    The interval is widened as Bonferroni's correction of a normal one is: the largest of several numbers is larger than one.

    Args:
        found: of that attack by itself.
        bound: to be above.
        attacks: how many there were to pick from.

    Example:
        >>> beyond(Interval(0.54, 0.505, 0.575), 0.5, 1), beyond(Interval(0.54, 0.505, 0.575), 0.5, 7)
        (True, False)
    """
    wider = NormalDist().inv_cdf(1 - ALPHA / 2 / max(1, attacks)) / QUANTILE
    return found.value - wider * (found.value - found.low) > bound


def _refused(alarms: str, bound: Bound) -> str:
    return f"How many members it finds at {alarms} false alarms cannot be said: {bound.missing or 'not quoted'}."


def over_models(names: Sequence[str], memberships: Sequence[Membership | None]) -> list[str]:
    """Say what the strongest attack over models in turn finds, where the target was attacked by itself too.

    Args:
        names: a heading for each, or "" where there is only one.
        memberships: what was found; None where nobody asked.

    Example:
        >>> over_models([], [])
        []
    """
    said = []
    for name, found in zip(names, memberships, strict=True):
        for result in in_turn(found)[:1] if found else []:
            over = f"{f'For “{name}”, over' if name else 'Over'} {result.targets:,} models in turn {result.name}"
            said.append(" ".join([f"{over} {_pooled(result)}", *_left_open(result), _kin(result)]))
    return said


def _pooled(result: MembershipResult) -> str:
    auc = f"AUC {show_interval(result.auc, '.3f')}"
    if result.tpr_at_1.value is None:
        return f"tells members from non-members with {auc}."
    found = f"finds {show_bound(result.tpr_at_1, '.1f')} of the members at 1 % false alarms"
    if result.tpr_at_01.value is None:
        return f"{found}; {auc}."
    few = f"{show_bound(result.tpr_at_01, '.2f')} at 0.1 %, which {result.nonmembers:,} non-members are enough to quote"
    return f"{found} and {few}; {auc}."


def _left_open(result: MembershipResult) -> list[str]:
    """Say of the largest share of false alarms that is not quoted why it is not."""
    shares = (("1 %", result.tpr_at_1), ("0.1 %", result.tpr_at_01))
    return [_refused(alarms, bound) for alarms, bound in shares if bound.value is None][:1]


def _kin(result: MembershipResult) -> str:
    """Say what the models that were attacked in turn have to do with the target."""
    if result.adaptive:
        return "These models came about as the target did: this speaks of models like it, and not of the target alone."
    return "These models did not come about as the target did, so this does not speak of the target."


def _finds_more(membership: Membership, strongest: MembershipResult) -> list[str]:
    """Name the attack that finds more members at few false alarms than the one with the largest AUC."""
    most = most_found(membership)
    if most is None or named(most) == named(strongest) or _share(most) <= (strongest.tpr_at_1.high or 0.0):
        return []  # a difference within the interval is not worth a sentence
    return [f"At 1 % false alarms {named(most)} finds more members: {show_bound(most.tpr_at_1, '.1f')}."]


def _yardstick(membership: Membership) -> str:
    """Hold the attacks against the one that needs nothing but the label."""
    attacks = judged(membership)
    better = [result for result in attacks if beyond(result.balanced_accuracy, membership.gap, len(attacks))]
    free = (
        "Whoever takes for a member what the target names right already reaches balanced accuracy "
        f"{show_number(100 * membership.gap, '.1f')} % (the gap attack)"
    )
    if not better:
        return f"{free}, and these examples cannot show that any attack did better."
    best = max(better, key=lambda result: result.balanced_accuracy.value)
    return f"{free}; {named(best)} reaches {show_share(best.balanced_accuracy)}."


def membership_compared(subject: str, old: Membership | None, new: Membership | None, cost: str = "") -> list[str]:
    """Say whether more or less leaks from the predictions than before.

    Args:
        subject: what made the difference, such as "Hardening".
        old: what was found before; None where nobody asked.
        new: what was found after.
        cost: what it costs, as the end of the first sentence.

    Returns:
        Sentences, about the targets as far as these were attacked. Where the 95 % intervals overlap, both of the AUC and of the
        share found at 1 % false alarms, they say that these examples show no difference. Where the side that less was found of
        was attacked by adversaries who do not adapt, they say that nobody can tell whether less leaks from it.
    """
    before, after = (None if found is None else found.strongest() for found in (old, new))
    if old is None or new is None or before is None or after is None:
        return [f"{subject} {cost}. {_NOT_ASKED}" if cost else _NOT_ASKED]
    moved, numbers = [_direction(before.auc, after.auc)], [_pair("AUC", before, after, _direction(before.auc, after.auc))]
    most = most_found(old), most_found(new)
    if most[0] is not None and most[1] is not None:
        moved.append(_direction(_interval(most[0].tpr_at_1), _interval(most[1].tpr_at_1)))
        numbers.append(_pair("found at 1 % false alarms", most[0], most[1], moved[-1]))
    end = f"({'; '.join(numbers)}){f' and {cost}' if cost else ''}."
    gap = (
        "The gap attack, which takes for a member what the target names right, goes from "
        f"{show_number(100 * old.gap, '.1f')} % to {show_number(100 * new.gap, '.1f')} % balanced accuracy."
    )
    doubt = _doubt(moved, old, new)
    return [f"{subject} {_change(moved, doubted=bool(doubt))} {end}", *doubt, gap, *_other_attacks(old, new)]


def _change(moved: Sequence[int], *, doubted: bool) -> str:
    up, down = any(one > 0 for one in moved), any(one < 0 for one in moved)
    what = "what the attacks on the predictions find" if doubted else "leakage from the predictions"
    if up and down:
        return f"moves {what} both ways"
    if up:
        return f"increases {what}"
    if down:
        return f"lowers {what}"
    return f"makes no difference to {what} that these examples can show"


def _doubt(moved: Sequence[int], old: Membership, new: Membership) -> list[str]:
    """Say that nobody can tell whether less leaks from a side that was attacked by adversaries who do not adapt.

    What they find is the least that leaks from it: it can show that more leaks, and never that less does.
    """
    said = []
    for found, differs, change in ((new, min(moved) < 0, "less"), (old, max(moved) > 0, "more")):
        weaker = _not_adaptive(judged(found))
        if differs and weaker:
            said.append(
                f"Whether {change} leaks from the predictions cannot be told: where less was found, attacks are NOT ADAPTIVE "
                f"({', '.join(weaker)}), and adaptive ones may find more."
            )
    return said


def _not_adaptive(results: Sequence[MembershipResult]) -> list[str]:
    """Return the names of the attacks whose reference models did not come about as the target did."""
    return list(dict.fromkeys(result.name for result in results if not result.adaptive))


def _pair(title: str, before: MembershipResult, after: MembershipResult, direction: int) -> str:
    """Write a number before and after, each with its attack where these differ: a stronger attack is no effect of a defense."""
    auc = title == "AUC"
    ends = [show_number(one.auc.value, ".3f") if auc else f"{show_number(100 * _share(one), '.1f')} %" for one in (before, after)]
    if named(before) != named(after) or before.targets > 1:
        ends = [f"{end} by {named(one)}" for end, one in zip(ends, (before, after), strict=True)]
    return f"{title} {' → '.join(ends)}{'' if direction else ', the intervals overlap'}"


def _other_attacks(old: Membership, new: Membership) -> list[str]:
    """Say which attacks only one of two audits has."""
    first, second = ({named(result) for result in judged(found)} for found in (old, new))
    if first == second:
        return []
    differ = sorted(first ^ second)
    only = ("; " if any(", " in one for one in differ) else ", ").join(differ)
    return [f"Not both were attacked by {only}, so part of the difference may come from the attacks."]


def reservations(names: Sequence[str], memberships: Sequence[Membership | None]) -> list[str]:
    """Say what makes numbers of the predictions less, or other, than they seem.

    Args:
        names: a heading for each, or "" where there is only one.
        memberships: what was found; None where nobody asked.

    Example:
        >>> reservations([], [])
        []
    """
    said = []
    for name, found in zip(names, memberships, strict=True):
        owner = f" “{name}”" if name else ""
        weaker = _not_adaptive(found.results) if found else []
        if weaker:
            said.append(
                f"NOT ADAPTIVE{owner and f' against{owner}'}: {', '.join(weaker)}. The reference models did not come about as "
                "the target did, so an adversary who trains them as it was trained may find more."
            )
        if found and found.canaries:
            said.append(
                f"The examples{owner and f' of{owner}'} are canaries ({found.canaries}): these numbers speak of the worst case, "
                "not of the average member."
            )
    return said


def most_found(membership: Membership) -> MembershipResult | None:
    """Return the result that the target is judged by and that finds most members at 1 % false alarms.

    None where no attack has enough non-members to say.
    """
    quoted = [result for result in judged(membership) if result.tpr_at_1.value is not None]
    return max(quoted, key=_share, default=None)


def _share(result: MembershipResult) -> float:
    return share_of(result.tpr_at_1)


def _interval(bound: Bound) -> Interval:
    value = bound.value or 0.0
    return Interval(value, value if bound.low is None else bound.low, value if bound.high is None else bound.high)


def _direction(before: Interval, after: Interval) -> int:
    """Return 1 where a number rose, -1 where it fell, 0 where the intervals overlap or are not numbers."""
    return int(after.low > before.high) - int(after.high < before.low)
