# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import quadrants
from sfumato.attacks.weights.base import InversionAttack, Inverted, Means
from sfumato.court import Court
from sfumato.errors import ConfigError, DataError
from sfumato.evaluator import Evaluator
from sfumato.inversion import assemble_inversion, judge_inversion, yardsticks
from sfumato.inversion_exhibits import JudgedPictures
from sfumato.inversion_types import ClassPictures, InversionResult
from sfumato.metrics.proportion import exact_share
from sfumato.types import Labels


@dataclass(kw_only=True)
class Painter(InversionAttack):
    """Paints each class as it is, or another one."""

    access = "labels"
    prior = "style"

    off: int = 0

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        return painted(labels + self.off)


def painted(labels: Tensor, each: int = 3, reached: Tensor | None = None) -> ClassPictures:
    """Perfect pictures of classes."""
    x = quadrants.identity(labels.repeat_interleave(each)).view(len(labels), each, *quadrants.SHAPE)
    return ClassPictures(x, torch.ones(len(labels), dtype=torch.bool) if reached is None else reached)


def judged(pictures: ClassPictures, classes: list[int], court: Court | None = None, seed: int = 0) -> InversionResult:
    return looked_at(pictures, classes, court, seed)[0]


def looked_at(
    pictures: ClassPictures, classes: list[int], court: Court | None = None, seed: int = 0
) -> tuple[InversionResult, JudgedPictures]:
    """What the pictures come to, and what is made of each."""
    found = Inverted(pictures, seconds=1.5, queries=7)
    return judge_inversion(
        "painter", Painter(off=2), found, classes=torch.tensor(classes), court=court or quadrants.court(), seed=seed
    )


def test_perfect_pictures_are_named_by_everybody() -> None:
    found = judged(painted(torch.tensor([3, 0, 1])), [3, 0, 1])
    assert (found.top1, found.top5, found.named) == (exact_share(3, 3),) * 3  # three classes show no more
    assert found.confidence.value > 0.99
    assert (found.identities, found.per_class, found.unreached) == (3, 3, 0)
    assert (found.name, found.seed, found.access, found.prior) == ("painter", 0, "labels", "style")
    assert (found.seconds, found.queries, found.settings["off"]) == (1.5, 7, 2)
    assert [one.name for one in found.classes] == ["person 3", "person 0", "person 1"]
    assert found.face is None
    assert found.factors is None
    assert 0 < found.knn.value < 0.1


def test_pictures_of_somebody_else_are_named_by_nobody() -> None:
    good, bad = judged(painted(torch.tensor([0, 1])), [0, 1]), judged(painted(torch.tensor([1, 0])), [0, 1])
    assert bad.top1.value == bad.named.value == 0
    assert bad.confidence.value < 0.01
    assert bad.knn.value > 10 * good.knn.value
    assert bad.centroid.value > 3 * good.centroid.value
    assert bad.frechet == pytest.approx(good.frechet)  # the same pictures all in all


def test_each_class_has_its_own_numbers_in_the_order_that_was_attacked() -> None:
    found = judged(painted(torch.tensor([2, 1, 0])), [2, 0, 1])
    assert [(one.name, one.accuracy) for one in found.classes] == [("person 2", 1), ("person 0", 0), ("person 1", 0)]
    assert found.top1.value == pytest.approx(1 / 3)
    assert (found.top1.low, found.top1.high) == (0, 1)
    assert [round(one.confidence, 2) for one in found.classes] == [1, 0, 0]
    assert found.classes[0].distance < 0.1 < 1 < found.classes[1].distance
    assert found.knn.value == pytest.approx(sum(one.distance for one in found.classes) / 3)


def test_a_class_that_was_not_reached_counts_as_a_failure() -> None:
    reached = torch.tensor([True, False])
    found = judged(painted(torch.tensor([0, 1]), reached=reached), [0, 1])
    assert (found.top1.value, found.top5.value, found.unreached) == (0.5, 0.5, 1)
    assert [one.reached for one in found.classes] == [True, False]
    assert [one.accuracy for one in found.classes] == [1, 0]


def test_random_pictures_are_right_as_often_as_chance() -> None:
    x = quadrants.shown(torch.rand(4 * 400, 4, generator=torch.Generator().manual_seed(3))).view(4, 400, *quadrants.SHAPE)
    found = judged(ClassPictures(x, torch.ones(4, dtype=torch.bool)), [0, 1, 2, 3])
    assert found.top1.value == pytest.approx(1 / 4, abs=0.04)
    assert found.named.value == pytest.approx(1 / 4, abs=0.04)


def test_a_target_that_is_fooled_is_seen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pictures that please the target alone, the confidence is high and the attack accuracy is not: false positives."""
    court = quadrants.court()
    with torch.no_grad():
        court.target.split.tail.weight.copy_(10 * torch.eye(4).roll(1, 0))  # type: ignore[operator, union-attr]
    found = judged(painted(torch.tensor([0, 1])), [1, 2], court)
    assert found.confidence.value > 0.99
    assert (found.named.value, found.top1.value) == (1, 0)


def test_pictures_of_other_classes_than_attacked_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected pictures of the 3 classes that were attacked, found those of 2"):
        judged(painted(torch.tensor([0, 1])), [0, 1, 2])
    with pytest.raises(DataError, match="two sets of 2 pictures or more"):
        judged(painted(torch.tensor([0]), each=1), [0])


def test_pictures_to_look_at_carry_what_is_made_of_each() -> None:
    court, pictures = quadrants.court(), painted(torch.tensor([0, 2]), each=2)
    pictures.x_hat[1, 1] = quadrants.identity(torch.tensor([3]))[0]
    _, found = looked_at(pictures, [0, 2], court, seed=4)
    assert found.right.tolist() == [[True, True], [True, False]]
    assert found.confidence.round().tolist() == [[1, 1], [1, 0]]
    assert (found.attack, found.seed, found.pictures) == ("painter", 4, pictures)


def test_a_picture_to_look_at_is_right_where_the_accuracy_counts_it() -> None:
    """Of a gray picture the evaluator makes the same of every class: that names nobody, in the table and in the gallery."""
    court, pictures = quadrants.court(), painted(torch.tensor([0, 2]), each=2)
    pictures.x_hat[:, 0] = 0.5
    result, shown = looked_at(pictures, [0, 2], court)
    assert shown.right.tolist() == [[False, True], [False, True]]
    assert result.top1.value == 0.5


def test_held_out_pictures_are_near_and_public_ones_far() -> None:
    floor, ceiling = yardsticks(quadrants.court(), torch.tensor([0, 1, 2, 3]))
    assert floor.top1.value == 1
    assert ceiling.top1.value == pytest.approx(1 / 4, abs=0.2)
    assert floor.knn.value < ceiling.knn.value / 10
    assert floor.centroid.value < ceiling.centroid.value / 3
    assert floor.frechet < ceiling.frechet / 10
    assert floor.kid < ceiling.kid
    assert floor.factors is None


def test_yardsticks_are_of_the_attacked_classes_and_of_no_more_pictures_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    measure = Court.measure_stored

    def noted(court: Court, pictures: object, labels: Tensor) -> object:
        seen.append((pictures.labels, labels))  # type: ignore[attr-defined]
        return measure(court, pictures, labels)  # type: ignore[arg-type]

    monkeypatch.setattr(Court, "measure_stored", noted)
    yardsticks(quadrants.court(), torch.tensor([3, 1]), pictures=5)
    (held, own), (public, taken) = seen
    assert torch.equal(held, own)
    assert set(held.tolist()) == {1, 3}
    assert len(held) == len(public) == 5
    assert sorted(taken.tolist()) == [1, 1, 3, 3, 3]
    assert int(public.min()) >= 4


@pytest.mark.parametrize("part", ["test", "public"])
def test_yardsticks_need_pictures(part: str) -> None:
    court = quadrants.court()
    data = court.data.with_parts(**{part: court.data.part(part).subset(torch.arange(0))})
    with pytest.raises(DataError, match="yardsticks need 2 held-out private pictures of the attacked classes and 2 public ones"):
        yardsticks(replace(court, data=data), torch.tensor([0, 1]))


def test_an_audit_holds_what_was_judged_and_by_whom() -> None:
    court, classes = quadrants.court(), torch.tensor([0, 1])
    results = [judged(painted(classes + off), [0, 1], court, seed) for seed, off in ((0, 1), (1, 0))]
    found = assemble_inversion(
        court, results, classes=classes, attacks={"painter": Painter(off=2)}, priors=(), seeds=(0, 1), overlap=3, title="toy"
    )
    assert found.strongest() is results[1]
    assert (found.identities, found.outputs, found.chance, found.overlap, found.title) == (2, 4, 0.25, 3, "toy")
    assert found.evaluator.trusted
    assert found.floor.top1.value == 1
    assert found.seeds == (0, 1)
    assert not any("gate" in one for one in found.untested)


def test_an_evaluator_below_its_gate_concludes_nothing() -> None:
    data = quadrants.people()
    wrong = data.with_parts(test=data.part("test").relabeled((data.part("test").labels + 1) % 4, {}))
    court = quadrants.court(wrong, Evaluator(model="quadrants:brightest", gate=0.6))
    found = assemble_inversion(
        court, [judged(painted(torch.tensor([0, 1])), [0, 1])], classes=torch.tensor([0, 1]),
        attacks={"painter": Painter()}, priors=(), seeds=(0,),
    )  # fmt: skip
    assert found.strongest() is None
    assert found.evaluator.accuracy.value == 0
    assert "names 0% of held-out private pictures right, which is below its gate of 60%" in found.untested[0]
