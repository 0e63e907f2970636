# SPDX-License-Identifier: Apache-2.0
"""What an audit found of the predictions, as JSON. What `membership_to_json` writes, `membership_from_json` reads back.

Example:
    >>> accuracy = Interval(0.99, 0.98, 1.0), Interval(0.88, 0.85, 0.9)
    >>> found = Membership((), 500, 500, 0, accuracy, 0, "", (), (0,), {}, "cpu", "a table of logits")
    >>> membership_from_json(membership_to_json(found)) == found
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from pydantic import TypeAdapter

from sfumato.membership_types import Membership, MembershipResult
from sfumato.plain import plain, validate
from sfumato.types import Interval


@dataclass(frozen=True)
class _Accuracy:
    members: Interval
    nonmembers: Interval


@dataclass(frozen=True)
class MembershipRecord:
    """The JSON of a `Membership`, key by key; `attacks` are its results."""

    format: Literal[1]
    surface: Literal["predictions"]
    title: str
    members: int
    nonmembers: int
    attacks: tuple[MembershipResult, ...]
    duplicates: int
    accuracy: _Accuracy
    references: int
    canaries: str
    untested: tuple[str, ...]
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    hardware: str

    def opened(self) -> Membership:
        """Return what was recorded."""
        return Membership(
            results=self.attacks,
            members=self.members,
            nonmembers=self.nonmembers,
            duplicates=self.duplicates,
            accuracy=(self.accuracy.members, self.accuracy.nonmembers),
            references=self.references,
            canaries=self.canaries,
            untested=self.untested,
            seeds=self.seeds,
            versions=self.versions,
            hardware=self.hardware,
            title=self.title,
        )


_RECORD = TypeAdapter(MembershipRecord)
_RESULT = TypeAdapter(MembershipResult)


def record_of(membership: Membership) -> MembershipRecord:
    """Return a `Membership` in the form that JSON holds."""
    return MembershipRecord(
        format=1,
        surface="predictions",
        title=membership.title,
        members=membership.members,
        nonmembers=membership.nonmembers,
        attacks=membership.results,
        duplicates=membership.duplicates,
        accuracy=_Accuracy(*membership.accuracy),
        references=membership.references,
        canaries=membership.canaries,
        untested=membership.untested,
        seeds=membership.seeds,
        versions=membership.versions,
        hardware=membership.hardware,
    )


def membership_to_json(membership: Membership) -> dict[str, object]:
    """Turn what was found of the predictions into plain values that `json.dumps` takes.

    Args:
        membership: the record.

    Returns:
        The keys `format` (1), `surface` ("predictions"), `title`, `members`, `nonmembers`, `attacks`, `duplicates`, `accuracy`
        (of the target on the `members` and the `nonmembers`), `references`, `canaries`, `untested`, `seeds`, `versions` and
        `hardware`. Each of `attacks` has the attributes of `MembershipResult`: `auc`, `balanced_accuracy` and `advantage` with
        `value`, `low` and `high`; `tpr_at_1` and `tpr_at_01` with these, which are null where the number is refused, and
        `missing`, which says why. A number that is not finite is the string "NaN", "Infinity" or "-Infinity".
    """
    record = record_of(membership)
    return {item.name: plain(getattr(record, item.name)) for item in fields(record)}


def membership_from_json(record: object) -> Membership:
    """Make a record of the values that `membership_to_json` returned.

    Args:
        record: as `json.loads` gives it; keys that this version does not know are passed over.

    Raises:
        ConfigError: it is another record.

    Example:
        >>> membership_from_json({"format": 1, "surface": "features"})
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected the record of a membership audit, format 1; found: surface: Input should be ...
    """
    advice = "make one with: sfumato audit --logits members.npz nonmembers.npz --json"
    return validate(_RECORD, record, "the record of a membership audit, format 1", advice).opened()


def membership_result_to_json(result: MembershipResult) -> dict[str, object]:
    """Turn what one attack came to with one seed into plain values that `json.dumps` takes."""
    return {item.name: plain(getattr(result, item.name)) for item in fields(result)}


def membership_result_from_json(record: object) -> MembershipResult:
    """Make a result of the values that `membership_result_to_json` returned.

    Args:
        record: as `json.loads` gives it.

    Raises:
        ConfigError: it is another record.

    Example:
        >>> membership_result_from_json({})
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected the result of a membership attack; found: name: Field required; ...
    """
    return validate(_RESULT, record, "the result of a membership attack", "remove the stage to compute it again")
