# SPDX-License-Identifier: Apache-2.0
"""Networks of all classes at once are those of each class alone, and learn what members of each class look like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from membership_toys import Toy, auc, gaussian, memorizing
from sfumato.attacks.predictions.base import Answers
from sfumato.attacks.predictions.shokri import ClassNetworks, Shokri
from sfumato.attacks.predictions.threshold import Threshold
from sfumato.errors import ConfigError, DataError


def test_networks_that_run_together_are_those_of_each_class() -> None:
    networks, p = ClassNetworks(3, 4, 5), torch.rand(3, 6, 4)
    weight, bias, out, last = (getattr(networks, name).detach().numpy() for name in ("weight", "bias", "out", "last"))
    found = networks(p).detach().numpy()
    for place in range(3):
        for row in range(6):
            hidden = np.maximum(0, p[place, row].numpy() @ weight[place] + bias[place, 0])
            assert found[place, row] == pytest.approx(hidden @ out[place, :, 0] + last[place, 0, 0], abs=1e-6)


def opposite(count: int = 600) -> Toy:
    """Members of classes 0 and 1 are sure of the right class, and those of 2 and 3 are the ones that are not."""
    toy = memorizing(count, models=4)
    odd = (toy.evidence.labels >= 2).view(-1, 1, 1)

    def turned(answers: Answers) -> Answers:
        # The largest logit first: sure where it was 20 and unsure elsewhere, the other way round for odd classes.
        logits = answers.logits.sort(dim=2, descending=True).values
        sure = (logits[..., :1] > 10) != odd
        logits[..., :1] = torch.where(sure, 20.0, logits[..., 1:2] + 0.1)
        return Answers(logits)

    references = toy.evidence.references
    assert references is not None
    references = replace(references, answers=tuple(turned(one) for one in references.answers))
    return replace(toy, evidence=replace(toy.evidence, target=turned(toy.evidence.target), references=references))


def test_each_class_has_its_own_network() -> None:
    toy = opposite()
    labels, asked = toy.evidence.labels, toy.asked
    plain, learned = Threshold(statistic="entropy")(toy.evidence).scores, Shokri()(toy.evidence).scores
    assert auc(plain[labels < 2], toy.member[labels < 2]) == 1
    assert auc(plain[labels >= 2], toy.member[labels >= 2]) == 0
    assert auc(learned[asked], toy.member[asked]) > 0.98


def test_a_class_learns_from_its_own_answers_only() -> None:
    toy = gaussian(300, models=2)
    references, last = toy.evidence.references, toy.evidence.labels == 3
    assert references is not None
    other = tuple(Answers(torch.where(last.view(-1, 1, 1), -one.logits, one.logits)) for one in references.answers)
    found, changed = (
        Shokri(steps=20)(replace(toy.evidence, references=replace(references, answers=answers))).scores
        for answers in (references.answers, other)
    )
    assert torch.allclose(found[~last], changed[~last], atol=1e-5)
    assert not torch.allclose(found[last], changed[last], atol=1e-2)


def test_several_views_tell_more_than_one() -> None:
    toy = gaussian(800, models=4, views=6)
    first = Answers(toy.evidence.target.logits[:, :1])
    assert toy.auc(Shokri()(toy.evidence).scores) > toy.auc(Shokri()(replace(toy.evidence, target=first)).scores) + 0.03


def test_a_class_that_no_reference_left_out_is_named() -> None:
    evidence = gaussian(200, models=2).evidence
    assert evidence.references is not None
    keep = evidence.references.keep | (evidence.labels == 1)
    inside = 2 * int((evidence.labels == 1).sum())
    with pytest.raises(DataError, match=f"shokri learns .* of class 1, found {inside} and 0"):
        Shokri()(replace(evidence, references=replace(evidence.references, keep=keep)))


def test_a_class_that_no_example_has_does_no_harm() -> None:
    evidence = gaussian(200, models=2).evidence
    wide = replace(evidence, labels=evidence.labels.clamp(max=2))
    assert Shokri(steps=3)(wide).scores.isfinite().all()


@pytest.mark.parametrize("arguments", [{"hidden": 0}, {"steps": 0}, {"batch_size": 0}, {"rows": 0}, {"learning_rate": 0.0}])
def test_what_makes_no_sense_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1, learning_rate > 0"):
        Shokri(**arguments)  # type: ignore[arg-type]
