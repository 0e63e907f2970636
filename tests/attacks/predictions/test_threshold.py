# SPDX-License-Identifier: Apache-2.0
"""Each number of an answer against its formula, and thresholds against a scan of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from membership_toys import Toy, gaussian
from sfumato import registry
from sfumato.attacks.predictions import threshold
from sfumato.attacks.predictions.base import Answers, Evidence
from sfumato.attacks.predictions.threshold import STATISTICS, Gap, Statistic, Teacher, Threshold, best_threshold, class_thresholds
from sfumato.errors import ConfigError, DataError


def probabilities(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum()


LITERAL: dict[Statistic, Callable[[np.ndarray, int], float]] = {
    "loss": lambda p, y: np.log(p[y]),
    "confidence": lambda p, y: p[y],
    "entropy": lambda p, y: sum(q * np.log(q) for q in p),
    "modified_entropy": lambda p, y: (
        (1 - p[y]) * np.log(p[y]) + sum(q * np.log(1 - q) for place, q in enumerate(p) if place != y)
    ),
}


@pytest.mark.parametrize("name", LITERAL)
def test_numbers_are_those_of_the_formulas(name: Statistic) -> None:
    logits, labels = 3 * torch.randn(20, 3, 5), torch.randint(5, (20,))
    found = STATISTICS[name](logits, labels)
    for row, views in enumerate(logits.double().numpy()):
        for view, answer in enumerate(views):
            assert found[row, view].item() == pytest.approx(LITERAL[name](probabilities(answer), int(labels[row])), rel=1e-9)


@pytest.mark.parametrize("name", LITERAL)
@pytest.mark.parametrize("scale", [40.0, 1e4, 1e30])
def test_numbers_of_very_sure_answers_are_finite_and_in_order(name: Statistic, scale: float) -> None:
    logits = torch.tensor([[[scale, 0.0]], [[0.0, 0.0]], [[0.0, scale]]])
    right, unsure, wrong = STATISTICS[name](logits, torch.zeros(3, dtype=torch.int64))[:, 0].tolist()
    assert np.isfinite([right, unsure, wrong]).all()
    assert right > unsure
    assert wrong < unsure or name == "entropy"


def test_the_modified_entropy_of_a_surely_wrong_answer_does_not_saturate() -> None:
    found = STATISTICS["modified_entropy"](torch.tensor([[[40.0, 0.0]], [[80.0, 0.0]]]), torch.tensor([1, 1]))
    assert found[:, 0].tolist() == pytest.approx([-80.0, -160.0])  # 2 (1 - p_y) log p_y where there are two classes


@pytest.mark.parametrize("name", LITERAL)
def test_views_are_averaged(name: Statistic) -> None:
    logits, labels = torch.randn(12, 4, 3), torch.randint(3, (12,))

    def scores(some: Tensor) -> Tensor:
        return Threshold(statistic=name)(Evidence(target=Answers(some), labels=labels)).scores

    each = torch.stack([scores(logits[:, view : view + 1]) for view in range(4)])
    assert torch.allclose(scores(logits), each.mean(0))


def test_the_gap_attack_sees_labels_and_looks_at_the_example_itself() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[0.0, 2.0], [2.0, 0.0]]])
    assert Gap()(Evidence(target=Answers(logits), labels=torch.tensor([0, 0]))).scores.tolist() == [1.0, 0.0]
    assert Gap.access == "labels"


@pytest.mark.parametrize("name", ["loss", "confidence", "entropy", "modified-entropy"])
def test_each_number_has_a_name(name: str) -> None:
    made = registry.create("attacks", name, {"per_class": True, "thresholds": "known"})
    assert made == Threshold(statistic=name.replace("-", "_"), per_class=True, thresholds="known")  # type: ignore[arg-type]


def balanced_accuracy(scores: Tensor, member: Tensor, at: float) -> float:
    taken = scores >= at
    return ((taken[member].double().mean() + (~taken[~member]).double().mean()) / 2).item()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_one_sort_finds_what_a_scan_of_all_thresholds_finds(seed: int, levels: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (60,), generator=stream).double()
    member = torch.rand(60, generator=stream) < 0.3
    candidates = scores.unique().tolist()
    best = max(balanced_accuracy(scores, member, at) for at in candidates)
    found = best_threshold(scores, member)
    assert balanced_accuracy(scores, member, found) == pytest.approx(best)
    highest = max(at for at in candidates if balanced_accuracy(scores, member, at) > best - 1e-12)
    below = [at for at in candidates if at < highest]
    assert found == ((highest + max(below)) / 2 if below else highest)


def test_the_threshold_of_inverted_scores_takes_all_or_none() -> None:
    scores, member = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([True, True, False, False])
    assert best_threshold(scores, member) == 1.0


@pytest.mark.parametrize("member", [True, False])
def test_a_threshold_of_one_side_is_finite(member: bool) -> None:
    assert 1 <= best_threshold(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([member] * 3)) <= 3


def test_each_class_has_its_own_threshold() -> None:
    scores = torch.tensor([0.0, 1.0, 10.0, 11.0])
    found = class_thresholds(scores, torch.tensor([0, 0, 2, 2]), torch.tensor([False, True, False, True]), 3)
    assert found.tolist() == [0.5, 0.0, 10.5]


def with_hard_classes(toy: Toy) -> Toy:
    """The toy where each class is 6 easier than the one before."""

    def eased(answers: Answers) -> Answers:
        place = toy.evidence.labels.view(-1, 1, 1).expand(-1, answers.logits.shape[1], 1)
        return Answers(answers.logits.scatter_add(2, place, 6.0 * place))

    references = toy.evidence.references
    if references is not None:
        references = replace(references, answers=tuple(eased(one) for one in references.answers))
    return replace(toy, evidence=replace(toy.evidence, target=eased(toy.evidence.target), references=references))


@pytest.mark.parametrize("thresholds", get_args(Teacher))
def test_a_threshold_for_each_class_is_better_where_classes_differ(thresholds: Teacher) -> None:
    toy = with_hard_classes(gaussian(models=4))
    kinds = [Threshold(per_class=per_class, thresholds=thresholds) for per_class in (False, True)]
    together, apart = (attack(toy.evidence).scores[toy.asked] for attack in kinds)
    member, optimum = toy.member[toy.asked], toy.optimum[toy.asked]
    best = balanced_accuracy(optimum, member, 1.0)  # halfway between the means of non-members and members
    assert balanced_accuracy(together, member, best_threshold(together, member)) < 0.75 * best
    assert balanced_accuracy(apart, member, 0.0) > 0.97 * best


@pytest.mark.parametrize("models", [1, 3])
def test_reference_models_choose_the_thresholds(models: int) -> None:
    toy = gaussian(200, models=models)
    references, labels = toy.evidence.references, toy.evidence.labels
    assert references is not None
    scores = torch.stack([threshold.loss_of(one.logits, labels)[:, 0] for one in references.answers])
    for known in (toy.evidence.known, None):
        found = Threshold(per_class=True)(replace(toy.evidence, known=known)).scores
        for place in range(4):
            own = labels == place
            at = best_threshold(scores[:, own].flatten(), references.keep[:, own].flatten())
            assert torch.allclose(found[own], threshold.loss_of(toy.evidence.target.logits, labels)[own, 0] - at)


def test_known_examples_choose_the_thresholds_where_it_is_told_so() -> None:
    toy = gaussian(200, models=3)
    labels, known = toy.evidence.labels, toy.evidence.known
    assert known is not None
    scores = threshold.loss_of(toy.evidence.target.logits, labels)[:, 0]
    for references in (toy.evidence.references, None):
        found = Threshold(per_class=True, thresholds="known")(replace(toy.evidence, references=references)).scores
        for place in range(4):
            own, told = labels == place, (labels == place) & (known >= 0)
            assert torch.allclose(found[own], scores[own] - best_threshold(scores[told], known[told] == 1))


@pytest.mark.parametrize("side", [0, 1])
def test_a_class_of_one_side_is_named(side: int) -> None:
    toy = gaussian(200, models=0)
    known = toy.evidence.known
    assert known is not None
    hidden = (toy.evidence.labels == 2) & (known == side)
    counts = [int(((toy.evidence.labels == 2) & (known == other) & ~hidden).sum()) for other in (1, 0)]
    with pytest.raises(DataError, match=f"2 non-members of class 2, found {counts[0]} and {counts[1]}"):
        Threshold(per_class=True, thresholds="known")(replace(toy.evidence, known=torch.where(hidden, -1, known)))


def test_a_class_that_nobody_is_known_of_is_named() -> None:
    toy = gaussian(200, models=0)
    assert toy.evidence.known is not None
    known = torch.where(toy.evidence.labels == 3, -1, toy.evidence.known)
    with pytest.raises(DataError, match="of class 3, found 0 and 0"):
        Threshold(per_class=True, thresholds="known")(replace(toy.evidence, known=known))


def test_thresholds_of_classes_need_what_they_are_chosen_by() -> None:
    evidence = gaussian(40).evidence
    assert Threshold().needs == Threshold(thresholds="known").needs == frozenset()
    assert Threshold(per_class=True).needs == {"references"}
    with pytest.raises(ConfigError, match="at least 1 reference models, found 0"):
        Threshold(per_class=True)(replace(evidence, references=None))
    assert Threshold(per_class=True, thresholds="known").needs == {"known"}
    with pytest.raises(ConfigError, match="examples whose membership the adversary knows, found none"):
        Threshold(per_class=True, thresholds="known")(replace(evidence, known=None))


def test_an_unknown_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'references'"):
        Threshold(thresholds="reference")  # type: ignore[arg-type]


def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'entropy'"):
        Threshold(statistic="entrop")  # type: ignore[arg-type]
