# SPDX-License-Identifier: Apache-2.0
"""How well scores tell members from non-members: AUC, true positives at few false ones, balanced accuracy, a bound on epsilon.

Every function takes scores, (N,), higher for a member, and who is one, (N,), bool. Examples of equal score are taken together.

Source: delong1988 (variance of the AUC), by ranks as sun2014delong; pepe2003 (its interval on the logit scale); clopper1934;
newcombe1998 (see `sfumato.metrics.proportion`); carlini2022lira (true positives at few false ones); jagielski2020auditing (a
bound on epsilon from counts).
Equations: AUC = P(member > non-member) + P(equal) / 2 -> auc; balanced accuracy = (TPR + TNR) / 2 -> balanced_accuracy;
epsilon >= log((TPR - delta) / FPR) and log((TNR - delta) / FNR) -> epsilon_bound
Departures: an AUC whose variance comes out as 0 gets an exact interval, since DeLong's would have no width. The thresholds of
balanced accuracy and of epsilon are chosen on other examples than those that are counted: the best of all, which papers report,
is optimistic. Intervals take examples as drawn independently of each other. For one model that is an idealization: a proof about
epsilon needs many models that are each asked about one example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.membership_types import Bound, Slice
from sfumato.metrics.proportion import ALPHA, QUANTILE, clopper_pearson, exact_share, mean_share, wilson
from sfumato.metrics.roc import Points, operating_points, require_both
from sfumato.types import Interval

FEWEST: Mapping[float, int] = {0.01: 100, 0.001: 10_000}
"""Non-members from which on true positives at a share of false ones are quoted: so many that 1 of them is allowed to be a false
one at 1 %, and 10 at 0.1 %, where a single one more or less would change the number most. At other shares it is 10 as well."""
FEWEST_OF_SLICE = 10
"""Members, and non-members, that a slice must have."""
DELTA = 1e-5
"""Of differential privacy."""


def auc(scores: Tensor, member: Tensor) -> Interval:
    """Return the area under the ROC curve with its 95 % interval, in O(N log N).

    Args:
        scores: (N,), float, finite.
        member: (N,), bool.

    Raises:
        DataError: fewer than 2 members or 2 non-members.

    Example:
        >>> auc(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([True, False, True, False])).value
        0.75
    """
    require_both(member)
    wide, inside = scores.detach().to("cpu", torch.float64), member.cpu()
    beaten, unbeaten = _placements(wide[inside], wide[~inside]), 1 - _placements(wide[~inside], wide[inside])
    value = beaten.mean().item()
    variance = beaten.var().item() / len(beaten) + unbeaten.var().item() / len(unbeaten)
    if variance == 0 or not 0 < value < 1:
        return _exact_auc(value, min(len(beaten), len(unbeaten)))
    center, half = math.log(value / (1 - value)), QUANTILE * math.sqrt(variance) / (value * (1 - value))
    return Interval(value, _sigmoid(center - half), _sigmoid(center + half))


def _placements(scores: Tensor, others: Tensor) -> Tensor:
    """Return the share of the others that each score is above; equal ones count half."""
    ordered = others.sort().values
    below, upto = torch.searchsorted(ordered, scores), torch.searchsorted(ordered, scores, right=True)
    return (below + upto).double() / (2 * len(others))


def _exact_auc(value: float, pairs: int) -> Interval:
    """Return the interval of an AUC of 1, 0, or of scores that are all equal.

    So many disjoint pairs of a member and a non-member are independent, and all came out alike: the share of pairs that do not is
    at most 1 - (alpha/2)^(1/pairs).
    """
    others = 1 - (ALPHA / 2) ** (1 / pairs)
    low, high = (value * (1 - others), value + (1 - value) * others)
    return Interval(value, low, high)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def tpr_at(scores: Tensor, member: Tensor, fpr: float) -> Bound:
    """Return the share of members found where at most a share of the non-members is taken for members.

    The interval is the exact one of the share of members at that threshold, which the non-members set. It takes the threshold as
    given: it does not say how far from `fpr` the share of false ones is among non-members that were not asked about.

    Args:
        scores: (N,), float, finite.
        member: (N,), bool.
        fpr: share of the non-members, (0, 1).

    Returns:
        The share; no number where there are fewer non-members than `FEWEST` demands.

    Raises:
        ConfigError: fpr is not within (0, 1).
        DataError: fewer than 2 members or 2 non-members.

    Example:
        >>> member = torch.arange(400) < 200
        >>> tpr_at(member * 1.0, member, 0.01).value
        1.0
        >>> tpr_at(member * 1.0, member, 0.001).missing
        'too few non-members (200): 0.1 % false alarms need at least 10,000; score more, or attack several models in turn'
    """
    if not 0 < fpr < 1:
        raise ConfigError(f"fpr must be within (0, 1), got {fpr}; 0.01 is an example")
    require_both(member)
    points = operating_points(scores, member)
    fewest = FEWEST.get(fpr, math.ceil(10 / fpr))
    if points.nonmembers < fewest:
        found = f"too few non-members ({points.nonmembers:,}): {100 * fpr:.4g} % false alarms need at least {fewest:,}"
        return Bound(None, None, None, f"{found}; score more, or attack several models in turn")
    # 29 % of 100 must not be 28 because the product is 28.999999999999996.
    place = points.within(math.floor(fpr * points.nonmembers * (1 + 1e-12)))
    share = exact_share(int(points.hits[place]), points.members)
    return Bound(share.value, share.low, share.high)


def cross_fitted(scores: Tensor, member: Tensor, generator: torch.Generator) -> Tensor:
    """Decide who is a member, each example by the threshold that is best on the half it is not in.

    Scores of two values leave nothing to choose: the higher takes for a member.

    Args:
        scores: (N,), float, finite.
        member: (N,), bool.
        generator: draws the halves, each with half of the members and half of the non-members; on the CPU.

    Returns:
        (N,), bool: who is taken for a member.

    Raises:
        DataError: fewer than 2 members or 2 non-members.

    Example:
        >>> member = torch.arange(8) < 4
        >>> cross_fitted(member * 1.0, member, torch.Generator().manual_seed(0)).tolist() == member.tolist()
        True
    """
    require_both(member)
    lowest, highest = scores.aminmax()
    if bool(((scores == lowest) | (scores == highest)).all()) and lowest < highest:
        return scores.eq(highest)
    half = _half(member, generator)
    taken = torch.zeros_like(member)
    for chosen_on in (half, ~half):
        points = operating_points(scores[chosen_on], member[chosen_on])
        taken[~chosen_on] = scores[~chosen_on].double() >= points.between(int(points.gain.argmax()))
    return taken


def balanced_accuracy(taken: Tensor, member: Tensor) -> Interval:
    """Return the mean of the shares of members and of non-members that are told right, with its 95 % interval.

    Args:
        taken: (N,), bool: who is taken for a member, as `cross_fitted` decides.
        member: (N,), bool; both sides occur.

    Example:
        >>> member = torch.arange(8) < 4
        >>> balanced_accuracy(member, member).value
        1.0
    """
    inside, said = member.cpu(), taken.cpu()
    members, nonmembers = int(inside.sum()), int((~inside).sum())
    return mean_share(wilson(int((said & inside).sum()), members), wilson(int((~said & ~inside).sum()), nonmembers))


def advantage(accuracy: Interval) -> Interval:
    """Return true positives less false positives, from a balanced accuracy.

    Example:
        >>> advantage(Interval(0.75, 0.5, 1.0))
        Interval(value=0.5, low=0.0, high=1.0)
    """
    return Interval(2 * accuracy.value - 1, 2 * accuracy.low - 1, 2 * accuracy.high - 1)


def epsilon_bound(scores: Tensor, member: Tensor, generator: torch.Generator, *, delta: float = DELTA) -> float:
    """Return a lower bound at 95 % confidence on the epsilon of any (epsilon, delta) differential privacy of the training.

    One half of the examples chooses the threshold, and whether members are to be found or ruled out; the other half gives the
    counts.

    Args:
        scores: (N,), float, finite.
        member: (N,), bool.
        generator: draws the halves; on the CPU.
        delta: [0, 1).

    Returns:
        The bound, at least 0, which says nothing.

    Raises:
        ConfigError: delta is not within [0, 1).
        DataError: fewer than 2 members or 2 non-members.

    Example:
        >>> member = torch.arange(400) < 200
        >>> round(epsilon_bound(member * 1.0, member, torch.Generator().manual_seed(0)), 2)
        3.28
    """
    if not 0 <= delta < 1:
        raise ConfigError(f"delta must be within [0, 1), got {delta}; {DELTA} is the default")
    require_both(member)
    half = _half(member, generator)
    chosen_on, counted = (operating_points(scores[side], member[side]) for side in (half, ~half))
    some = chosen_on.some()
    aim, place = divmod(int(_epsilons(chosen_on, some, delta).argmax()), len(some))
    at = counted.at(chosen_on.between(int(some[place])))
    return max(0.0, _epsilons(counted, torch.tensor([at]), delta)[aim].item())


def _epsilons(points: Points, places: Tensor, delta: float) -> Tensor:
    """Return the bounds of some points, (2, n): from the members that are found, and from the non-members that are ruled out."""
    hits, alarms, members, nonmembers = points.hits[places], points.alarms[places], points.members, points.nonmembers
    found, ruled_out = clopper_pearson(hits, members)[0], clopper_pearson(nonmembers - alarms, nonmembers)[0]
    wrong, missed = clopper_pearson(alarms, nonmembers)[1], clopper_pearson(members - hits, members)[1]
    right, errors = torch.stack([found, ruled_out]), torch.stack([wrong, missed])
    return ((right - delta).clamp_min(0) / errors).log()


def _half(member: Tensor, generator: torch.Generator) -> Tensor:
    """Draw half of the members and half of the non-members, (N,), bool, on the device of `member`."""
    half = torch.zeros(len(member), dtype=torch.bool)
    for side in (member.cpu(), ~member.cpu()):
        places = side.nonzero()[:, 0]
        half[places[torch.randperm(len(places), generator=generator)[: len(places) // 2]]] = True
    return half.to(member.device)


def slice_of(scores: Tensor, member: Tensor, *, taken: Tensor, right: Tensor) -> Slice | None:
    """Measure how well an attack did on some examples.

    Args:
        scores: of these examples, (n,), float, finite.
        member: (n,), bool.
        taken: (n,), bool: who is taken for a member, at the threshold of all examples.
        right: (n,), bool: of which of them the target names the class.

    Returns:
        The measures; None where a side has fewer than `FEWEST_OF_SLICE` examples.

    Example:
        >>> member = torch.arange(20) < 10
        >>> slice_of(member * 1.0, member, taken=member, right=member).gap
        1.0
    """
    members, nonmembers = int(member.sum()), int((~member).sum())
    if min(members, nonmembers) < FEWEST_OF_SLICE:
        return None
    gap = right[member].double().mean() - right[~member].double().mean()
    return Slice(members, nonmembers, gap.item(), auc(scores, member), balanced_accuracy(taken, member))
