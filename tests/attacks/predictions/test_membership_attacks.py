# SPDX-License-Identifier: Apache-2.0
"""What every attack on predictions keeps, a row each, and what each does to evidence whose answer is known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from membership_toys import Toy, gaussian, independent, memorizing
from sfumato import registry
from sfumato.attacks.predictions.base import Answers, Evidence, MembershipAttack
from sfumato.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """How an attack is made here, and what is known of it.

    Attributes:
        sufficient: why it can order by the log odds of the true class; "" where it cannot.
        perfect: whether it must find every member of a target that memorizes.
        arguments: of its constructor.
    """

    sufficient: str = ""
    perfect: bool = True
    arguments: dict[str, object] = field(default_factory=dict)


LEARNED = "it learns from posteriors, which tell the log odds where all other classes share the rest evenly"
ROWS: dict[str, Row] = {
    "gap": Row(),  # a bit of the log odds: whether they are above those of the others
    "threshold": Row("the loss falls as the log odds rise"),
    "loss": Row("the loss falls as the log odds rise"),
    "confidence": Row("the probability rises with the log odds"),
    "entropy": Row(),  # an answer is sure, too, where it is sure of a wrong class
    "modified-entropy": Row("the modified entropy falls as the log odds rise"),
    "shokri": Row(LEARNED),
    "salem": Row(LEARNED),
    "nasr": Row(LEARNED),
    "nasr-sorted": Row(LEARNED),
    "samia": Row(LEARNED),
    "lira": Row(),  # eight references say little of two distributions an example; its own tests have 64
    "rmia": Row(),  # likewise
    "boundary": Row(arguments={"queries": 100}),  # labels tell less than log odds
    "boundary-augmentation": Row(),
}


def made(name: str) -> MembershipAttack:
    attack = registry.create("attacks", name, ROWS[name].arguments)
    assert isinstance(attack, MembershipAttack)
    return attack


def tensors(evidence: Evidence) -> list[Tensor]:
    """All that an adversary is handed."""
    answers = [evidence.target, *(evidence.references.answers if evidence.references else ())]
    held = [tensor for one in answers for tensor in (one.logits, one.sensitivity)]
    keep = evidence.references.keep if evidence.references else None
    return [tensor for tensor in (*held, evidence.labels, evidence.known, keep) if tensor is not None]


def test_every_attack_has_a_row() -> None:
    table = registry.TABLE["attacks"]
    assert set(ROWS) == {name for name, entry in table.items() if entry.path.startswith("sfumato.attacks.predictions.")}


@pytest.mark.parametrize("name", ROWS)
class TestEveryAttack:
    @pytest.mark.parametrize("toy", [memorizing(60), gaussian(60, views=3), independent(60)], ids=["memory", "views", "chance"])
    def test_the_same_seed_gives_the_same_bits_and_nothing_is_changed(self, name: str, toy: Toy) -> None:
        before = [tensor.clone() for tensor in tensors(toy.evidence)]
        attack = made(name)
        unused = copy.deepcopy(attack)
        first, second = attack(toy.evidence), attack(toy.evidence)
        assert first.scores.dtype == torch.float64
        assert first.scores.device.type == "cpu"
        assert torch.equal(first.scores, second.scores)
        assert first.queries >= toy.evidence.target.logits[..., 0].numel()
        assert all(torch.equal(*pair) for pair in zip(before, tensors(toy.evidence), strict=True))
        assert attack == unused

    def test_it_finds_the_members_of_a_target_that_memorizes(self, name: str) -> None:
        toy = memorizing()
        found = toy.auc(made(name)(toy.evidence).scores)
        assert found >= (toy.least_of_perfect if ROWS[name].perfect else 0.5)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_it_finds_nobody_where_answers_have_nothing_to_do_with_membership(self, name: str, seed: int) -> None:
        toy = independent(seed=seed)
        assert abs(toy.auc(made(name)(toy.evidence).scores) - 0.5) < 2.58 * toy.chance

    def test_it_comes_within_a_percent_of_the_best_where_it_can(self, name: str) -> None:
        toy = gaussian()
        found, best = toy.auc(made(name)(toy.evidence).scores), toy.auc(toy.optimum)
        assert found > 0.5 + 2.58 * toy.chance
        assert found >= 0.99 * best if ROWS[name].sufficient else found < 1.01 * best

    def test_it_says_what_it_lacks(self, name: str) -> None:
        attack, evidence = made(name), memorizing(40).evidence
        without = {
            "references": replace(evidence, references=None),
            "known": replace(evidence, known=None),
            "sensitivity": replace(evidence, target=replace(evidence.target, sensitivity=None)),
            "oracle": replace(evidence, oracle=None),
        }
        for need in attack.needs:
            with pytest.raises(ConfigError, match=f"{type(attack).__name__} needs"):
                attack(without[need])
        if "references" in attack.needs and attack.least > 1:
            assert evidence.references is not None
            with pytest.raises(ConfigError, match=f"at least {attack.least} reference models, found {attack.least - 1}"):
                attack(replace(evidence, references=evidence.references.first(attack.least - 1)))

    def test_it_does_not_break_where_answers_are_labels(self, name: str) -> None:
        evidence, sides = memorizing(60).evidence, memorizing(60).evidence.seen_at("labels")
        assert evidence.references is not None
        assert sides.references is not None
        target = replace(sides.target, sensitivity=evidence.target.sensitivity)
        others = [
            Answers(told.logits, one.sensitivity)
            for told, one in zip(sides.references.answers, evidence.references.answers, strict=True)
        ]
        made(name)(replace(sides, target=target, references=replace(sides.references, answers=tuple(others))))

    def test_it_attacks_one_of_the_references_in_turn(self, name: str) -> None:
        toy = memorizing(200)
        assert toy.evidence.references is not None
        references = toy.evidence.references
        member = references.keep[3]
        known = torch.where(toy.asked, -1, member.long())
        turned = replace(toy.evidence, target=references.answers[3], references=references.without(3), known=known)
        other = Toy(turned, member, member.double())
        assert other.auc(made(name)(turned).scores) >= (other.least_of_perfect if ROWS[name].perfect else 0.5)

    @pytest.mark.gpu
    @pytest.mark.parametrize("make", [memorizing, gaussian])
    def test_it_finds_the_same_on_a_gpu(self, name: str, make: Callable[..., Toy]) -> None:
        toy = make(400)
        there = replace(toy.evidence, labels=toy.evidence.labels.cuda(), target=moved(toy.evidence.target))
        if toy.evidence.known is not None and toy.evidence.references is not None:
            answers = tuple(moved(one) for one in toy.evidence.references.answers)
            references = replace(toy.evidence.references, answers=answers, keep=toy.evidence.references.keep.cuda())
            there = replace(there, known=toy.evidence.known.cuda(), references=references)
        here, found = toy.auc(made(name)(toy.evidence).scores), toy.auc(made(name)(there).scores)
        assert abs(here - found) < 0.02


def moved(answers: Answers) -> Answers:
    """Answers on the GPU."""
    return Answers(answers.logits.cuda(), None if answers.sensitivity is None else answers.sensitivity.cuda())
