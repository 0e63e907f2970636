# SPDX-License-Identifier: Apache-2.0
"""What a study records of a row along an axis, beside its numbers: curves over epochs, histograms, a point for each class.

A study names its traces:

    loss, accuracy             of training, over its epochs
    weights                    how many weights of each size there are
    members/confidence         how probable the model finds the true class of its members; or nonmembers/confidence
    fisher/task                what each layer has of the Fisher information for naming held-out people
    fisher/ATTACK              the same for rebuilding those whom ATTACK made pictures of; fisher/ATTACK/l1, .../perceptual: of
                               other distances
    ATTACK/likelihood/hits     how probable the model finds the class in pictures of ATTACK that the evaluator takes for it; or
                               ATTACK/likelihood/misses
    ATTACK/epochs              attack accuracy of ATTACK and of those named ATTACK-1, ATTACK-20 ..., over their epochs
    ATTACK/classes             attack accuracy in each class against the accuracy gap in it

Source: wang2021mcmia, Figures 2 to 5; for attacks on weights see `sfumato.studies.rebuilt`.
Equations: none.
Departures: the loss of an epoch has the penalties of the defenses in it. Weights are shown by the logarithm of their size, where
a few large ones and very many small ones both have room, and without zeros. The paper trains one attack network and shows each
of its epochs; here each point is a network of its own, trained for so many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from sfumato.analysis.fisher import Distance
from sfumato.checkpoint import EpochFacts
from sfumato.curve import Axis, Series
from sfumato.errors import ConfigError, nearest
from sfumato.fisher_drawing import LAYER, SHARE
from sfumato.membership_types import MembershipResult
from sfumato.pruning.weights import single
from sfumato.reference import answer
from sfumato.studies.rebuilt import BINS, likelihood, naming, rebuilding
from sfumato.studies.subject import Subject, Trace, histogram
from sfumato.types import Interval

_SMALLEST, _LARGEST, _WIDTH = -6.0, 2.0, 0.1  # of log10 |weight|, and of its bins
_EPOCH = Axis("epoch", "", ".0f")
_ACCURACY = Axis("attack accuracy", "%", ".1f")
_CONFIDENCE = Axis("probability of the true class", "", ".2f")


@dataclass(frozen=True)
class Kind:
    """A trace that a study may name.

    Attributes:
        title: a heading.
        x: the horizontal axis.
        y: the vertical axis.
        take: measures it.
        attack: the attack that it is of, or "".
        joined: whether its points lie on a line.
        marked: whether each of them is to be drawn.
        alone: whether it is of the attack itself, and not of those named like it with a number.
    """

    title: str
    x: Axis
    y: Axis
    take: Callable[[Subject, Kind], Trace]
    attack: str = ""
    joined: bool = True
    marked: bool = False
    alone: bool = False

    def of(self, name: str) -> bool:
        """Return whether this is about an attack of that name."""
        return name == self.attack if self.alone else re.fullmatch(rf"{re.escape(self.attack)}(-\d+)?", name) is not None

    def series(self, name: str, trace: Trace) -> Series:
        """Return a trace as what is drawn of it, under the name of its row."""
        return Series(name, trace.points(), joined=self.joined, marked=self.marked)


def read_trace(text: str) -> Kind:
    """Return the trace of a name.

    Args:
        text: such as "loss" or "nasr/classes".

    Raises:
        ConfigError: there is no such trace.

    Example:
        >>> read_trace("nasr/epochs").attack, read_trace("nasr/epochs").of("nasr-20")
        ('nasr', True)
    """
    if text in _KINDS:
        return _KINDS[text]
    for form, kind in _OF_ATTACKS.items():
        before, after = form.split("ATTACK")
        attack = text.removeprefix(before).removesuffix(after)
        if attack and "/" not in attack and text == f"{before}{attack}{after}":
            return replace(kind, title=f"{attack}: {kind.title}", attack=attack)
    known = [*_KINDS, *_OF_ATTACKS]
    raise ConfigError(f"expected a trace such as {', '.join(known)}, found '{text}'{nearest(text, known)}")


def record(names: Sequence[str], subject: Subject) -> dict[str, Trace]:
    """Take traces.

    Args:
        names: of the traces.
        subject: what of.

    Returns:
        By name; those that have no point are left out.
    """
    kinds = {name: read_trace(name) for name in names}
    taken = {name: kind.take(subject, kind) for name, kind in kinds.items()}
    return {name: trace for name, trace in taken.items() if trace.x}


def _loss(subject: Subject, kind: Kind) -> Trace:
    return Trace(x=_numbers(subject.history), y=tuple(epoch.loss for epoch in subject.history))


def _accuracy(subject: Subject, kind: Kind) -> Trace:
    return Trace(x=_numbers(subject.history), y=tuple(100 * epoch.accuracy for epoch in subject.history))


def _numbers(history: Sequence[EpochFacts]) -> tuple[float, ...]:
    return tuple(float(epoch.number + 1) for epoch in history)


def _weights(subject: Subject, kind: Kind) -> Trace:
    places = [place for group in single(subject.target.split) for place in group.weights]
    values = torch.cat([place.tensor.detach().flatten().double().cpu() for place in places]).abs()
    bins = round((_LARGEST - _SMALLEST) / _WIDTH)
    return histogram((values[values > 0].log10() - _SMALLEST) / _WIDTH, bins, lambda place: _SMALLEST + _WIDTH * place)


def _confidence(side: str) -> Callable[[Subject, Kind], Trace]:
    def take(subject: Subject, kind: Kind) -> Trace:
        if side not in subject.data.parts:
            return Trace(x=(), y=())
        pictures = subject.data.part(side)
        logits = answer(subject.target, pictures, seed=subject.seed).logits[:, 0].double()
        true = logits.softmax(-1).gather(-1, pictures.labels.cpu()[:, None])[:, 0]
        return histogram(true * BINS, BINS, lambda place: place / BINS, total=len(pictures))

    return take


def _rebuilding(distance: Distance) -> Callable[[Subject, Kind], Trace]:
    return lambda subject, kind: rebuilding(subject, kind.attack, distance)


def _likelihood(which: str) -> Callable[[Subject, Kind], Trace]:
    return lambda subject, kind: likelihood(subject, kind.attack, hits=which == "hits")


def _over_epochs(subject: Subject, kind: Kind) -> Trace:
    found = [(epochs, one) for one in _results(subject, kind) if isinstance(epochs := one.settings.get("epochs"), int)]
    ordered = sorted(found, key=lambda pair: pair[0])
    return _attacked([float(epochs) for epochs, _ in ordered], [one.balanced_accuracy for _, one in ordered])


def _by_class(subject: Subject, kind: Kind) -> Trace:
    own = next((one for one in _results(subject, kind) if one.name == kind.attack), None)
    slices = {name: one for name, one in own.slices.items() if name.startswith("class ")} if own else {}
    gaps, found = [100 * one.gap for one in slices.values()], [one.balanced_accuracy for one in slices.values()]
    return replace(_attacked(gaps, found), labels=tuple(slices))


def _results(subject: Subject, kind: Kind) -> list[MembershipResult]:
    """Return what the attacks of a trace found, with their first seed."""
    made = [one for one in (subject.membership.results if subject.membership else ()) if kind.of(one.name)]
    return [one for one in made if one.seed == made[0].seed and one.targets == 1]


def _attacked(x: Sequence[float], shares: Sequence[Interval]) -> Trace:
    y, low, high = ([100 * getattr(one, end) for one in shares] for end in ("value", "low", "high"))
    return Trace(x=tuple(x), y=tuple(y), low=tuple(low), high=tuple(high))


_DISTANCES: Mapping[Distance, str] = {"l2": "", "l1": "/l1", "perceptual": "/perceptual"}
_KINDS: Mapping[str, Kind] = {
    "loss": Kind("Loss of training, with the penalties of the defenses", _EPOCH, Axis("loss", "", ".3g"), _loss),
    "accuracy": Kind("Accuracy of training", _EPOCH, Axis("accuracy on training pictures", "%", ".1f"), _accuracy),
    "weights": Kind(
        "Weights that are not zero, by their size", Axis("log10 of their size", "", ".2f"), Axis("weights", "", ",.0f"), _weights
    ),
    "members/confidence": Kind(
        "Probability of the true class: members", _CONFIDENCE, Axis("share of the members", "%", ".3g"), _confidence("private")
    ),
    "nonmembers/confidence": Kind(
        "Probability of the true class: non-members",
        _CONFIDENCE,
        Axis("share of the non-members", "%", ".3g"),
        _confidence("nonmembers"),
    ),
    "fisher/task": Kind("Fisher information for naming people", LAYER, SHARE, lambda subject, _: naming(subject), marked=True),
}
_OF_ATTACKS: Mapping[str, Kind] = {
    **{
        f"fisher/ATTACK{end}": Kind(
            f"Fisher information for rebuilding, {distance}", LAYER, SHARE, _rebuilding(distance), marked=True, alone=True
        )
        for distance, end in _DISTANCES.items()
    },
    **{
        f"ATTACK/likelihood/{which}": Kind(
            f"target's probability of the class, {which}",
            Axis("probability of the class", "", ".2f"),
            Axis(f"share of the pictures that the evaluator names {named}", "%", ".3g"),
            _likelihood(which),
            alone=True,
        )
        for which, named in (("hits", "right"), ("misses", "wrong"))
    },
    "ATTACK/epochs": Kind("attack accuracy over the epochs of its training", _EPOCH, _ACCURACY, _over_epochs, marked=True),
    "ATTACK/classes": Kind(
        "attack accuracy in each class", Axis("accuracy gap", "points", ".1f"), _ACCURACY, _by_class, joined=False, marked=True
    ),
}
