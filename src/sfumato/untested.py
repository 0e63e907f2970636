# SPDX-License-Identifier: Apache-2.0
"""What an audit of predictions says nothing about, a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

from sfumato import registry
from sfumato.attacks.naming import names_of
from sfumato.attacks.predictions.base import Evidence, MembershipAttack, Need
from sfumato.membership_types import MembershipResult
from sfumato.metrics.membership import FEWEST_OF_SLICE

_NEEDS: Mapping[Need, str] = {
    "references": "reference models",
    "known": "examples whose membership it knows",
    "sensitivity": "answers about perturbed examples",
    "oracle": "a target that answers new questions",
}


def untested(
    evidence: Evidence,
    attacks: Mapping[str, MembershipAttack],
    results: Sequence[MembershipResult],
    slices: Collection[str],
) -> tuple[str, ...]:
    """Say what an audit with some evidence and attacks says nothing about.

    Args:
        evidence: what the adversary held.
        attacks: those that were run, by name.
        results: of each attack with each seed.
        slices: the names of what was to be measured by itself, beside the classes.
    """
    return (
        *_left(evidence, attacks),
        *_references(evidence),
        *(["how much the attacks vary: each was run with one seed"] if len({result.seed for result in results}) == 1 else []),
        *(["other targets, trained the same way: one was attacked"] if all(result.targets == 1 for result in results) else []),
        *_slices(evidence, results, slices),
    )


def _left(evidence: Evidence, attacks: Mapping[str, MembershipAttack]) -> Iterable[str]:
    """Name the attacks of the registry that were not run, and what they lacked."""
    kinds = [type(attack) for attack in attacks.values()]
    for name in names_of(MembershipAttack):
        entry = registry.entry("attacks", name)
        made = cast(MembershipAttack, registry.create("attacks", name, {}))
        if name in attacks or made in attacks.values() or entry.load() in kinds:
            continue
        lacking = [words for need, words in _NEEDS.items() if need in made.needs and not _has(evidence, need)]
        yield f"the attack '{name}': {entry.summary}" + (f"; it needs {' and '.join(lacking)}" if lacking else "")


def _has(evidence: Evidence, need: Need) -> bool:
    """Tell whether evidence holds something."""
    if need == "references":
        return bool(evidence.references)
    return (evidence.target.sensitivity if need == "sensitivity" else getattr(evidence, need)) is not None


def _references(evidence: Evidence) -> Iterable[str]:
    if not evidence.references:
        yield "an adversary who compares with reference models: none was trained"
        return
    yield f"an adversary with more than {len(evidence.references)} reference models"
    if not evidence.references.adaptive:
        yield "an adversary who adapts: the reference models were trained without the defenses of the target"


def _slices(evidence: Evidence, results: Sequence[MembershipResult], slices: Collection[str]) -> Iterable[str]:
    """Name the slices, and count the classes, that no number was given of by some attack."""
    measured = set.intersection(*(set(result.slices) for result in results)) if results else set()
    fewest = f"at least {FEWEST_OF_SLICE} members and {FEWEST_OF_SLICE} non-members must be asked about"
    classes = [f"class {label}" for label in evidence.labels.unique().tolist()]
    if few := sum(name not in measured for name in classes):
        yield f"{few} of {len(classes)} classes by themselves: {fewest}"
    for name in slices:
        if name not in measured:
            yield f"the slice '{name}' by itself: {fewest}"
