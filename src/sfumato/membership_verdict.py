# SPDX-License-Identifier: Apache-2.0
"""What the numbers of the predictions say, in plain English: how well members are told from others, and whether it got better."""

from __future__ import annotations

from collections.abc import Sequence

from sfumato.membership_tables import share_of, show_bound
from sfumato.tables import show_interval, show_number, show_share
from sfumato.types import Bound, Interval, Membership, MembershipResult

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
    return [*said, *reservations(names, memberships)]


def membership_alone(membership: Membership, on: str = "") -> list[str]:
    """Say what one audit found of the predictions.

    Args:
        membership: the record.
        on: what the attacks were on, such as " on the predictions", where there are others too.

    Returns:
        Sentences: the strongest attack, the attack that finds more at 1 % false alarms where that is another one, the yardstick
        that costs nothing, and what to keep in mind.
    """
    strongest = membership.strongest()
    if strongest is None:
        return ["No attack was run on the predictions: this audit says nothing about who can be told to have been trained on."]
    return [
        *_found(strongest, on),
        *_finds_more(membership, strongest),
        _yardstick(membership),
        *reservations([""], [membership]),
    ]


def _found(result: MembershipResult, on: str) -> list[str]:
    auc = f"AUC {show_interval(result.auc, '.3f')}"
    guess = "where 0.5 is a guess" if result.auc.low > 0.5 else "which is no better than a guess"
    if result.tpr_at_1.value is None:
        refused = f"How many members it finds at 1 % false alarms cannot be said: {result.tpr_at_1.missing or 'not quoted'}."
        return [f"The strongest attack{on} ({result.name}) tells members from non-members with {auc}, {guess}.", refused]
    share = show_bound(result.tpr_at_1, ".1f")
    return [f"The strongest attack{on} ({result.name}) finds {share} of the members at 1 % false alarms; {auc}, {guess}."]


def _finds_more(membership: Membership, strongest: MembershipResult) -> list[str]:
    """Name the attack that finds more members at few false alarms than the one with the largest AUC."""
    most = most_found(membership)
    if most is None or most.name == strongest.name or _share(most) <= (strongest.tpr_at_1.high or 0.0):
        return []  # a difference within the interval is not worth a sentence
    return [f"At 1 % false alarms {most.name} finds more members: {show_bound(most.tpr_at_1, '.1f')}."]


def _yardstick(membership: Membership) -> str:
    """Hold the attacks against the one that needs nothing but the label."""
    better = [result for result in membership.results if result.balanced_accuracy.low > membership.gap]
    free = (
        "Whoever takes for a member what the target names right already reaches balanced accuracy "
        f"{show_number(100 * membership.gap, '.1f')} % (the gap attack)"
    )
    if not better:
        return f"{free}, and these examples cannot show that any attack did better."
    best = max(better, key=lambda result: result.balanced_accuracy.value)
    return f"{free}; {best.name} reaches {show_share(best.balanced_accuracy)}."


def membership_compared(subject: str, old: Membership | None, new: Membership | None, cost: str = "") -> list[str]:
    """Say whether more or less leaks from the predictions than before.

    Args:
        subject: what made the difference, such as "Hardening".
        old: what was found before; None where nobody asked.
        new: what was found after.
        cost: what it costs, as the end of the first sentence.

    Returns:
        Sentences. Where the 95 % intervals overlap, both of the AUC and of the share found at 1 % false alarms, they say that
        these examples show no difference.
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
    return [f"{subject} {_change(moved)} {end}", gap, *_other_attacks(old, new)]


def _change(moved: Sequence[int]) -> str:
    up, down = any(one > 0 for one in moved), any(one < 0 for one in moved)
    if up and down:
        return "moves leakage from the predictions both ways"
    if up:
        return "increases leakage from the predictions"
    if down:
        return "lowers leakage from the predictions"
    return "makes no difference to leakage from the predictions that these examples can show"


def _pair(title: str, before: MembershipResult, after: MembershipResult, direction: int) -> str:
    """Write a number before and after, each with its attack where these differ: a stronger attack is no effect of a defense."""
    auc = title == "AUC"
    ends = [show_number(one.auc.value, ".3f") if auc else f"{show_number(100 * _share(one), '.1f')} %" for one in (before, after)]
    if before.name != after.name:
        ends = [f"{end} by {one.name}" for end, one in zip(ends, (before, after), strict=True)]
    return f"{title} {' → '.join(ends)}{'' if direction else ', the intervals overlap'}"


def _other_attacks(old: Membership, new: Membership) -> list[str]:
    """Say which attacks only one of two audits has."""
    first, second = ({result.name for result in found.results} for found in (old, new))
    if first == second:
        return []
    only = ", ".join(sorted(first ^ second))
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
        weaker = list(dict.fromkeys(result.name for result in found.results if not result.adaptive)) if found else []
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
    """Return the result that finds most members at 1 % false alarms, or None where no attack has enough non-members to say."""
    quoted = [result for result in membership.results if result.tpr_at_1.value is not None]
    return max(quoted, key=_share, default=None)


def _share(result: MembershipResult) -> float:
    return share_of(result.tpr_at_1)


def _interval(bound: Bound) -> Interval:
    value = bound.value or 0.0
    return Interval(value, value if bound.low is None else bound.low, value if bound.high is None else bound.high)


def _direction(before: Interval, after: Interval) -> int:
    """Return 1 where a number rose, -1 where it fell, 0 where the intervals overlap or are not numbers."""
    return int(after.low > before.high) - int(after.high < before.low)
