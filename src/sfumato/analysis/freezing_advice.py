# SPDX-License-Identifier: Apache-2.0
"""Which layers to freeze for a wanted accuracy: those that matter to rebuilding people and little to naming them.

Of a few freeze points it is known what accuracy a model reaches that is trained so. That of the others is read off between these,
over the share of the classification information that stays trainable; of the points that are to reach what is wanted, that which
freezes most of the inversion information is suggested. Train it, add what it reached, and ask again: `search_freeze` does.

Source: ho2024tldmi, section 4.2 (why to freeze first layers) and 4.3 (accuracy at several freeze points); ayer1955isotonic.
Equations: none.
Departures: the paper tries freeze points one by one. What is measured is noisy, and freezing more is taken to lower accuracy
never to raise it: measured accuracies that say otherwise are averaged with their neighbors before others are read off. Beyond
the ends it is constant, which promises too much there, so that a search tries the deepest point first, the cheapest to train.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import Tensor, nn

from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.errors import ConfigError, UnknownNameError, nearest
from sfumato.models.freezing import FreezePoint, freeze_points, frozen_by

NOTHING = ""
"""The name of the point at which nothing is frozen."""


@dataclass(frozen=True)
class Considered:
    """A freeze point and what it is worth.

    Attributes:
        point: where the model is frozen; of no layer where its name is "".
        accuracy: that it reaches, in [0, 1].
        measured: whether this was measured; else it is read off between others.
        rebuilding_frozen: share of the inversion information in frozen layers, in [0, 1].
        naming_kept: share of the classification information in layers that are trained, in [0, 1].
    """

    point: FreezePoint
    accuracy: float
    measured: bool
    rebuilding_frozen: float
    naming_kept: float


@dataclass(frozen=True)
class FreezeAdvice:
    """The freeze point that is suggested.

    Attributes:
        chosen: the point.
        wanted: the accuracy that it is to reach.
        table: all points, from nothing frozen to most.
    """

    chosen: Considered
    wanted: float
    table: tuple[Considered, ...]


def suggest_freeze(
    model: nn.Module,
    x: Tensor,
    *,
    classification: FisherProfile,
    inversion: FisherProfile,
    measured: Mapping[str, float],
    wanted: float,
) -> FreezeAdvice:
    """Suggest where to freeze a model.

    Args:
        model: that the profiles are of; it runs in eval mode and without gradients.
        x: a batch that it takes, on its device.
        classification: information of its layers for naming people, measured where nothing is frozen.
        inversion: the same for rebuilding them.
        measured: accuracies in [0, 1] by the name of the freeze point, "" where nothing is frozen; at least one.
        wanted: the accuracy to reach, in [0, 1].

    Raises:
        ConfigError: nothing was measured, an accuracy is none, the profiles are of other layers or without information, or no
            point is to reach what is wanted, not even that where nothing is frozen.
        UnknownNameError: the model has no freeze point of a name.

    Example:
        >>> import torch
        >>> model, two = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)), torch.zeros(2, dtype=torch.int64)
        >>> naming, rebuilding = (
        ...     FisherProfile(task, ("1", "2"), (15, 8), 1, torch.tensor([values, values]).double(), two)
        ...     for task, values in (("classification", [1.0, 3.0]), ("inversion", [9.0, 1.0]))
        ... )
        >>> told = dict(classification=naming, inversion=rebuilding, wanted=0.7)
        >>> chosen = suggest_freeze(model, torch.zeros(1, 1, 2, 2), measured={"": 0.9, "1": 0.8}, **told).chosen
        >>> chosen.point.name, chosen.accuracy, chosen.measured, chosen.naming_kept, round(chosen.rebuilding_frozen, 3)
        ('1', 0.8, True, 0.75, 0.9)
    """
    return _Choice(model, x, classification, inversion).suggest(measured, wanted)


def search_freeze(
    measure: Callable[[str], float],
    model: nn.Module,
    x: Tensor,
    *,
    classification: FisherProfile,
    inversion: FisherProfile,
    wanted: float,
    trainings: int = 5,
    measured: Mapping[str, float] | None = None,
) -> FreezeAdvice:
    """Find where to freeze a model by training what is suggested, until that was trained and is the deepest that reaches enough.

    Args:
        measure: trains the model with a freeze point of that name, "" for nothing frozen, and returns its accuracy, [0, 1].
        model: as of `suggest_freeze`, as are the next four.
        x: a batch that it takes.
        classification: information for naming people.
        inversion: the same for rebuilding them.
        wanted: the accuracy to reach, in [0, 1].
        trainings: how many at most.
        measured: accuracies that are known already, by name; where that of "" is not among them, it is the first to be measured.

    Returns:
        The suggestion, always of a point that was measured: where the trainings do not suffice, the best of those.

    Raises:
        ConfigError: as `suggest_freeze`, or `trainings` is below 1.
        UnknownNameError: the model has no freeze point of a name.

    Example:
        >>> import torch
        >>> model, two = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)), torch.zeros(2, dtype=torch.int64)
        >>> even = FisherProfile("toy", ("1", "2"), (15, 8), 1, torch.ones(2, 2).double(), two)
        >>> told = dict(classification=even, inversion=even, wanted=0.8)
        >>> search_freeze({"": 0.9, "1": 0.7}.__getitem__, model, torch.zeros(1, 1, 2, 2), **told).chosen.point.name
        ''
    """
    if trainings < 1:
        raise ConfigError(f"trainings must be at least 1, got {trainings}; 5 is the default")
    choice, known = _Choice(model, x, classification, inversion), dict(measured or {})
    choice.require_known(known)
    for _ in range(trainings):
        name = _next(choice.suggest(known, wanted)) if NOTHING in known else NOTHING
        if name is None:
            break
        known[name] = measure(name)
    return choice.suggest(known, wanted, only_measured=True)


def _next(advice: FreezeAdvice) -> str | None:
    """Return the name of the point to train next; None where the suggestion was trained, and so was the next deeper point.

    What is read off of the points beyond may be too low: of those up to the next that was trained, the middle one is asked for.
    """
    if not advice.chosen.measured:
        return advice.chosen.point.name
    beyond = advice.table[advice.table.index(advice.chosen) + 1 :]
    untried = list(takewhile(lambda one: not one.measured, beyond))
    return untried[(len(untried) - 1) // 2].point.name if untried else None


class _Choice:
    """The freeze points of a model with the information that they freeze."""

    def __init__(self, model: nn.Module, x: Tensor, classification: FisherProfile, inversion: FisherProfile) -> None:
        if classification.layers != inversion.layers or not all(sum(one.values) > 0 for one in (classification, inversion)):
            raise ConfigError(
                f"two profiles of the same layers are compared, each with some information, found one of "
                f"{len(classification.layers)} layers that sums to {sum(classification.values):.3g} and one of "
                f"{len(inversion.layers)} that sums to {sum(inversion.values):.3g}; measure both on the same model"
            )
        points, frozen = freeze_points(model, x), {NOTHING: set[str]()}
        for point in points:
            frozen[point.name] = {layer.name for layer in frozen_by(model, x, point.name)}
        every = points[0].frozen + points[0].trainable if points else sum(one.numel() for one in model.parameters())
        self.points = (FreezePoint(NOTHING, 0, every), *points)
        self.kept = {point.name: 1 - _share(classification, frozen[point.name]) for point in self.points}
        self.gone = {point.name: _share(inversion, frozen[point.name]) for point in self.points}

    def require_known(self, measured: Mapping[str, float]) -> None:
        """Raise unless accuracies are those of freeze points."""
        for name, accuracy in measured.items():
            if name not in self.kept:
                raise UnknownNameError(
                    f"measured: the model has no freeze point '{name}'{nearest(name, self.kept)}; it has "
                    f"{', '.join(map(repr, self.kept))}"
                )
            if not 0 <= accuracy <= 1:
                raise ConfigError(f"measured: an accuracy is from 0 to 1, got {accuracy} of '{name}'; divide percent by 100")

    def suggest(self, measured: Mapping[str, float], wanted: float, *, only_measured: bool = False) -> FreezeAdvice:
        """Return the point that freezes most of the inversion information and is to reach an accuracy."""
        self.require_known(measured)
        if not measured:
            raise ConfigError('measured needs the accuracy of one freeze point at least, such as {"": 0.9} for nothing frozen')
        expected = _isotonic([(self.kept[name], accuracy) for name, accuracy in measured.items()])
        table = tuple(
            Considered(
                point=point,
                accuracy=measured[point.name] if point.name in measured else _between(expected, self.kept[point.name]),
                measured=point.name in measured,
                rebuilding_frozen=self.gone[point.name],
                naming_kept=self.kept[point.name],
            )
            for point in self.points
        )
        reaching = [one for one in table if one.accuracy >= wanted and (one.measured or not only_measured)]
        if not reaching:
            told = "measured" if table[0].measured else "expected"
            raise ConfigError(
                f"wanted an accuracy of {wanted:.4g}, which no freeze point is to reach: with nothing frozen "
                f"{table[0].accuracy:.4g} is {told}; want less, or train a better model first"
            )
        return FreezeAdvice(max(reaching, key=lambda one: (one.rebuilding_frozen, -one.point.trainable)), wanted, table)


def _share(profile: FisherProfile, layers: set[str]) -> float:
    """Return what some layers have of a profile's information."""
    values = profile.values
    return sum(value for name, value in zip(profile.layers, values, strict=True) if name in layers) / sum(values)


def _isotonic(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the nearest numbers, in least squares, that never fall as their first coordinate grows, ascending."""
    pools: list[list[float]] = []  # sum, count, and how many points of the result
    places: list[float] = []
    for place, value in sorted(points):
        if places and place == places[-1]:
            pools[-1] = [pools[-1][0] + value, pools[-1][1] + 1, pools[-1][2]]
        else:
            places.append(place)
            pools.append([value, 1, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = [one + other for one, other in zip(pools[-1], last, strict=True)]
    fitted = [total / count for total, count, width in pools for _ in range(int(width))]
    return list(zip(places, fitted, strict=True))


def _between(known: Sequence[tuple[float, float]], place: float) -> float:
    """Return the number at a place on the lines between known ones, and that of the nearest beyond their ends."""
    after = bisect_left(known, place, key=lambda pair: pair[0])
    if after == 0 or after == len(known):
        return known[min(after, len(known) - 1)][1]
    (left, low), (right, high) = known[after - 1], known[after]
    return low + (high - low) * (place - left) / (right - left)
