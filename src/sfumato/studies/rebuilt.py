# SPDX-License-Identifier: Apache-2.0
"""What a study records of attacks on weights along an axis: over the layers of the target, and over its own confidence.

Source: ho2024tldmi, Figures 1-II, 4 and 5 (Fisher information over the layers), 6 and 7 (probability of the class).
Equations: none.
Departures: Fisher information is shown in shares, and a layer without any is left out; that of a step of an attack is that of an
attack of so many steps, with a label of its own. Figures 6 and 7 give no scale; here it is the share of the pictures that the
evaluator names right, or of those that it names wrong. Of more than 500 pictures these are a mean over 500.
"""

from __future__ import annotations

import torch

from sfumato.analysis.fisher import Distance, classification_fisher, inversion_fisher
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.fisher_drawing import series
from sfumato.fisher_samples import held_out, reconstructions
from sfumato.studies.subject import Subject, Trace, histogram

BINS = 10
"""Of probabilities."""
_NONE = Trace(x=(), y=())


def naming(subject: Subject) -> Trace:
    """Return the share of each layer in the Fisher information for naming held-out pictures of the target's people.

    Args:
        subject: its data has part `test`.
    """
    return _layers(classification_fisher(subject.target.split, held_out(subject.data, subject.seed)))


def rebuilding(subject: Subject, attack: str, distance: Distance) -> Trace:
    """Return the share of each layer in the Fisher information for rebuilding people, where an attack ended.

    Args:
        subject: its data has part `private`.
        attack: label of the attack; classes that it did not reach are left out, since it made no pictures of them.
        distance: of reconstructions to private pictures.

    Returns:
        No point where there is nothing of that attack.
    """
    found = subject.pictures.get(attack)
    if found is None or subject.classes is None:
        return _NONE
    some = reconstructions(found, subject.classes, subject.seed)
    if some is None:
        return _NONE
    x_hat, private = some.read(torch.arange(len(some))), subject.data.part("private")
    return _layers(inversion_fisher(subject.target.split, x_hat, some.labels, private, distance=distance))


def likelihood(subject: Subject, attack: str, *, hits: bool) -> Trace:
    """Return how probable the target finds the class in the pictures of an attack, in percent of these pictures.

    Args:
        subject: what of.
        attack: label of the attack.
        hits: of pictures that the evaluator takes for the class, else of the others; what was not reached is no hit.

    Returns:
        No point where there is no such picture.
    """
    found = subject.pictures.get(attack)
    sure = torch.zeros(0) if found is None else found.confidence.cpu()[found.counted == hits]
    return histogram(sure.double() * BINS, BINS, lambda place: place / BINS, total=len(sure)) if len(sure) else _NONE


def _layers(profile: FisherProfile) -> Trace:
    """Return the shares of the layers that have any."""
    points = series("", profile).points
    return Trace(
        x=tuple(point.x.value for point in points),
        y=tuple(point.y.value for point in points),
        low=tuple(point.y.low for point in points),
        high=tuple(point.y.high for point in points),
        labels=tuple(point.label for point in points),
    )
