# SPDX-License-Identifier: Apache-2.0
"""The network on the largest posteriors, against NumPy; it knows no classes, and one shadow model is enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from membership_toys import gaussian, memorizing
from sfumato.attacks.predictions.base import Answers
from sfumato.attacks.predictions.salem import Salem, TopPosteriors
from sfumato.errors import ConfigError, DataError


def test_the_network_is_that_of_the_formula() -> None:
    network, logits = TopPosteriors(3, 8), torch.randn(5, 6)
    first, _, second = network.layers
    weights = [one.detach().numpy() for one in (first.weight, first.bias, second.weight, second.bias)]  # type: ignore[union-attr, operator]
    for row, found in zip(logits.double().numpy(), network(logits).tolist(), strict=True):
        top = np.sort(np.exp(row) / np.exp(row).sum())[::-1][:3]
        hidden = np.maximum(0, weights[0] @ top + weights[1])
        assert found == pytest.approx((weights[2] @ hidden + weights[3])[0], abs=1e-6)


def test_it_does_not_know_which_class_is_which() -> None:
    evidence = memorizing(200).evidence
    order = torch.tensor([2, 0, 3, 1])
    assert evidence.references is not None

    def turned(answers: Answers) -> Answers:
        return Answers(answers.logits[..., order])

    others = replace(evidence.references, answers=tuple(turned(one) for one in evidence.references.answers))
    changed = replace(evidence, target=turned(evidence.target), references=others, labels=order[evidence.labels])
    assert torch.allclose(Salem(epochs=5)(evidence).scores, Salem(epochs=5)(changed).scores, atol=1e-4)


def test_one_shadow_model_is_enough_and_the_others_do_not_count() -> None:
    evidence = gaussian(200, models=4).evidence
    assert evidence.references is not None
    alone = replace(evidence, references=evidence.references.first(1))
    assert torch.equal(Salem(epochs=3)(evidence).scores, Salem(epochs=3)(alone).scores)


def test_two_classes_have_two_posteriors() -> None:
    toy = memorizing(200, classes=2, models=1)
    assert toy.auc(Salem()(toy.evidence).scores) >= toy.least_of_perfect


def test_a_shadow_model_without_members_is_refused() -> None:
    evidence = gaussian(40, models=1).evidence
    assert evidence.references is not None
    nobody = replace(evidence.references, keep=torch.zeros_like(evidence.references.keep))
    with pytest.raises(DataError, match="salem learns .* of all classes, found 0 and 40"):
        Salem()(replace(evidence, references=nobody))


@pytest.mark.parametrize("arguments", [{"top": 0}, {"hidden": 0}, {"epochs": 0}, {"weight_decay": -1.0}])
def test_what_makes_no_sense_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1, learning_rate > 0"):
        Salem(**arguments)  # type: ignore[arg-type]
