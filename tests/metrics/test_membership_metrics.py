# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from sfumato.errors import ConfigError, DataError
from sfumato.metrics import membership as measures
from sfumato.metrics.proportion import clopper_pearson, exact_share, mean_share, wilson
from sfumato.metrics.roc import MOST, operating_points, roc
from sfumato.types import Interval

DRAWS = 200


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(seed: int, members: int, nonmembers: int, shift: float = 1.0, decimals: int | None = None) -> tuple[Tensor, Tensor]:
    """Scores that are N(shift, 1) for members and N(0, 1) for the others; rounded ones are often equal."""
    member = torch.arange(members + nonmembers) < members
    scores = torch.randn(len(member), generator=stream(seed), dtype=torch.float64) + shift * member
    order = torch.randperm(len(member), generator=stream(seed + 1))
    return (scores if decimals is None else scores.round(decimals=decimals))[order], member[order]


def slow_auc(scores: np.ndarray, member: np.ndarray) -> tuple[float, float]:
    """DeLong's estimate and variance from the matrix of all pairs."""
    x, y = scores[member], scores[~member]
    kernel = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    return kernel.mean(), kernel.mean(1).var(ddof=1) / len(x) + kernel.mean(0).var(ddof=1) / len(y)


def slow_points(scores: np.ndarray, member: np.ndarray) -> list[tuple[int, int]]:
    """Members and non-members at or above each threshold, counted one threshold at a time."""
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    return [(int((member & (scores >= t)).sum()), int((~member & (scores >= t)).sum())) for t in thresholds]


CASES = [(0, 30, 40, None), (1, 40, 30, 1), (2, 25, 25, 0), (3, 2, 9, 0)]


@pytest.mark.parametrize(("seed", "members", "nonmembers", "decimals"), CASES)
def test_operating_points_are_those_of_every_threshold(seed: int, members: int, nonmembers: int, decimals: int | None) -> None:
    scores, member = gaussian(seed, members, nonmembers, decimals=decimals)
    points = operating_points(scores, member)
    assert [*zip(points.hits.tolist(), points.alarms.tolist(), strict=True)] == slow_points(scores.numpy(), member.numpy())
    for place in range(len(points.thresholds)):
        taken = scores >= points.between(place)
        assert (int((taken & member).sum()), int((taken & ~member).sum())) == (points.hits[place], points.alarms[place])
        assert points.at(points.between(place)) == place
    curve = roc(scores, member)
    assert curve.tpr == pytest.approx([hits / members for hits, _ in slow_points(scores.numpy(), member.numpy())])


def test_a_threshold_lies_between_neighbors_even_where_no_number_does() -> None:
    upper = math.nextafter(1.0, 2.0)
    points = operating_points(torch.tensor([upper, 1.0], dtype=torch.float64), torch.tensor([True, False]))
    assert points.between(1) == upper
    huge = operating_points(torch.tensor([1.7e308, 1.6e308], dtype=torch.float64), torch.tensor([True, False]))
    assert 1.6e308 < huge.between(1) < 1.7e308


def test_a_stored_curve_keeps_both_ends_and_the_points_of_few_false_alarms() -> None:
    scores, member = gaussian(0, 10_000, 10_000)
    points, curve = operating_points(scores, member), roc(scores, member)
    whole = set(zip((points.alarms / 10_000).tolist(), (points.hits / 10_000).tolist(), strict=True))
    stored = [*zip(curve.fpr, curve.tpr, strict=True)]
    assert len(stored) <= MOST
    assert stored[0] == (0, 0)
    assert stored[-1] == (1, 1)
    assert {(round(a, 4), round(b, 4)) for a, b in stored} <= {(round(a, 4), round(b, 4)) for a, b in whole}
    assert list(curve.fpr) == sorted(curve.fpr)
    assert list(curve.tpr) == sorted(curve.tpr)
    for alarms in range(10):
        assert (alarms / 10_000, points.hits[points.within(alarms)].item() / 10_000) in stored
    gaps = np.diff(curve.fpr)
    assert gaps.max() < 0.1
    assert np.diff(curve.tpr).max() < 0.03
    assert np.median(gaps[np.array(curve.fpr[1:]) < 0.01]) < np.median(gaps[np.array(curve.fpr[1:]) > 0.1])


@pytest.mark.parametrize(("seed", "members", "nonmembers", "decimals"), CASES)
def test_auc_and_its_interval_are_those_of_all_pairs(seed: int, members: int, nonmembers: int, decimals: int | None) -> None:
    scores, member = gaussian(seed, members, nonmembers, decimals=decimals)
    value, variance = slow_auc(scores.numpy(), member.numpy())
    found = measures.auc(scores, member)
    half = 1.959964 * math.sqrt(variance) / (value * (1 - value))
    ends = [1 / (1 + math.exp(-(math.log(value / (1 - value)) + sign * half))) for sign in (-1, 1)]
    assert [found.value, found.low, found.high] == pytest.approx([value, *ends], abs=1e-6)


def test_auc_is_that_of_another_library() -> None:
    theirs = pytest.importorskip("sklearn.metrics")
    scores, member = gaussian(5, 200, 300, decimals=1)
    assert measures.auc(scores, member).value == pytest.approx(theirs.roc_auc_score(member.numpy(), scores.numpy()))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (lambda member: member * 1.0, Interval(1.0, 0.025 ** (1 / 20), 1.0)),
        (lambda member: member * -1.0, Interval(0.0, 0.0, 1 - 0.025 ** (1 / 20))),
        (lambda member: member * 0.0, Interval(0.5, 0.025 ** (1 / 20) / 2, 1 - 0.025 ** (1 / 20) / 2)),
    ],
)
def test_an_auc_without_variance_has_an_exact_interval(scores: Callable[[Tensor], Tensor], expected: Interval) -> None:
    member = torch.arange(50) < 20
    found = measures.auc(scores(member), member)
    assert [found.value, found.low, found.high] == pytest.approx([expected.value, expected.low, expected.high])


@pytest.mark.parametrize(("size", "shift"), [(20, 0.0), (100, 1.0), (100, 4.0)])
def test_the_interval_of_auc_covers_the_truth(size: int, shift: float) -> None:
    truth = NormalDist().cdf(shift / math.sqrt(2))
    found = [measures.auc(*gaussian(seed, size, size, shift)) for seed in range(DRAWS)]
    assert 0.90 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.995


@pytest.mark.parametrize(("seed", "decimals"), [(0, None), (1, 1), (2, 0)])
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.29])
def test_true_positives_are_those_of_the_best_allowed_threshold(seed: int, decimals: int | None, fpr: float) -> None:
    scores, member = gaussian(seed, 150, 1000, decimals=decimals)
    allowed = [hits for hits, alarms in slow_points(scores.numpy(), member.numpy()) if alarms / 1000 <= fpr]
    theirs = binomtest(max(allowed), 150).proportion_ci(method="exact")
    found = measures.tpr_at(scores, member, fpr)
    assert [found.value, found.low, found.high] == pytest.approx([max(allowed) / 150, theirs.low, theirs.high])
    assert found.missing == ""


def test_false_alarms_are_never_more_than_allowed_because_of_ties() -> None:
    member = torch.arange(200) < 100
    scores = torch.where(member, 1.0, 0.0)
    scores[100:102] = 1.0  # two non-members score what all members score
    assert measures.tpr_at(scores, member, 0.01).value == 0
    scores[101] = 0.0
    assert measures.tpr_at(scores, member, 0.01).value == 1


def test_a_share_is_not_rounded_down_by_arithmetic() -> None:
    member = torch.arange(200) < 100
    scores = torch.cat([torch.full((100,), 0.5), torch.arange(100) / -100])
    scores[100:129] = 1.0
    assert measures.tpr_at(scores, member, 0.29).value == 1  # 0.29 * 100 is 28.999999999999996
    assert measures.tpr_at(scores, member, 0.28).value == 0


@pytest.mark.parametrize(
    ("nonmembers", "fpr", "quoted"),
    [(99, 0.01, False), (100, 0.01, True), (9_999, 0.001, False), (10_000, 0.001, True), (199, 0.05, False), (200, 0.05, True)],
)
def test_a_share_of_too_few_nonmembers_is_not_quoted(nonmembers: int, fpr: float, quoted: bool) -> None:
    found = measures.tpr_at(*gaussian(0, 10, nonmembers), fpr)
    assert (found.value is not None) == quoted
    assert (found.low is None) == (found.high is None) == (found.value is None)
    if not quoted:
        said = (
            f"too few non-members ({nonmembers:,}): {100 * fpr:.4g} % false alarms need at least {nonmembers + 1:,}; score more"
        )
        assert found.missing.startswith(said)


def test_the_interval_of_true_positives_covers_the_share_at_its_threshold() -> None:
    covered = []
    for seed in range(DRAWS):
        scores, member = gaussian(seed, 200, 200)
        found, points = measures.tpr_at(scores, member, 0.01), operating_points(scores, member)
        # The threshold is that of the third non-member, which members have no part in choosing.
        truth = 1 - NormalDist().cdf(scores[~member].sort(descending=True).values[2].item() - 1)
        assert points.alarms[points.within(2)] == 2
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(covered) <= 1


def slow_threshold(scores: np.ndarray, member: np.ndarray) -> float:
    """The best threshold of all halfway between two scores; of several, the highest."""
    values = [np.inf, *sorted(set(scores), reverse=True), -np.inf]
    middles = [np.inf, *((a + b) / 2 for a, b in zip(values[1:], values[2:], strict=False))]
    gains = [(scores[member] >= t).mean() + (scores[~member] < t).mean() for t in middles]
    return next(t for t, gain in zip(middles, gains, strict=True) if gain > max(gains) - 1e-12)


@pytest.mark.parametrize(("seed", "members", "nonmembers", "decimals"), [*CASES, (4, 31, 20, 1)])
def test_each_half_is_decided_by_the_other(seed: int, members: int, nonmembers: int, decimals: int | None) -> None:
    scores, member = gaussian(seed, members, nonmembers, decimals=decimals)
    taken = measures.cross_fitted(scores, member, stream(seed)).numpy()
    half = measures._half(member, stream(seed)).numpy()
    assert (half & member.numpy()).sum() == members // 2
    assert (half & ~member.numpy()).sum() == nonmembers // 2
    for learned in (half, ~half):
        threshold = slow_threshold(scores.numpy()[learned], member.numpy()[learned])
        assert (taken[~learned] == (scores.numpy()[~learned] >= threshold)).all()


def test_single_precision_does_not_blur_a_threshold() -> None:
    upper = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item()
    member = torch.arange(40) < 20
    scores = torch.where(member, upper, 1.0)
    assert scores.dtype == torch.float32
    assert measures.cross_fitted(scores, member, stream(0)).tolist() == member.tolist()


def test_cross_fitting_is_not_optimistic_where_the_best_threshold_is() -> None:
    fitted, best = [], []
    for seed in range(300):
        scores, member = gaussian(seed, 20, 20, 0.0)
        fitted.append(measures.balanced_accuracy(measures.cross_fitted(scores, member, stream(seed)), member).value)
        threshold = slow_threshold(scores.numpy(), member.numpy())
        best.append(measures.balanced_accuracy(scores >= threshold, member).value)
    assert np.mean(fitted) == pytest.approx(0.5, abs=0.02)
    assert np.mean(best) > 0.57


def test_the_interval_of_balanced_accuracy_joins_those_of_two_shares() -> None:
    member = torch.arange(50) < 20
    taken = torch.cat([torch.arange(20) < 15, torch.arange(30) < 6])
    first, second = (binomtest(*counts).proportion_ci(method="wilson") for counts in ((15, 20), (24, 30)))
    low = 0.775 - 0.5 * np.sqrt((0.75 - first.low) ** 2 + (0.8 - second.low) ** 2)
    high = 0.775 + 0.5 * np.sqrt((first.high - 0.75) ** 2 + (second.high - 0.8) ** 2)
    found = measures.balanced_accuracy(taken, member)
    assert [found.value, found.low, found.high] == pytest.approx([0.775, low, high], abs=1e-6)
    assert measures.advantage(found).low == pytest.approx(2 * low - 1, abs=1e-6)


@pytest.mark.parametrize(("inside", "outside", "size"), [(0.5, 0.5, 50), (0.8, 0.3, 50), (0.97, 0.02, 200)])
def test_the_interval_of_balanced_accuracy_covers_the_truth_of_answers_by_label(inside: float, outside: float, size: int) -> None:
    truth, covered = (inside + 1 - outside) / 2, []
    member = torch.arange(2 * size) < size
    for seed in range(DRAWS):
        scores = (torch.rand(2 * size, generator=stream(seed)) < torch.where(member, inside, outside)).double()
        found = measures.balanced_accuracy(measures.cross_fitted(scores, member, stream(seed)), member)
        covered.append(found.low <= truth <= found.high)
    assert 0.90 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("size", [50, 1000])
def test_the_bound_on_epsilon_holds_for_a_mechanism_whose_epsilon_is_known(size: int) -> None:
    member, epsilon = torch.arange(2 * size) < size, 1.0
    honest, found = math.exp(epsilon) / (1 + math.exp(epsilon)), []
    for seed in range(DRAWS):
        truth = torch.rand(2 * size, generator=stream(seed)) < honest  # randomized response is epsilon-private
        found.append(measures.epsilon_bound((truth == member).double(), member, stream(seed), delta=0.0))
    assert np.mean([one <= epsilon for one in found]) >= 0.95
    assert np.mean(found) > {50: 0.05, 1000: 0.7}[size]


@pytest.mark.parametrize("turned", [False, True])
def test_epsilon_is_bounded_from_both_ends(turned: bool) -> None:
    member = torch.arange(2000) < 1000
    only = torch.zeros(2000)
    only[torch.arange(1000, 1150) if turned else torch.arange(150)] = -1.0 if turned else 1.0  # 15 % of one side stand out
    counts = int((measures._half(member, stream(0)) & (only != 0)).sum())
    found = measures.epsilon_bound(only, member, stream(0))
    share, errors = binomtest(150 - counts, 500).proportion_ci(), binomtest(0, 500).proportion_ci()
    assert found == pytest.approx(math.log((share.low - 1e-5) / errors.high), rel=1e-6)
    assert found > 2


def test_epsilon_says_nothing_of_scores_that_say_nothing_and_is_not_negative() -> None:
    found = [measures.epsilon_bound(*gaussian(seed, 100, 100, 0.0), stream(seed)) for seed in range(DRAWS)]
    assert min(found) == 0
    assert np.mean([one > 0 for one in found]) <= 0.05
    assert measures.epsilon_bound(torch.zeros(10), torch.arange(10) < 5, stream(0)) == 0


@pytest.mark.parametrize("count", [0, 1, 7, 19, 20])
def test_shares_have_the_intervals_of_another_library(count: int) -> None:
    for ours, method in ((exact_share, "exact"), (wilson, "wilson")):
        theirs, found = binomtest(count, 20).proportion_ci(method=method), ours(count, 20)
        assert [found.value, found.low, found.high] == pytest.approx([count / 20, theirs.low, theirs.high], abs=1e-6)
    low, high = clopper_pearson(torch.tensor([count, 3]), 20)
    assert [low[0].item(), high[0].item()] == [exact_share(count, 20).low, exact_share(count, 20).high]


@pytest.mark.parametrize("total", range(1, 40))
def test_an_interval_of_none_or_all_ends_exactly_there(total: int) -> None:
    assert wilson(0, total).low == exact_share(0, total).low == 0
    assert wilson(total, total).high == exact_share(total, total).high == 1


def test_the_mean_of_two_sure_shares_ends_at_one() -> None:
    found = mean_share(wilson(10, 10), wilson(40, 40))
    assert found.high == 1
    assert found.low > wilson(10, 10).low


def test_a_slice_has_its_own_counts_and_needs_ten_of_each() -> None:
    scores, member = gaussian(0, 30, 40)
    taken, right = scores > 0.5, scores > 0.0
    found = measures.slice_of(scores, member, taken=taken, right=right)
    assert found is not None
    assert (found.members, found.nonmembers) == (30, 40)
    assert found.gap == pytest.approx((scores[member] > 0).double().mean().item() - (scores[~member] > 0).double().mean().item())
    assert found.auc == measures.auc(scores, member)
    assert found.balanced_accuracy == measures.balanced_accuracy(taken, member)
    few = torch.cat([member.nonzero()[:9, 0], (~member).nonzero()[:, 0]])
    assert measures.slice_of(scores[few], member[few], taken=taken[few], right=right[few]) is None


@pytest.mark.parametrize(
    "measure",
    [
        lambda scores, member: measures.auc(scores, member),
        lambda scores, member: measures.tpr_at(scores, member, 0.05),
        lambda scores, member: roc(scores, member),
        lambda scores, member: measures.epsilon_bound(scores, member, stream(0)),
        lambda scores, member: measures.balanced_accuracy(measures.cross_fitted(scores, member, stream(0)), member),
    ],
)
def test_only_the_order_of_scores_counts_and_one_example_is_too_few(measure: Callable[[Tensor, Tensor], object]) -> None:
    scores, member = gaussian(0, 200, 300)
    assert measure(scores, member) == measure(scores * 3 - 7, member)
    assert measure(scores, member) != measure(-scores, member)
    with pytest.raises(DataError, match="at least 2 members and 2 non-members to score, found 1 and 300"):
        measure(torch.arange(301.0), torch.arange(301) < 1)


def test_shares_out_of_range_are_refused() -> None:
    scores, member = gaussian(0, 20, 20)
    with pytest.raises(ConfigError, match=r"fpr must be within \(0, 1\), got 1"):
        measures.tpr_at(scores, member, 1.0)
    with pytest.raises(ConfigError, match=r"delta must be within \[0, 1\), got -0.1"):
        measures.epsilon_bound(scores, member, stream(0), delta=-0.1)


def test_scores_of_two_values_leave_no_threshold_to_choose() -> None:
    stream = torch.Generator().manual_seed(0)
    member = torch.arange(40) < 20
    for seed in range(20):
        scores = (torch.rand(40, generator=stream) < 0.9).double()  # worse than a guess as often as better
        taken = measures.cross_fitted(scores, member, torch.Generator().manual_seed(seed))
        assert torch.equal(taken, scores == 1)
