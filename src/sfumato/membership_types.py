# SPDX-License-Identifier: Apache-2.0
"""The frozen records of the predictions: scores of an attack, what they come to, and what one audit found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from sfumato.types import Access, Interval


@dataclass(frozen=True)
class Bound:
    """A share that counting gave, with its 95 % interval, or the reason why it is not quoted.

    Attributes:
        value: the estimate, [0, 1]; None where there are too few examples to say.
        low: lower end.
        high: upper end.
        missing: why there is no number, a clause for people; "" where there is one.
    """

    value: float | None
    low: float | None
    high: float | None
    missing: str = ""


@dataclass(frozen=True)
class MembershipScores:
    """How sure an adversary is that each example was trained on.

    Attributes:
        scores: (N,), float64, finite; higher means more likely a member. Only their order counts.
        seconds: wall time of the attack, without the training of reference models.
        queries: answers that it had of the target.
    """

    scores: Tensor
    seconds: float = 0.0
    queries: int = 0


@dataclass(frozen=True)
class Roc:
    """The operating points of an attack: which share of the members it finds at which share of false alarms.

    Attributes:
        fpr: shares of the non-members taken for members, rising from 0 to 1.
        tpr: shares of the members found, as long.
    """

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Slice:
    """How well an attack did on some of the examples.

    Attributes:
        members: how many members of the slice were scored.
        nonmembers: how many non-members.
        gap: accuracy of the target on the members less that on the non-members, [-1, 1].
        auc: area under the ROC curve.
        balanced_accuracy: at the threshold of all examples.
    """

    members: int
    nonmembers: int
    gap: float
    auc: Interval
    balanced_accuracy: Interval


@dataclass(frozen=True)
class MembershipResult:
    """How well one attack told members from non-members, with one seed.

    Attributes:
        name: the attack's name in the report.
        seed: of the attack.
        access: what it was allowed to see.
        members: how many members were scored.
        nonmembers: how many non-members.
        targets: how many models were attacked, each in turn; the examples of all of them count.
        references: how many reference models it used; 0 for an attack that needs none.
        adaptive: whether these came about as the target did, defenses and compression included.
        auc: area under the ROC curve; 0.5 is a guess.
        tpr_at_1: share of the members found where at most 1 % of the non-members are taken for members.
        tpr_at_01: the same at 0.1 %.
        balanced_accuracy: mean of the shares of members and of non-members that are told right, at a threshold that other
            examples chose; 0.5 is a guess.
        advantage: 2 * balanced_accuracy - 1: true positives less false positives.
        epsilon: a lower bound at 95 % confidence on the epsilon of any differential privacy that the training had; at least 0.
        roc: the curve.
        slices: by the name of a slice, such as "class 3".
        seconds: wall time of the attack, without the training of reference models.
        queries: answers that the adversary had of the target.
        settings: the attack's hyper-parameters.
    """

    name: str
    seed: int
    access: Access
    members: int
    nonmembers: int
    targets: int
    references: int
    adaptive: bool
    auc: Interval
    tpr_at_1: Bound
    tpr_at_01: Bound
    balanced_accuracy: Interval
    advantage: Interval
    epsilon: float
    roc: Roc = field(repr=False)
    slices: Mapping[str, Slice] = field(default_factory=dict, repr=False)
    seconds: float = 0.0
    queries: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Membership:
    """What one audit found of the predictions: who was in the training set?

    Attributes:
        results: one for each attack and seed.
        members: how many members there are.
        nonmembers: how many non-members.
        duplicates: pictures that occur more than once within one side; each is scored as often as it occurs.
        accuracy: of the target on the members, and on the non-members.
        references: how many reference models were trained.
        canaries: kind of the examples that were put among the others to be asked about, or "" where these are asked about.
        untested: what this says nothing about, a sentence each.
        seeds: the seeds that every attack was run with.
        versions: of Sfumato, PyTorch and Python.
        hardware: the device it ran on.
        title: a line for people.
    """

    results: tuple[MembershipResult, ...]
    members: int
    nonmembers: int
    duplicates: int
    accuracy: tuple[Interval, Interval]
    references: int
    canaries: str
    untested: tuple[str, ...]
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    hardware: str
    title: str = ""

    @property
    def gap(self) -> float:
        """Balanced accuracy of whoever takes for a member what the target names right: what every attack should beat."""
        inside, outside = self.accuracy
        return 0.5 + (inside.value - outside.value) / 2

    def strongest(self) -> MembershipResult | None:
        """Return the result on the target with the largest AUC, or None where no attack was run."""
        alone = [result for result in self.results if result.targets == 1]
        return max(alone or self.results, key=lambda result: result.auc.value, default=None)

    def save(self, path: str | Path) -> Path:
        """Write what was found as HTML, Markdown or JSON, by the ending of `path`.

        Args:
            path: ends in .html, .md or .json; its folder is made when missing.

        Returns:
            The path written.

        Raises:
            ConfigError: another ending.
            StorageError: the file cannot be written; a file that was there stays as it was.
        """
        from sfumato.membership_report import save_membership  # points up, as `Audit.save` does

        return save_membership([self], path)
