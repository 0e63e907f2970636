# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

import quadrants
import sfumato as sf
from sfumato import registry
from sfumato.inversion_types import EvaluatorFacts, InversionResult
from sfumato.inversion_untested import inversion_untested
from sfumato.types import Interval
from test_inversion import Painter, judged, painted

TRUSTED = EvaluatorFacts("resnet20", Interval(0.9, 0.8, 1.0), 0.8, 100)


def result(seed: int = 0, reached: Sequence[bool] = (True, True)) -> InversionResult:
    return judged(painted(torch.tensor([0, 1]), reached=torch.tensor(reached)), [0, 1], seed=seed)


def said(results: Sequence[InversionResult], facts: EvaluatorFacts = TRUSTED, identities: int = 2) -> str:
    data: sf.Data = quadrants.people()
    return "\n".join(inversion_untested(facts, {"painter": Painter()}, results, data=data, identities=identities))


def test_what_every_audit_says_nothing_about() -> None:
    found = said([result()])
    assert "other evaluators: resnet20 alone judged" in found
    assert "more than the 48 that the priors were trained on" in found
    assert "more compute" in found
    assert "other targets" in found
    assert "2 of 4 classes: they were not attacked" in found
    assert "over 2 classes, and rough below 10" in found


def test_what_one_audit_says_and_another_does_not() -> None:
    one, two = said([result(0)], identities=4), said([result(0), result(1)], identities=4)
    assert "one seed" in one
    assert "one seed" not in two
    assert "not attacked" not in one
    assert "rough" not in said([result()], identities=10)


def test_classes_that_were_not_reached_are_told_of() -> None:
    assert "it did not get to 1 of 2 classes, which count as failures" in said([result(reached=(True, False))])
    assert "failures" not in said([result()])


def test_an_evaluator_at_its_gate_is_believed_and_one_below_is_not() -> None:
    at = replace(TRUSTED, accuracy=Interval(0.8, 0.7, 0.9))
    below = replace(TRUSTED, accuracy=Interval(0.79, 0.7, 0.9))
    assert "gate" not in said([result()], at)
    assert said([result()], below).startswith("how much any attack recovers: the evaluator resnet20 names 79% of held-out")


def test_attacks_that_were_not_run_are_named() -> None:
    weights = [name for name, entry in registry.TABLE["attacks"].items() if entry.path.startswith("sfumato.attacks.weights.")]
    found = said([result()])
    assert all(f"the attack '{name}': " in found for name in weights)
    assert "the attack 'lira'" not in found
    run = {name: registry.create("attacks", name, {}) for name in weights[:1]}
    left = inversion_untested(TRUSTED, run, [], data=quadrants.people(), identities=4)  # type: ignore[arg-type]
    assert not any(one.startswith(f"the attack '{name}': ") for name in run for one in left)
