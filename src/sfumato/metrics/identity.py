# SPDX-License-Identifier: Apache-2.0
"""How well pictures that were made of a class show it: named by an evaluator, near to its private pictures, true to its factors.

Every measure is one number a picture. What is quoted is the mean over classes of the means of their pictures, so that a class
counts the same however many pictures there are of it, with an interval over classes: the pictures of one class, of whichever
seed, are searched for in one target, and are no independent draws.

Source: ho2024tldmi, appendix D.2 (attack accuracy, KNN Dist, delta, l2 distance); efron1979bootstrap (the interval).
Equations: none.
Departures: the text of D.2 says of the KNN distance that it is an l2 distance; it is squared, as the code of every attack has it,
and as D.2 says of the deltas. The public code quotes the deviation of five seeds in place of an interval. A class that only ties
with the highest logit is not named: an evaluator that cannot tell pictures apart names none of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.metrics.interval import mean_interval
from sfumato.metrics.proportion import exact_share
from sfumato.types import Interval, Labels, Logits

_CELLS = 1 << 22
"""Numbers that are held at once while distances are computed."""


def named_within(logits: Logits, labels: Labels, k: int = 1) -> Tensor:
    """Return 1 where the class is among the k most probable, else 0: the mean is the attack accuracy.

    Args:
        logits: of the evaluator, (N, K), any range. One that is not finite names nothing.
        labels: the class that each picture is to show, (N,), int64, on the device of the logits.
        k: how many names count.

    Returns:
        (N,), float64.

    Example:
        >>> logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
        >>> named_within(logits, torch.tensor([0, 1])).tolist()
        [1.0, 0.0]
        >>> named_within(logits, torch.tensor([0, 1]), k=2).tolist()
        [1.0, 1.0]
    """
    own = logits.gather(1, labels[:, None])
    ahead = (~(logits < own)).sum(1) - 1  # others that are not below, and whatever is no number
    return ((ahead < k) & logits.isfinite().all(1)).double()


def nearest_squared(features: Tensor, labels: Labels, private: Tensor, private_labels: Labels) -> Tensor:
    """Return the squared distance of each picture to the nearest private picture of its class: KNN Dist, and the deltas.

    Args:
        features: embedded pictures, (N, E), float.
        labels: the class that each is to show, (N,), int64.
        private: embedded private pictures, (M, E), on the same device.
        private_labels: their classes, (M,), int64.

    Returns:
        (N,), float64, squared units of the embedding.

    Raises:
        DataError: a class has no private picture.

    Example:
        >>> private = torch.tensor([[0.0], [5.0], [9.0]])
        >>> nearest_squared(torch.tensor([[3.0], [3.0]]), torch.tensor([0, 1]), private, torch.tensor([0, 0, 1])).tolist()
        [4.0, 36.0]
    """
    found = torch.zeros(len(features), dtype=torch.float64, device=features.device)
    for label in _classes(labels, private_labels):
        places, near = (labels == label).nonzero()[:, 0], private[private_labels == label].double()
        for some in places.split(max(1, _CELLS // near.numel())):
            apart = features[some].double()[:, None] - near  # not by the dot products, which lose what is near
            found[some] = apart.square().sum(2).amin(1)
    return found


def centroid_distance(features: Tensor, labels: Labels, private: Tensor, private_labels: Labels) -> Tensor:
    """Return the distance of each picture to the mean of the private pictures of its class, not squared: l2 Dist.

    Args:
        features: embedded pictures, (N, E), float.
        labels: the class that each is to show, (N,), int64.
        private: embedded private pictures, (M, E), on the same device.
        private_labels: their classes, (M,), int64.

    Returns:
        (N,), float64, units of the embedding.

    Raises:
        DataError: a class has no private picture.

    Example:
        >>> private = torch.tensor([[0.0], [4.0], [9.0]])
        >>> centroid_distance(torch.tensor([[5.0], [5.0]]), torch.tensor([0, 1]), private, torch.tensor([0, 0, 1])).tolist()
        [3.0, 4.0]
    """
    found = torch.zeros(len(features), dtype=torch.float64, device=features.device)
    for label in _classes(labels, private_labels):
        places = labels == label
        found[places] = (features[places].double() - private[private_labels == label].double().mean(0)).norm(dim=1)
    return found


def factor_error(read: Tensor, true: Tensor) -> Tensor:
    """Return how far the factors that are read from each picture are from those of the identity, averaged over the factors.

    Args:
        read: (N, F), float, shares of each factor's range.
        true: likewise, those of the class that each picture is to show.

    Returns:
        (N,), float64, [0, 1] for factors within their range.

    Example:
        >>> factor_error(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.25, 1.0]])).tolist()
        [0.125]
    """
    return (read.double() - true.double()).abs().mean(1)


def class_means(values: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """Return the mean of the numbers of each class.

    Args:
        values: one number a picture, (N,).
        labels: the class of each, (N,), int64, on the same device.

    Returns:
        The classes that there are, ascending, (K,), int64, and the mean of each, (K,), float64.

    Example:
        >>> [found.tolist() for found in class_means(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([7, 3, 3]))]
        [[3, 7], [3.0, 1.0]]
    """
    classes, place, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(classes), dtype=torch.float64, device=values.device)
    return classes, sums.index_add_(0, place, values.double()) / counts


def class_interval(values: Tensor, labels: Labels, generator: torch.Generator) -> Interval:
    """Return the mean over classes with its 95 % interval: classes are drawn anew, each with all of its pictures.

    Args:
        values: one number a picture, (N,); those of several seeds together are pooled by class.
        labels: the class of each, (N,), int64, on the same device.
        generator: on the CPU.

    Example:
        >>> class_interval(torch.ones(4), torch.tensor([0, 0, 1, 2]), torch.Generator().manual_seed(0))
        Interval(value=1.0, low=1.0, high=1.0)
    """
    return mean_interval(class_means(values, labels)[1], generator)


def share_interval(values: Tensor, labels: Labels, generator: torch.Generator) -> Interval:
    """Return the mean over classes of what is right or wrong of each picture, with its 95 % interval.

    It is that of `class_interval` but where all pictures are right, or all wrong: drawn anew they say the same, however few
    classes there are, and the interval is then the exact one of so many classes.

    Args:
        values: 0 or 1 a picture, (N,).
        labels: the class of each, (N,), int64, on the same device.
        generator: on the CPU.

    Example:
        >>> share_interval(torch.zeros(4), torch.tensor([0, 0, 1, 2]), torch.Generator().manual_seed(0)).high.__round__(3)
        0.708
    """
    classes, means = class_means(values, labels)
    if bool((means == means[0]).all()) and float(means[0]) in (0.0, 1.0):
        return exact_share(int(means.sum()), len(classes))
    return mean_interval(means, generator)


def _classes(labels: Labels, private_labels: Labels) -> list[int]:
    """Return the classes of pictures, if each has a private picture."""
    classes: list[int] = labels.unique().tolist()
    missing = sorted(set(classes) - set(private_labels.unique().tolist()))
    if missing:
        raise DataError(
            f"every class needs a private picture to measure distances to, found none of {len(missing)} of {len(classes)} "
            f"classes (first: {missing[0]}); give private pictures of them, or leave these classes out"
        )
    return classes
