# SPDX-License-Identifier: Apache-2.0
"""Evidence and attacks in, a `Membership` out: what the predictions of a model say of who was in its training set.

Evidence is stored answers: an audit trains no target and no reference model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.attacks.naming import Named, named_attacks, names_of
from sfumato.attacks.predictions.base import Answers, Evidence, MembershipAttack, References
from sfumato.attacks.predictions.threshold import Threshold
from sfumato.audit import hardware as name_hardware
from sfumato.audit import versions
from sfumato.data.answers import read_answers
from sfumato.data.known import draw_known
from sfumato.errors import ConfigError
from sfumato.membership_types import Membership, MembershipResult
from sfumato.metrics.proportion import exact_share
from sfumato.seeds import generator
from sfumato.trials import Slices, answered_right, ask, measure, pool
from sfumato.types import Interval
from sfumato.untested import untested

DEFAULT = ("loss", "modified-entropy", "confidence", "entropy", "gap", "nasr")
"""Attacks on a table of answers, where none is named; and the loss with a threshold for each class."""
PER_CLASS = "loss-per-class"
"""What that one is called."""
LEAST = 2
"""Members, and non-members, that an attack learns from at least."""

_SHARED = "how well the attacks do where nobody is on both sides: {:,} of the non-members have the pixels of a member"
_ONLY_ANSWERS = "what the features or the weights of the model give away: only answers were there"


def run_membership_attack(
    name: str, attack: MembershipAttack, evidence: Evidence, member: Tensor, *, slices: Slices | None = None
) -> MembershipResult:
    """Run one attack on one target and measure it.

    Args:
        name: that it gets in the report.
        attack: the attack.
        evidence: what the adversary holds of N examples.
        member: (N,), bool: which of them the target was trained on.
        slices: examples to measure by themselves, beside each class.

    Returns:
        The measures, of the examples that the adversary does not know where the attack learns from known ones.

    Raises:
        ConfigError: the evidence lacks what the attack needs, or a slice is of another shape.
        DataError: fewer than 2 members or 2 non-members are asked about.

    Example:
        >>> from sfumato.attacks.predictions.threshold import Gap
        >>> logits = torch.eye(2).repeat(6, 1).unsqueeze(1)
        >>> evidence = Evidence(target=Answers(logits), labels=torch.tensor([0, 1] * 3 + [1, 0] * 3))
        >>> run_membership_attack("gap", Gap(), evidence, torch.arange(12) < 6).auc.value
        1.0
    """
    trials = ask(attack, evidence, member, slices or {})
    return measure(name, attack, trials, evidence)


def leave_one_out(
    name: str,
    attack: MembershipAttack,
    references: References,
    labels: Tensor,
    *,
    seed: int = 0,
    known: float = 0.5,
    slices: Slices | None = None,
) -> MembershipResult:
    """Let each reference model in turn be the target, and the others its references; measure the attack on all of them together.

    K targets are asked K times as much as one: enough for few false alarms. The intervals are about these examples, with their
    membership drawn anew, and not about others.

    Args:
        name: that it gets in the report.
        attack: the attack.
        references: K models.
        labels: (N,), int64: of the examples.
        seed: of the attack.
        known: share of the examples whose membership the adversary knows, where the attack learns from them.
        slices: examples to measure by themselves, beside each class.

    Returns:
        The measures over K targets.

    Raises:
        ConfigError: there are too few references for the attack, or it needs what they lack, or a slice is of another shape.
        DataError: fewer than 2 members or 2 non-members are asked about.

    Example:
        >>> from sfumato.attacks.predictions.threshold import Gap
        >>> answers = Answers(torch.eye(2).repeat(6, 1).unsqueeze(1))
        >>> references = References((answers, answers), torch.arange(24).view(2, 12) % 12 < 6)
        >>> leave_one_out("gap", Gap(), references, torch.tensor([0, 1] * 3 + [1, 0] * 3)).targets
        2
    """
    if not len(references):
        raise ConfigError("leave_one_out needs reference models to attack, found none; train some: references = 16")
    found, cases = [], []
    for place, answers in enumerate(references.answers):
        member, others = references.keep[place], references.without(place)
        told = draw_known(member, labels, known, generator(seed, "known", place))
        cases.append(Evidence(target=answers, labels=labels, references=others if len(others) else None, known=told, seed=seed))
        found.append(ask(attack, cases[-1], member, slices or {}))
    return replace(measure(name, attack, pool(found), cases[0]), targets=len(found))


def audit_evidence(
    evidence: Evidence,
    member: Tensor,
    attacks: Mapping[str, MembershipAttack],
    *,
    seeds: Sequence[int] = (0,),
    slices: Slices | None = None,
    title: str = "",
    hardware: str = "",
    canaries: str = "",
    duplicates: int = 0,
    shared: int = 0,
) -> Membership:
    """Run attacks on one target and say what they found, and what they do not say.

    Args:
        evidence: what the adversary holds of N examples; its own seed does not count.
        member: (N,), bool: which of them the target was trained on.
        attacks: by the name that they get in the report.
        seeds: run every attack with each of these.
        slices: examples to measure by themselves, beside each class.
        title: a line for people.
        hardware: the device that the answers come from; the one that attacks run on where empty.
        canaries: kind of the examples, where they are canaries.
        duplicates: examples that repeat one of their own side.
        shared: non-members that are the same as a member.

    Returns:
        The audit.

    Raises:
        ConfigError: there is no attack, seeds are not different numbers, the evidence lacks what an attack needs, or member or a
            slice is of another shape.
        DataError: fewer than 2 members or 2 non-members are asked about.

    Example:
        >>> from sfumato.attacks.predictions.threshold import Gap
        >>> logits = torch.eye(2).repeat(6, 1).unsqueeze(1)
        >>> evidence = Evidence(target=Answers(logits), labels=torch.tensor([0, 1] * 3 + [1, 0] * 3))
        >>> audit_evidence(evidence, torch.arange(12) < 6, {"gap": Gap()}).gap
        1.0
    """
    if not attacks:
        raise ConfigError(f"an audit needs at least one attack; known: {', '.join(names_of(MembershipAttack))}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be one or more different numbers, got {list(seeds)}")
    results = tuple(
        run_membership_attack(name, attack, replace(evidence, seed=seed), member, slices=slices)
        for seed in seeds
        for name, attack in attacks.items()
    )
    return assemble_membership(
        evidence,
        member,
        attacks,
        results,
        seeds=seeds,
        slices=tuple(slices or ()),
        title=title,
        hardware=hardware,
        canaries=canaries,
        duplicates=duplicates,
        shared=shared,
    )


def assemble_membership(
    evidence: Evidence,
    member: Tensor,
    attacks: Mapping[str, MembershipAttack],
    results: Sequence[MembershipResult],
    *,
    seeds: Sequence[int],
    slices: Collection[str] = (),
    title: str = "",
    hardware: str = "",
    canaries: str = "",
    duplicates: int = 0,
    shared: int = 0,
) -> Membership:
    """Put together an audit of what each of its attacks came to.

    Args:
        evidence: what the adversary held of N examples.
        member: (N,), bool: which of them the target was trained on.
        attacks: those that were run, by name.
        results: of each attack with each seed.
        seeds: of the attacks.
        slices: names of what was to be measured by itself, beside each class.
        title: a line for people.
        hardware: the device that the answers come from; the one that attacks run on where empty.
        canaries: kind of the examples, where they are canaries.
        duplicates: examples that repeat one of their own side.
        shared: non-members that are the same as a member.
    """
    right, inside = answered_right(evidence), member.cpu()
    return Membership(
        results=tuple(results),
        members=int(inside.sum()),
        nonmembers=int((~inside).sum()),
        duplicates=duplicates,
        accuracy=(_share(right[inside]), _share(right[~inside])),
        references=len(evidence.references or ()),
        canaries=canaries,
        untested=(*untested(evidence, attacks, results, slices), *([_SHARED.format(shared)] if shared else [])),
        seeds=tuple(seeds),
        versions=versions(),
        hardware=hardware or name_hardware(evidence.labels.device),
        title=title,
    )


def audit_answers(
    members: str | Path,
    nonmembers: str | Path,
    *,
    attacks: Named[MembershipAttack] | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    known: float = 0.5,
    title: str = "",
) -> Membership:
    """Audit a model that only exists as a table of its answers.

    Args:
        members: an .npz file about examples that it was trained on, see `sfumato.data.answers`.
        nonmembers: an .npz file about others.
        attacks: names in the registry, attacks of your own making, or attacks by the name that they get in the report; None for
            those of `DEFAULT` and the loss with a threshold for each class, as far as enough examples are known for each.
        seed: of everything random, where `seeds` is None.
        seeds: run every attack with each of these; the first draws the known examples.
        known: share of the examples whose membership the adversary knows, [0, 1), for attacks that learn; they are measured on
            the others, and all other attacks on all.
        title: a line for people; the names of the files where empty.

    Returns:
        The audit.

    Raises:
        MissingDataError: a file is not there.
        DataError: a file cannot be used, or members are among the non-members; see `read_answers`.
        UnknownNameError: an attack that the registry does not know.
        ConfigError: an attack needs more than a table, there is no attack, or seeds or known are out of range.

    Example:
        >>> import numpy as np
        >>> from tempfile import mkdtemp
        >>> paths = [Path(mkdtemp()) / name for name in ("members.npz", "nonmembers.npz")]
        >>> for seed, path in enumerate(paths):
        ...     np.savez(path, logits=np.random.default_rng(seed).normal(size=(40, 2)), labels=np.arange(40) % 2)
        >>> [result.name for result in audit_answers(*paths, attacks=["loss", "gap"]).results]
        ['loss', 'gap']
    """
    table, seeds = read_answers(members, nonmembers), tuple(seeds if seeds is not None else (seed,))
    told = draw_known(table.member, table.labels, known, generator(seeds[0] if seeds else seed, "known"))
    evidence = Evidence(target=Answers(table.logits), labels=table.labels, known=told if known else None)
    found = audit_evidence(
        evidence,
        table.member,
        default_attacks(evidence) if attacks is None else named_attacks(attacks, MembershipAttack),
        seeds=seeds,
        title=title or f"the answers in {Path(members).name} and {Path(nonmembers).name}",
        duplicates=table.duplicates,
    )
    coarse = (
        f"whether examples are on both sides: {table.shared} rows of the non-members equal one of a member, as coarse answers do"
    )
    return replace(found, untested=(*found.untested, *([coarse] if table.shared else []), _ONLY_ANSWERS))


def default_attacks(evidence: Evidence) -> dict[str, MembershipAttack]:
    """Return the attacks that need no more than answers, and of those that learn from known examples, those that can.

    Args:
        evidence: what the adversary holds.
    """
    named = named_attacks(DEFAULT, MembershipAttack)
    known = evidence.known if evidence.known is not None else torch.full_like(evidence.labels, -1)
    counts = torch.stack([evidence.labels[known == side].bincount(minlength=evidence.classes) for side in (0, 1)])
    if int(counts.sum(1).min()) < LEAST:
        del named["nasr"]
    if int(counts[:, evidence.labels.unique()].min()) >= LEAST:
        named[PER_CLASS] = Threshold(statistic="loss", per_class=True, thresholds="known")
    return named


def _share(right: Tensor) -> Interval:
    return exact_share(int(right.sum()), len(right))
