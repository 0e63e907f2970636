# SPDX-License-Identifier: Apache-2.0
"""The adversary of Min-Max learns from the examples that it knows, and from no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from membership_toys import gaussian, memorizing
from sfumato import registry
from sfumato.attacks.predictions.base import Answers
from sfumato.attacks.predictions.nasr import Nasr
from sfumato.errors import ConfigError, DataError


def test_what_it_is_asked_about_teaches_nothing() -> None:
    toy = gaussian(300, models=0)
    logits = torch.where(toy.asked.view(-1, 1, 1), -toy.evidence.target.logits, toy.evidence.target.logits)
    found, changed = (Nasr()(one).scores for one in (toy.evidence, replace(toy.evidence, target=Answers(logits))))
    assert torch.allclose(found[~toy.asked], changed[~toy.asked], atol=1e-6)
    assert not torch.allclose(found[toy.asked], changed[toy.asked], atol=1e-2)


def test_it_learns_what_the_label_tells() -> None:
    toy = memorizing(1200, models=0)
    # All are as sure as members are: only whether the sure class is the label's tells them apart.
    sure = 20 * torch.nn.functional.one_hot(toy.evidence.target.logits.argmax(2), 4).float()
    toy = replace(toy, evidence=replace(toy.evidence, target=Answers(sure)))
    assert toy.auc(Nasr(epochs=20)(toy.evidence).scores) > 0.95


def test_sorted_probabilities_do_not_say_of_what_class_they_are() -> None:
    evidence = gaussian(200, models=0).evidence
    flipped = replace(evidence, target=Answers(evidence.target.logits.flip(2)))
    attack = registry.create("attacks", "nasr-sorted", {"epochs": 2})
    assert attack == Nasr(inputs="sorted", epochs=2)
    assert isinstance(attack, Nasr)
    assert torch.allclose(attack(evidence).scores, attack(flipped).scores, atol=1e-5)
    assert not torch.allclose(Nasr(epochs=2)(evidence).scores, Nasr(epochs=2)(flipped).scores, atol=1e-5)


def test_the_paper_s_first_weights_are_at_hand() -> None:
    toy = gaussian(2000, models=0)
    attack = Nasr(deviation=0.01, weight_decay=0.0, batch_size=128, epochs=5)
    assert toy.auc(attack(toy.evidence).scores) > 0.95 * toy.auc(toy.optimum)
    # Untrained, seven layers from N(0, 0.01) say next to nothing.
    small, usual = (Nasr(deviation=one, learning_rate=1e-12)(toy.evidence).scores.abs().max() for one in (0.01, None))
    assert small < 1e-5
    assert usual > 1e-2


@pytest.mark.parametrize("side", [0, 1])
def test_it_must_know_members_and_others(side: int) -> None:
    toy = gaussian(60, models=0)
    assert toy.evidence.known is not None
    left = int((toy.evidence.known == side).sum())
    counts = (left, 0) if side == 1 else (0, left)
    known = torch.where(toy.evidence.known == 1 - side, -1, toy.evidence.known)
    with pytest.raises(DataError, match=f"nasr learns .* found {counts[0]} and {counts[1]}"):
        Nasr()(replace(toy.evidence, known=known))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": "softmax"}, "inputs must be one of"),
        ({"epochs": 0}, "must be at least 1"),
        ({"learning_rate": float("inf")}, "learning_rate > 0"),
        ({"deviation": 0.0}, "deviation must be > 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Nasr(**arguments)  # type: ignore[arg-type]
