# SPDX-License-Identifier: Apache-2.0
"""Ask an attack about examples, and measure what it says of them.

An attack is measured on the examples whose membership it was not told, and is given no more of the evidence than what its `needs`
names: the result says what was used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sfumato.attacks.predictions.base import Evidence, MembershipAttack
from sfumato.errors import ConfigError
from sfumato.membership_types import MembershipResult, Slice
from sfumato.metrics.membership import advantage, auc, balanced_accuracy, cross_fitted, epsilon_bound, slice_of, tpr_at
from sfumato.metrics.roc import roc
from sfumato.metrics.utility import hits
from sfumato.seeds import generator

Slices = Mapping[str, Tensor]
"""Examples to measure by themselves, (N,), bool, by name."""


@dataclass(frozen=True)
class Trials:
    """What one attack said, of one target or of several.

    Attributes:
        scores: (N,), float64.
        member: (N,), bool.
        labels: (N,), int64.
        right: (N,), bool: where the target names the class.
        slices: examples to measure by themselves.
        seconds: wall time of the attack.
        queries: answers that it had.
    """

    scores: Tensor
    member: Tensor
    labels: Tensor
    right: Tensor
    slices: Slices = field(default_factory=dict)
    seconds: float = 0.0
    queries: int = 0


def ask(attack: MembershipAttack, evidence: Evidence, member: Tensor, slices: Slices) -> Trials:
    """Run an attack on what it takes of the evidence, and keep what it says of the examples that it does not know.

    Args:
        attack: the attack.
        evidence: what the adversary holds of N examples.
        member: (N,), bool: which of them the target was trained on.
        slices: examples to measure by themselves.

    Raises:
        ConfigError: the evidence lacks what the attack needs; member or a slice is of another shape.
    """
    for name, chosen in {"member": member, **slices}.items():
        if chosen.shape != evidence.labels.shape or chosen.dtype != torch.bool:
            raise ConfigError(
                f"{name} must be a truth value for each of {len(evidence.labels)} examples, found {chosen.dtype} of shape "
                f"{tuple(chosen.shape)}"
            )
    seen = replace(
        evidence,
        references=evidence.references if "references" in attack.needs else None,
        known=evidence.known if "known" in attack.needs else None,
    )
    asked = torch.arange(len(member)) if seen.known is None else (seen.known.cpu() == -1).nonzero()[:, 0]
    if attack.limit is not None:
        asked = _some(asked, member.cpu(), attack.limit, generator(evidence.seed, "limit"))
        said = attack(seen.at(asked))
        scores = said.scores
    else:
        said = attack(seen)
        scores = said.scores[asked]
    return Trials(
        scores=scores,
        member=member.cpu()[asked],
        labels=evidence.labels.cpu()[asked],
        right=answered_right(evidence)[asked],
        slices={name: chosen.cpu()[asked] for name, chosen in slices.items()},
        seconds=said.seconds,
        queries=said.queries,
    )


def _some(places: Tensor, member: Tensor, limit: int, stream: torch.Generator) -> Tensor:
    """Return the places of examples to ask about, ascending: at most so many, and as many members as others."""
    inside, outside = places[member[places]], places[~member[places]]
    count = min(limit // 2, len(inside), len(outside))
    drawn = [side[torch.randperm(len(side), generator=stream)[:count]] for side in (inside, outside)]
    return torch.cat(drawn).sort().values


def pool(found: Sequence[Trials]) -> Trials:
    """Put together what an attack said of several targets.

    Args:
        found: at least one, all with the same slices.
    """
    joined = {name: torch.cat([getattr(one, name) for one in found]) for name in ("scores", "member", "labels", "right")}
    return Trials(
        **joined,
        slices={name: torch.cat([one.slices[name] for one in found]) for name in found[0].slices},
        seconds=sum(one.seconds for one in found),
        queries=sum(one.queries for one in found),
    )


def measure(name: str, attack: MembershipAttack, trials: Trials, evidence: Evidence) -> MembershipResult:
    """Measure what an attack said.

    Args:
        name: that it gets in the report.
        attack: the attack.
        trials: what it said.
        evidence: what it was run on; the seed draws the halves on which thresholds are chosen.

    Raises:
        DataError: fewer than 2 members or 2 non-members.
    """
    scores, member, seed = trials.scores, trials.member, evidence.seed
    taken = cross_fitted(scores, member, generator(seed, "halves"))
    accuracy = balanced_accuracy(taken, member)
    references = evidence.references if "references" in attack.needs else None
    return MembershipResult(
        name=name,
        seed=seed,
        access=attack.access,
        members=int(member.sum()),
        nonmembers=int((~member).sum()),
        targets=1,
        references=len(references or ()),
        adaptive=references.adaptive if references else True,
        auc=auc(scores, member),
        tpr_at_1=tpr_at(scores, member, 0.01),
        tpr_at_01=tpr_at(scores, member, 0.001),
        balanced_accuracy=accuracy,
        advantage=advantage(accuracy),
        epsilon=epsilon_bound(scores, member, generator(seed, "epsilon")),
        roc=roc(scores, member),
        slices=_slices(trials, taken),
        seconds=trials.seconds,
        queries=trials.queries,
        settings=dataclasses.asdict(attack),
    )


def _slices(trials: Trials, taken: Tensor) -> dict[str, Slice]:
    """Measure each class, and what else is to be measured by itself, where there are enough examples."""
    order, counts = trials.labels.argsort(stable=True), trials.labels.bincount().tolist()
    classes = {f"class {label}": places for label, places in enumerate(order.split(counts)) if len(places)}
    found = {
        name: slice_of(trials.scores[some], trials.member[some], taken=taken[some], right=trials.right[some])
        for name, some in {**classes, **trials.slices}.items()
    }
    return {name: one for name, one in found.items() if one is not None}


def answered_right(evidence: Evidence) -> Tensor:
    """Return where the target names the class, (N,), bool, on the CPU."""
    return hits(evidence.target.logits[:, 0], evidence.labels).bool().cpu()
