# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from membership_toys import balanced
from sfumato.attacks.naming import named_attacks
from sfumato.attacks.predictions.base import Answers, Evidence, MembershipAttack, Oracle, References
from sfumato.attacks.predictions.rmia import RMIA
from sfumato.attacks.predictions.threshold import Gap, Threshold
from sfumato.errors import ConfigError, DataError, UnknownNameError
from sfumato.membership import DEFAULT, PER_CLASS, audit_answers, audit_evidence, leave_one_out, run_membership_attack
from sfumato.metrics.membership import auc, balanced_accuracy, cross_fitted
from sfumato.seeds import generator
from sfumato.trials import ask

CLASSES = 3


@dataclass(kw_only=True)
class Surest(MembershipAttack):
    """Takes the logit of the true class for a score."""

    factor: float = 1.0

    def score(self, evidence: Evidence) -> Tensor:
        return self.factor * evidence.target.logits[:, 0].double().gather(1, evidence.labels[:, None])[:, 0]


@dataclass(kw_only=True)
class Learner(MembershipAttack):
    """Scores those that it does not know as `Surest`, and those that it knows as wrongly as can be."""

    needs = frozenset({"known"})

    def score(self, evidence: Evidence) -> Tensor:
        assert evidence.known is not None
        wrong = 1000.0 * (1 - 2 * evidence.known)
        return torch.where(evidence.known == -1, Surest().score(evidence), wrong)


@dataclass(kw_only=True)
class Distant(MembershipAttack):
    """Scores by how far the target's true logit lies above the mean of those of the references."""

    needs = frozenset({"references"})

    def score(self, evidence: Evidence) -> Tensor:
        assert evidence.references is not None
        others = [Surest().score(replace(evidence, target=answers)) for answers in evidence.references.answers]
        return Surest().score(evidence) - torch.stack(others).mean(0)


@dataclass(kw_only=True)
class Curious(MembershipAttack):
    """Says that it needs nothing, and scores by whether it was given something."""

    def score(self, evidence: Evidence) -> Tensor:
        given = (evidence.known is not None) + (evidence.references is not None)
        return torch.arange(len(evidence.labels)).double() % (7 + given)


def answers(member: Tensor, labels: Tensor, seed: int, gain: float) -> Answers:
    """Logits that are random, and by `gain` higher at the label of a member."""
    logits = torch.randn(len(labels), 1, CLASSES, generator=torch.Generator().manual_seed(seed))
    logits[:, 0].scatter_add_(1, labels[:, None], gain * member[:, None].float())
    return Answers(logits)


def evidence(gain: float = 2.0, count: int = 400, *, references: int = 0, known: bool = False) -> tuple[Evidence, Tensor]:
    member, labels = torch.arange(count) % 2 == 0, torch.arange(count) // 2 % CLASSES
    keep = torch.rand(references, count, generator=torch.Generator().manual_seed(9)) < 0.5
    others = References(tuple(answers(row, labels, 10 + place, gain) for place, row in enumerate(keep)), keep)
    told = torch.where(torch.arange(count) % 4 < 2, member.long(), -1)
    return (
        Evidence(
            target=answers(member, labels, 0, gain),
            labels=labels,
            references=others if references else None,
            known=told if known else None,
        ),
        member,
    )


def test_an_attack_is_measured_on_all_examples() -> None:
    held, member = evidence()
    scores = Surest().score(held)
    found = run_membership_attack("surest", Surest(factor=2.0), replace(held, seed=3), member)
    assert (found.name, found.seed, found.access, found.settings) == ("surest", 3, "logits", {"factor": 2.0})
    assert (found.members, found.nonmembers, found.targets, found.references, found.queries) == (200, 200, 1, 0, 400)
    assert found.auc == auc(scores, member)
    taken = cross_fitted(scores, member, generator(3, "halves"))
    assert found.balanced_accuracy == balanced_accuracy(taken, member)
    assert found.advantage.value == pytest.approx(2 * found.balanced_accuracy.value - 1)
    assert found.tpr_at_1.value is not None
    assert found.tpr_at_01.value is None
    assert found.epsilon > 0
    assert found.roc.tpr[-1] == 1
    assert found.adaptive
    assert found.seconds > 0


def test_a_memorizing_target_is_found_out_and_an_independent_one_is_not() -> None:
    held, member = evidence(gain=100.0)
    found = run_membership_attack("surest", Surest(), held, member)
    assert found.auc.value == found.tpr_at_1.value == found.balanced_accuracy.value == 1
    held, member = evidence(gain=0.0)
    found = run_membership_attack("surest", Surest(), held, member)
    assert found.auc.low < 0.5 < found.auc.high
    assert found.balanced_accuracy.low < 0.5 < found.balanced_accuracy.high


def test_what_an_attack_was_told_does_not_count() -> None:
    held, member = evidence(known=True)
    assert held.known is not None
    asked = held.known == -1
    found = run_membership_attack("learner", Learner(), held, member)
    assert (found.members, found.nonmembers) == (100, 100)
    assert found.auc == auc(Surest().score(held)[asked], member[asked])
    assert {name: one.members for name, one in found.slices.items()} == {
        f"class {label}": int((member & asked & (held.labels == label)).sum()) for label in range(CLASSES)
    }
    assert run_membership_attack("surest", Surest(), held, member).members == 200


def test_an_attack_gets_no_more_than_it_needs() -> None:
    held, member = evidence(references=4, known=True)
    bare, _ = evidence()
    given, nothing = (run_membership_attack("curious", Curious(), one, member) for one in (held, bare))
    assert (given.roc, given.references, given.members) == (nothing.roc, 0, 200)


@pytest.mark.parametrize(("attack", "references", "members"), [
    (Threshold(), 0, 200),
    (Threshold(per_class=True), 4, 200),
    (Threshold(per_class=True, thresholds="known"), 0, 100),
    (RMIA(), 4, 200),
    (RMIA(gamma=1.0), 4, 100),
])  # fmt: skip
def test_what_an_attack_needs_is_a_matter_of_its_arguments(attack: MembershipAttack, references: int, members: int) -> None:
    held, member = evidence(references=4, known=True)
    assert held.known is not None
    found = run_membership_attack("mine", attack, held, member)
    assert (found.references, found.members) == (references, members)
    asked = held.known == -1 if members == 100 else torch.ones_like(member)
    assert found.auc == auc(attack(held).scores[asked], member[asked])


@pytest.mark.parametrize("adaptive", [True, False])
def test_references_that_came_about_otherwise_are_named_where_they_are_used(adaptive: bool) -> None:
    held, member = evidence(references=4)
    assert held.references is not None
    held = replace(held, references=replace(held.references, adaptive=adaptive))
    found = audit_evidence(held, member, {"distant": Distant(), "surest": Surest()})
    assert [(one.references, one.adaptive) for one in found.results] == [(4, adaptive), (0, True)]
    said = "an adversary who adapts: the reference models were trained without the defenses of the target"
    assert (said in found.untested) == (not adaptive)


def test_slices_are_measured_at_the_threshold_of_all() -> None:
    held, member = evidence(count=600)
    odd, few = torch.arange(600) % 5 == 0, torch.arange(600) < 12
    found = run_membership_attack("surest", Surest(), held, member, slices={"odd": odd, "few": few})
    assert list(found.slices) == ["class 0", "class 1", "class 2", "odd"]
    scores, right = Surest().score(held), held.target.logits[:, 0].argmax(1) == held.labels
    taken = cross_fitted(scores, member, generator(0, "halves"))
    for name, chosen in {"odd": odd, "class 1": held.labels == 1}.items():
        one, inside = found.slices[name], member[chosen]
        assert (one.members, one.nonmembers) == (int(inside.sum()), int((~inside).sum()))
        assert one.auc == auc(scores[chosen], inside)
        assert one.balanced_accuracy == balanced_accuracy(taken[chosen], inside)
        expected = right[chosen & member].double().mean() - right[chosen & ~member].double().mean()
        assert one.gap == pytest.approx(expected.item())


@pytest.mark.parametrize("wrong", [torch.zeros(3, dtype=torch.bool), torch.zeros(400)])
def test_slices_and_members_are_truth_values_for_each_example(wrong: Tensor) -> None:
    held, member = evidence()
    with pytest.raises(ConfigError, match=r"dark must be a truth value for each of 400 examples, found torch\."):
        run_membership_attack("surest", Surest(), held, member, slices={"dark": wrong})
    with pytest.raises(ConfigError, match="member must be a truth value for each of 400 examples"):
        run_membership_attack("surest", Surest(), held, wrong)


def test_each_reference_is_the_target_in_turn() -> None:
    held, _ = evidence(references=4)
    references, labels = held.references, held.labels
    assert references is not None
    dark = torch.arange(400) < 100
    found = leave_one_out("distant", Distant(), references, labels, slices={"dark": dark})
    scores = []
    for place in range(4):
        true = [one.logits[:, 0].double().gather(1, labels[:, None])[:, 0] for one in references.answers]
        mine = true.pop(place)
        scores.append(mine - torch.stack(true).mean(0))
    pooled, member = torch.cat(scores), references.keep.flatten()
    assert found.auc == auc(pooled, member)
    assert (found.targets, found.references, found.queries) == (4, 3, 1600)
    assert (found.members, found.nonmembers) == (int(member.sum()), int((~member).sum()))
    assert found.slices["dark"].auc == auc(pooled[dark.repeat(4)], member[dark.repeat(4)])
    assert found.slices["class 2"].auc == auc(pooled[(labels == 2).repeat(4)], member[(labels == 2).repeat(4)])


def test_a_learner_knows_other_examples_of_each_target() -> None:
    held, _ = evidence(references=4)
    assert held.references is not None
    found = leave_one_out("learner", Learner(), held.references, held.labels, known=0.25)
    assert found.members + found.nonmembers == pytest.approx(1200, abs=8)
    assert found.references == 0
    assert found.auc.value > 0.8  # what it was told, it would get wrong


def test_what_is_known_is_drawn_for_each_target() -> None:
    seen: list[Tensor | None] = []

    class Noting(Learner):
        def score(self, evidence: Evidence) -> Tensor:
            seen.append(evidence.known)
            return super().score(evidence)

    held, _ = evidence(references=2)
    assert held.references is not None
    alike = replace(held.references, keep=held.references.keep[[0, 0]])
    leave_one_out("noting", Noting(), alike, held.labels)
    first, second = seen
    assert first is not None
    assert second is not None
    assert first.tolist() != second.tolist()
    assert sorted(first.tolist()) == sorted(second.tolist())


def test_leaving_one_out_needs_models() -> None:
    held, _ = evidence(references=2)
    assert held.references is not None
    with pytest.raises(ConfigError, match="Distant needs at least 2 reference models, found 1"):
        leave_one_out("distant", Distant(), held.references, held.labels)
    alone = held.references.first(1)
    assert leave_one_out("surest", Surest(), alone, held.labels).targets == 1
    with pytest.raises(ConfigError, match="leave_one_out needs reference models to attack, found none"):
        leave_one_out("surest", Surest(), alone.first(0), held.labels)


def test_an_audit_runs_every_attack_with_every_seed() -> None:
    held, member = evidence(references=4)
    attacks = {"mine": Surest(), "gap": Gap()}
    found = audit_evidence(held, member, attacks, seeds=(4, 5), title="toy", hardware="a GPU", canaries="clean", duplicates=2)
    assert [(one.seed, one.name) for one in found.results] == [(4, "mine"), (4, "gap"), (5, "mine"), (5, "gap")]
    assert (found.members, found.nonmembers, found.references, found.duplicates, found.seeds) == (200, 200, 4, 2, (4, 5))
    assert (found.title, found.hardware, found.canaries) == ("toy", "a GPU", "clean")
    assert set(found.versions) == {"sfumato", "torch", "python"}
    right = held.target.logits[:, 0].argmax(1) == held.labels
    inside, outside = found.accuracy
    assert inside.value == pytest.approx(right[member].double().mean().item())
    assert outside.value == pytest.approx(right[~member].double().mean().item())
    assert inside.low < inside.value < inside.high
    gap = next(one for one in found.results if one.name == "gap")
    assert found.gap == pytest.approx(gap.balanced_accuracy.value)
    assert found.results[0].balanced_accuracy != found.results[2].balanced_accuracy  # other halves


def test_an_audit_says_what_it_does_not_say() -> None:
    held, member = evidence(references=4)
    slices = {"dark": torch.arange(400) < 12, "bright": torch.arange(400) > 12}
    held.labels[:15] = 2
    held.labels[:3] = 0
    attacks = {"mine": Threshold(statistic="confidence"), "gap": Gap()}
    found = audit_evidence(held, member, attacks, slices=slices).untested
    named = [line.split("'")[1] for line in found if line.startswith("the attack")]
    assert "salem" in named
    assert not {"mine", "gap", "confidence", "threshold"} & set(named)  # both names of what was run as mine
    assert "loss" in named
    assert any(
        line.startswith("the attack 'nasr'") and line.endswith("; it needs examples whose membership it knows") for line in found
    )
    assert any(line.startswith("the attack 'salem'") and "needs" not in line for line in found)
    assert "an adversary with more than 4 reference models" in found
    assert "how much the attacks vary: each was run with one seed" in found
    assert "other targets, trained the same way: one was attacked" in found
    fewest = "at least 10 members and 10 non-members must be asked about"
    assert f"the slice 'dark' by itself: {fewest}" in found
    assert not any("bright" in line or "classes" in line for line in found)
    assert not any("was trained" in line for line in found)


def test_an_audit_counts_the_classes_that_are_too_small() -> None:
    held, member = evidence(count=50)
    held.labels[:] = 0
    held.labels[:38] = 1
    found = audit_evidence(held, member, {"gap": Gap()}, seeds=(0, 1)).untested
    assert "1 of 2 classes by themselves: at least 10 members and 10 non-members must be asked about" in found
    assert "an adversary who compares with reference models: none was trained" in found
    assert not any("one seed" in line for line in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": {}}, "an audit needs at least one attack; known: .*loss"),
        ({"seeds": ()}, r"seeds must be one or more different numbers, got \[\]"),
        ({"seeds": (1, 1)}, r"got \[1, 1\]"),
    ],
)
def test_an_audit_of_nothing_is_refused(options: dict[str, object], message: str) -> None:
    held, member = evidence()
    with pytest.raises(ConfigError, match=message):
        audit_evidence(held, member, **{"attacks": {"gap": Gap()}, **options})  # type: ignore[arg-type]


def test_a_side_without_examples_is_refused() -> None:
    held, member = evidence()
    with pytest.raises(DataError, match="at least 2 members and 2 non-members to score, found 0 and 400"):
        run_membership_attack("gap", Gap(), held, torch.zeros_like(member))


def tables(folder: Path, count: int = 200, gain: float = 2.0, classes: int = CLASSES, decimals: int | None = None) -> list[Path]:
    paths = [folder / "members.npz", folder / "nonmembers.npz"]
    for side, path in enumerate(paths):
        labels = np.arange(count) % classes
        logits = np.random.default_rng(side).normal(size=(count, classes))
        logits[np.arange(count), labels] += 2 + gain * (side == 0)
        np.savez(path, logits=logits if decimals is None else logits.round(decimals), labels=labels)
    return paths


def test_a_table_of_answers_is_audited(tmp_path: Path) -> None:
    paths = tables(tmp_path)
    found = audit_answers(*paths, seed=5)
    assert [one.name for one in found.results] == [*DEFAULT, PER_CLASS]
    assert (found.members, found.nonmembers, found.references, found.seeds) == (200, 200, 0, (5,))
    assert found.title == "the answers in members.npz and nonmembers.npz"
    assert {one.name: one.members for one in found.results} == {**dict.fromkeys(DEFAULT, 200), "nasr": 100, PER_CLASS: 100}
    stronger = {one.name for one in found.results if one.auc.low > 0.6}
    assert stronger >= {"loss", "confidence", "modified-entropy", PER_CLASS}
    assert found.untested[-1] == "what the features or the weights of the model give away: only answers were there"
    assert not any("both sides" in line for line in found.untested)
    again = audit_answers(*paths, seed=5)
    assert [replace(one, seconds=0.0) for one in again.results] == [replace(one, seconds=0.0) for one in found.results]
    assert audit_answers(*paths, attacks=["loss"], title="mine", seeds=(1, 2)).seeds == (1, 2)


def test_attacks_that_cannot_learn_are_left_out_of_the_default(tmp_path: Path) -> None:
    def names(**options: float) -> set[str]:
        return {one.name for one in audit_answers(*tables(tmp_path, count), **options).results}

    count = 200
    assert names(known=0.0) == set(DEFAULT) - {"nasr"}
    count = 3 * CLASSES
    assert names() == set(DEFAULT)  # one known example of a class is too few for a threshold of its own
    count = 4 * CLASSES
    assert names() == {*DEFAULT, PER_CLASS}


def test_an_audit_of_coarse_answers_says_what_could_not_be_checked(tmp_path: Path) -> None:
    found = audit_answers(*tables(tmp_path, decimals=0), attacks="loss")
    assert found.duplicates > 4
    (said,) = (line for line in found.untested if "both sides" in line)
    assert said.endswith("rows of the non-members equal one of a member, as coarse answers do")


@pytest.mark.parametrize(
    ("attacks", "error", "message"),
    [
        ("los", UnknownNameError, "no attack on predictions named 'los' .did you mean 'loss'"),
        ("decoder", UnknownNameError, "no attack on predictions named 'decoder'; known: gap, .*loss"),
        (["salem"], ConfigError, "Salem needs at least 1 reference model"),
        ([Gap(), "gap"], ConfigError, "two attacks named 'gap'; name them"),
        ([], ConfigError, "at least one attack"),
    ],
)
def test_attacks_on_a_table_are_checked(tmp_path: Path, attacks: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        audit_answers(*tables(tmp_path), attacks=attacks)


def test_an_adversary_who_knows_nobody_learns_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nasr needs examples whose membership the adversary knows, found none"):
        audit_answers(*tables(tmp_path), attacks="nasr", known=0.0)
    with pytest.raises(ConfigError, match=r"known must be a share within \[0, 1\), got 1.0"):
        audit_answers(*tables(tmp_path), known=1.0)


def test_attacks_have_names() -> None:
    mine = Threshold(statistic="entropy")
    assert named_attacks("gap", MembershipAttack) == {"gap": Gap()}
    assert named_attacks(["loss", mine], MembershipAttack) == {"loss": Threshold(), "threshold": mine}
    assert named_attacks({"a": mine, "b": mine}, MembershipAttack) == {"a": mine, "b": mine}


def noisy_references(models: int, examples: int) -> References:
    """Models in pairs of complements, whose answers have nothing to do with what they were trained on."""
    stream = torch.Generator().manual_seed(0)
    logits = torch.randn(models, examples, 1, CLASSES, generator=stream)
    return References(tuple(Answers(one) for one in logits), balanced(models, examples))


def test_one_of_a_pair_of_complements_leaves_with_the_other() -> None:
    references = noisy_references(6, 10)
    left = references.without(3)
    assert len(left) == 4
    assert torch.equal(left.keep, references.keep[[0, 1, 4, 5]])
    assert all(a is references.answers[place] for a, place in zip(left.answers, (0, 1, 4, 5), strict=True))
    assert (left.keep.sum(0) == 2).all(), "still balanced, whoever is a member of the target"


@pytest.mark.parametrize("name", ["lira", "rmia"])
def test_answers_that_say_nothing_say_nothing_of_each_in_turn(name: str) -> None:
    references = noisy_references(8, 500)
    found = leave_one_out(name, named_attacks([name], MembershipAttack)[name], references, torch.arange(500) % CLASSES)
    assert found.targets == 8
    assert found.auc.low < 0.5 < found.auc.high


@dataclass(kw_only=True)
class Dear(Surest):
    """Asks about few examples."""

    most: int = 10

    @property
    def limit(self) -> int:
        return self.most

    def score(self, evidence: Evidence) -> Tensor:
        assert evidence.oracle is not None
        x = evidence.oracle.read(torch.arange(len(evidence.labels)))
        return 1000 * len(evidence.labels) + x[:, 0, 0, 0].double()


@pytest.mark.parametrize(("most", "sides"), [(10, 5), (11, 5), (1000, 20)])
def test_an_attack_with_a_limit_is_asked_about_as_many_members_as_others(most: int, sides: int) -> None:
    places = torch.arange(60.0).view(60, 1, 1, 1)
    oracle = Oracle(labels=lambda x: x[:, 0, 0, 0].long(), read=lambda index: places[index], classes=CLASSES)
    evidence = Evidence(target=Answers(torch.rand(60, 1, CLASSES)), labels=torch.arange(60) % CLASSES, oracle=oracle)
    member = torch.arange(60) % 3 == 0
    trials = ask(Dear(most=most), evidence, member, {"late": torch.arange(60) > 30})
    assert (int(trials.member.sum()), int((~trials.member).sum())) == (sides, sides)
    chosen = (trials.scores - 1000 * len(trials.scores)).long()
    assert torch.equal(trials.member, member[chosen])
    assert torch.equal(trials.labels, evidence.labels[chosen])
    assert torch.equal(trials.slices["late"], chosen > 30)


def test_evidence_about_some_examples_is_about_them_in_every_part() -> None:
    references = noisy_references(4, 9)
    known = torch.tensor([1, 0, -1] * 3)
    whole = Evidence(target=references.answers[0], labels=torch.arange(9) % CLASSES, references=references, known=known)
    some = torch.tensor([7, 2])
    part = whole.at(some)
    assert part.references is not None
    assert torch.equal(part.target.logits, whole.target.logits[some])
    assert torch.equal(part.labels, whole.labels[some])
    assert torch.equal(part.references.keep, references.keep[:, some])
    assert torch.equal(part.references.answers[2].logits, references.answers[2].logits[some])
    assert part.known is not None
    assert part.known.tolist() == [0, -1]
