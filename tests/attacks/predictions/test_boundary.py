# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sfumato.attacks.predictions.base import Answers, Evidence, Oracle
from sfumato.attacks.predictions.boundary import Augmentation, Boundary, views_right
from sfumato.attacks.predictions.hopskipjump import FEWEST, boundary_distances
from sfumato.errors import ConfigError
from sfumato.trials import ask

SHAPE = (1, 8, 8)
QUERIES = Boundary().queries


class Asked:
    """What says whether pictures are called something else; it counts how often it is asked about each."""

    def __init__(self, rule: Callable[[Tensor], Tensor], count: int) -> None:
        self.rule = rule
        self.counts = torch.zeros(count, dtype=torch.int64)

    def __call__(self, x: Tensor, place: Tensor) -> Tensor:
        assert x.shape[1:] == SHAPE
        assert len(x) == len(place) > 0
        assert float(x.min()) >= 0
        assert float(x.max()) <= 1
        self.counts += place.bincount(minlength=len(self.counts))
        return self.rule(x.flatten(1))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plane(seed: int = 0) -> tuple[Tensor, float]:
    """A random direction and what it is in the middle of the box: pictures below are called something else."""
    weight = torch.randn(64, generator=stream(seed))
    return weight, 0.5 * weight.sum().item()


def inside(weight: Tensor, bias: float, count: int = 12) -> tuple[Tensor, Tensor]:
    """Pictures that are named right, and how far they are from the plane."""
    x = 0.3 + 0.4 * torch.rand(400, *SHAPE, generator=stream(1))
    margin = (x.flatten(1) @ weight - bias) / weight.norm()
    kept = (margin > 0.05).nonzero()[:count, 0]
    return x[kept], margin[kept]


def search(asked: Asked, x: Tensor, *, queries: int = QUERIES, examples: Tensor | None = None, seed: int = 0) -> Tensor:
    examples = torch.ones(0, *SHAPE) if examples is None else examples
    wrong = torch.ones(len(x), len(examples), dtype=torch.bool)
    return boundary_distances(x, asked, examples=examples, wrong=wrong, queries=queries, generator=stream(seed))


@pytest.mark.parametrize("seed", range(4))
def test_the_distance_to_a_plane_is_found(seed: int) -> None:
    weight, bias = plane(seed)
    x, margin = inside(weight, bias)
    found = search(Asked(lambda z: z @ weight < bias, len(x)), x)
    assert bool((found >= margin * (1 - 1e-4)).all())  # a point that is called something else is never nearer than the plane
    assert float((found / margin).max()) < 1.07


def test_an_example_is_a_start_where_noise_is_called_one_class() -> None:
    """Something else is the inside of a small ball, which no noise falls into."""
    center = torch.full((64,), 0.9)
    x = torch.full((3, *SHAPE), 0.4) + 0.1 * torch.rand(3, *SHAPE, generator=stream())
    asked = Asked(lambda z: (z - center).norm(dim=1) < 1, 3)
    assert bool(search(asked, x).isinf().all())
    expected = (x.flatten(1) - center).norm(dim=1) - 1
    found = search(asked, x, examples=center.view(1, *SHAPE))
    assert float((found / expected).max()) < 1.02
    assert float((found / expected).min()) > 0.999


def test_a_search_starts_at_the_nearest_example_of_another_class() -> None:
    weight, bias = plane()
    x, margin = inside(weight, bias, count=1)
    across = x - (margin + 0.01).view(1, 1, 1, 1) * (weight / weight.norm()).view(1, *SHAPE)
    examples = torch.cat([torch.rand(5, *SHAPE, generator=stream(3)), across, x])
    wrong = (examples.flatten(1) @ weight < bias)[None]
    asked = Asked(lambda z: z @ weight < bias, 1)
    found = boundary_distances(x, asked, examples=examples, wrong=wrong, queries=FEWEST, generator=stream())
    assert found.item() == pytest.approx(margin.item(), rel=0.01)  # nothing but its binary search is needed


def test_a_step_is_halved_where_it_leaves_what_is_called_something_else() -> None:
    """Which is a thin layer here: the search must walk along it to where it is nearest."""
    weight, bias = plane()
    x, margin = inside(weight, bias, count=4)
    normal = weight / weight.norm()
    aside = torch.ones(64) - (torch.ones(64) @ normal) * normal
    examples = (x.flatten(1) - (margin + 0.01)[:, None] * normal + aside / aside.norm()).view(-1, *SHAPE)
    layer = Asked(lambda z: (z @ normal < bias / weight.norm()) & (z @ normal > bias / weight.norm() - 0.05), 4)
    first, last = (search(layer, x, examples=examples, queries=queries) for queries in (FEWEST, QUERIES))
    assert bool((first > 0.8).all())
    assert float((last - margin).max()) < 0.1


@pytest.mark.parametrize("queries", [FEWEST, 237, 1000])
def test_no_picture_is_asked_about_more_often_than_it_may_be(queries: int) -> None:
    weight, bias = plane()
    x, _ = inside(weight, bias)
    asked = Asked(lambda z: z @ weight < bias, len(x))
    search(asked, x, queries=queries, examples=torch.zeros(1, *SHAPE))
    assert int(asked.counts.max()) <= queries
    if queries == 1000:
        assert int(asked.counts.min()) > 600


def test_more_queries_never_make_it_larger() -> None:
    weight, bias = plane()
    x, _ = inside(weight, bias)
    found = torch.stack([search(Asked(lambda z: z @ weight < bias, len(x)), x, queries=q) for q in (100, 300, 600, 1200, 2400)])
    assert bool((found.diff(dim=0) <= 0).all())
    assert bool((found[-1] < found[0] / 2).all())


def test_pictures_at_the_edge_of_the_box_stay_inside_it() -> None:
    x = torch.ones(2, *SHAPE)
    found = search(Asked(lambda z: z.sum(1) < 60, 2), x)
    assert found.tolist() == pytest.approx([0.5, 0.5], rel=0.07)  # 4 less over 64 pixels: 4 / sqrt(64)


def test_what_is_fixed_stays_0() -> None:
    fixed = torch.arange(64).view(SHAPE) >= 32
    x = torch.full((2, *SHAPE), 0.75).where(~fixed, 0)

    def dark(asked: Tensor, place: Tensor) -> Tensor:
        assert bool((asked[:, fixed] == 0).all())
        return asked[:, ~fixed].mean(1) < 0.5

    nothing = {"examples": torch.ones(0, *SHAPE), "wrong": torch.ones(2, 0, dtype=torch.bool)}
    found = boundary_distances(x, dark, **nothing, queries=QUERIES, generator=stream(), fixed=fixed)
    assert found.tolist() == pytest.approx([0.25 * math.sqrt(32)] * 2, rel=0.02)


def test_answers_that_change_from_time_to_time_give_finite_distances() -> None:
    noise = stream(5)
    x = torch.full((4, *SHAPE), 0.6)
    found = search(Asked(lambda z: z.mean(1) + 0.02 * torch.randn(len(z), generator=noise) < 0.5, 4), x, queries=500)
    assert bool(found.isfinite().all())


def linear_evidence(count: int = 60, classes: int = 3, views: int = 1) -> tuple[Evidence, Tensor]:
    """A linear target, and how far each example is from another class: 0 where its label is wrong."""
    weight = torch.randn(classes, 64, generator=stream())
    x = torch.rand(count, *SHAPE, generator=stream(1))
    logits = (x.flatten(1) - 0.5) @ weight.T
    labels = logits.argmax(1)
    labels[::3] = (labels[::3] + 1) % classes
    gaps = (logits.gather(1, labels[:, None]) - logits) / (weight[labels][:, None] - weight).norm(dim=2)
    distance = gaps.scatter(1, labels[:, None], torch.inf).amin(1).clamp_min(0)
    oracle = Oracle(
        labels=lambda z: ((z.flatten(1) - 0.5) @ weight.T).argmax(1), read=lambda index: x[index.cpu()], classes=classes
    )
    return Evidence(target=Answers(logits[:, None].repeat(1, views, 1)), labels=labels, oracle=oracle), distance


def test_the_score_is_the_distance_and_0_where_the_label_is_wrong() -> None:
    evidence, distance = linear_evidence()
    told = Boundary()(evidence)
    assert bool((told.scores[::3] == 0).all())
    right = distance > 0
    ratio = told.scores[right] / distance[right]
    assert int(right.sum()) == 40
    assert float(ratio.median()) < 1.1
    assert float(ratio.min()) > 0.999
    assert told.queries <= 60 + 40 * QUERIES
    assert told.queries > 40 * QUERIES // 2


def test_the_same_seed_gives_the_same_distances_and_labels_are_all_it_sees() -> None:
    evidence, _ = linear_evidence()
    attack = Boundary(queries=300)
    first = attack(evidence).scores
    assert torch.equal(first, attack(evidence).scores)
    hidden = Evidence(target=Answers(7 * evidence.target.logits), labels=evidence.labels, oracle=evidence.oracle)
    assert torch.equal(first, attack(hidden).scores)
    other = Evidence(target=evidence.target, labels=evidence.labels, oracle=evidence.oracle, seed=1)
    assert not torch.equal(first, attack(other).scores)


def test_an_audit_asks_about_as_many_examples_as_there_are_pictures() -> None:
    evidence, distance = linear_evidence()
    attack = Boundary(queries=300, pictures=9)
    trials = ask(attack, evidence, torch.arange(60) % 2 == 0, {})
    assert len(trials.scores) == attack.limit - 1  # as many members as others
    assert trials.queries <= 8 + 8 * 300
    assert int((attack(evidence).scores > 0).sum()) == int((distance > 0).sum())  # by itself it asks about all that it is given


def as_table(evidence: Evidence, low: Tensor, width: Tensor) -> Evidence:
    """The same target of rows of a table, of which each feature has a range of its own."""
    oracle = evidence.oracle
    assert oracle is not None
    read, labels = oracle.read, oracle.labels

    def told(rows: Tensor) -> Tensor:
        assert rows.shape[1:] == (64, 1, 1)
        assert bool((rows >= low - 1e-4 * width).all())
        assert bool((rows <= low + width * (1 + 1e-4)).all())
        return labels(((rows - low) / width.where(width > 0, 1)).view(-1, *SHAPE))

    table = Oracle(
        labels=told,
        read=lambda index: low + width * read(index).view(-1, 64, 1, 1),
        classes=oracle.classes,
        box=(low, low + width),
    )
    return replace(evidence, oracle=table)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_rows_of_a_table_are_searched_within_the_range_of_each_feature(offset: float) -> None:
    """Of pictures, and of rows that are these in other units, the distances are the same."""
    evidence, _ = linear_evidence()
    width = 2.0 ** (torch.arange(64.0) % 16 - 6).view(64, 1, 1)  # by powers of two nothing is rounded
    rows = as_table(evidence, offset * width * torch.randn(64, 1, 1, generator=stream(2)), width)
    expected, found = (Boundary(queries=1000)(one).scores for one in (evidence, rows))
    if offset == 0:
        assert torch.equal(found, expected)
    right = expected > 0
    assert torch.equal(found > 0, right)
    assert float((found / expected)[right].log().median().abs()) < 0.05


def test_a_feature_that_never_changes_is_left_as_it_is() -> None:
    evidence, _ = linear_evidence()
    low, width = torch.full((64, 1, 1), -3.0), torch.full((64, 1, 1), 4.0)
    width[10:] = 0
    asked: list[Tensor] = []
    table = as_table(evidence, low, width).oracle
    assert table is not None
    labels = table.labels

    def noted(rows: Tensor) -> Tensor:
        asked.append(rows)
        return labels(rows)

    told = labels(table.read(torch.arange(60)))
    logits = torch.nn.functional.one_hot(told, 3)[:, None].float()
    held = Evidence(target=Answers(logits), labels=told, oracle=replace(table, labels=noted))
    found = Boundary(queries=300)(held).scores
    assert bool((torch.cat(asked)[:, 10:] == -3).all())
    assert len(torch.cat(asked)[:, :10].unique()) > 1000
    assert float(found.max()) <= math.sqrt(10)
    one = replace(held, oracle=replace(table, labels=lambda rows: torch.full((len(rows),), int(told[0]))))
    assert Boundary(queries=300)(one.at(torch.tensor([0]))).scores.item() == pytest.approx(math.sqrt(10))


def test_a_target_that_says_one_thing_is_as_far_as_the_box_is_wide() -> None:
    x = torch.rand(6, *SHAPE, generator=stream())
    oracle = Oracle(labels=lambda z: torch.zeros(len(z), dtype=torch.int64), read=lambda index: x[index], classes=2)
    target = Answers(torch.tensor([1.0, 0.0]).repeat(6, 1, 1))
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    found = Boundary(queries=200)(Evidence(target=target, labels=labels, oracle=oracle)).scores
    assert found.tolist() == [8.0, 8.0, 8.0, 0.0, 0.0, 0.0]
    nothing = Boundary(queries=200)(Evidence(target=target, labels=torch.ones(6, dtype=torch.int64), oracle=oracle))
    assert nothing.scores.tolist() == [0.0] * 6
    assert nothing.queries == 6


@pytest.mark.parametrize("bad", [{"queries": FEWEST - 1}, {"pictures": 0}, {"starts": -1}])
def test_what_it_refuses(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Boundary(**bad)


def test_no_examples_to_start_from_will_do() -> None:
    evidence, distance = linear_evidence()
    found = Boundary(queries=600, starts=0)(evidence).scores
    assert float((found / distance)[distance > 0].median()) < 2


def test_views_are_counted() -> None:
    evidence, _ = linear_evidence(views=4)
    logits = evidence.target.logits.clone()
    logits[0] = logits[0].roll(1, dims=-1)
    logits[5, 1:3] = -logits[5, 1:3]
    told = logits.argmax(-1)
    expected = [sum(int(told[i, v] == evidence.labels[i]) for v in range(4)) / 4 for i in range(60)]
    assert len(set(expected)) > 2
    assert views_right(told, evidence.labels).tolist() == expected
    assert Augmentation()(Evidence(target=Answers(logits), labels=evidence.labels)).scores.tolist() == expected


@pytest.mark.gpu
def test_it_finds_the_distance_on_a_gpu() -> None:
    weight, bias = plane()
    x, margin = inside(weight, bias)
    there = weight.cuda()
    found = boundary_distances(
        x.cuda(),
        lambda z, place: z.flatten(1) @ there < bias,
        examples=torch.ones(0, *SHAPE).cuda(),
        wrong=torch.ones(len(x), 0, dtype=torch.bool).cuda(),
        queries=QUERIES,
        generator=torch.Generator(device="cuda").manual_seed(0),
    )
    assert found.device.type == "cuda"
    assert float((found.cpu() / margin).max()) < 1.07
    assert math.isfinite(float(found.sum()))
