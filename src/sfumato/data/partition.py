# SPDX-License-Identifier: Apache-2.0
"""Who has which pictures: the splits into train and test, private and public, and what the adversary gets.

Source: CEM (its adversary trains on the training pictures, the worst case, or on most of the test pictures).
Departures: none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato import seeds
from sfumato.data.base import Data, Pictures
from sfumato.errors import ConfigError, DataError, UnknownNameError, nearest
from sfumato.types import Labels

Auxiliary = Literal["private", "public", "test"]
"""Where the adversary's own pictures come from."""

_TEST_FRACTION = 0.2
_INFERENCE_FRACTION = 0.1


def stratified(labels: Labels, *, fraction: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Split pictures at random, every class in the same proportion.

    Args:
        labels: (N,), int64.
        fraction: share of each class to take, [0, 1), within one picture; a class of two or more is on both sides when it is
            above 0, a class of one is not taken from.
        seed: of the split.
        purpose: names the stream of random numbers, so that splits for different ends are independent.

    Returns:
        The pictures that stay and the pictures that are taken: two ascending int64 indices that together are 0 to N - 1.

    Raises:
        ConfigError: the fraction is outside [0, 1).

    Example:
        >>> stay, taken = stratified(torch.tensor([0, 0, 1, 1]), fraction=0.5, seed=0, purpose="test")
        >>> len(stay), len(taken)
        (2, 2)
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"a fraction must be in [0, 1), got {fraction}")
    # sorting a random order by class, stably, leaves every class in random order and in one piece
    order = torch.randperm(len(labels), generator=seeds.generator(seed, "split", purpose))
    order = order[torch.sort(labels[order], stable=True).indices]
    counts = torch.unique(labels, return_counts=True)[1].tolist()
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for members in torch.split(order, counts):
        taken[members[: _share(len(members), fraction)]] = True
    return (~taken).nonzero()[:, 0], taken.nonzero()[:, 0]


def split_test(pictures: Pictures, *, seed: int) -> dict[str, Pictures]:
    """Split pictures that come without a test part: 80 % `train`, 20 % `test`, by class.

    Raises:
        DataError: no class has two pictures, so that none is left for the test.
    """
    train, test = stratified(pictures.labels, fraction=_TEST_FRACTION, seed=seed, purpose="test")
    if not len(test):
        raise DataError(
            f"no class of these {len(pictures)} pictures has two of them, so no test part can be split off; give test="
        )
    return {"train": pictures.subset(train), "test": pictures.subset(test)}


def partition(
    data: Data, *, public: float = 0.0, reference: float = 0.0, auxiliary: Auxiliary = "private", seed: int = 0
) -> Data:
    """Add the parts `private`, `public`, `auxiliary` and `inference`, and `reference` where it has a share.

    Args:
        data: with the parts `train` and `test`.
        public: share of `train` that is public, [0, 1); the target trains on the rest, `private`.
        reference: share of `train` that is kept for a defense to compare with, [0, 1); that is not in `private` either.
        auxiliary: "private": the adversary has the pictures that the target trains on, the worst case; "public": the public
            ones; "test": 90 % of `test`, and `inference` is the other 10 %. Otherwise `inference` is all of `test`.
        seed: of the splits.

    Returns:
        The data set with all its parts; equal arguments give equal parts.

    Raises:
        ConfigError: `public` or `reference` is outside [0, 1) or both are 1 or more together, or `auxiliary` is "public" and
            nothing is public.
        UnknownNameError: another `auxiliary`.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> data = from_tensors(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)
        >>> {name: len(part) for name, part in partition(data, public=0.25).parts.items()}
        {'train': 16, 'test': 4, 'private': 12, 'public': 4, 'auxiliary': 12, 'inference': 4}
    """
    require_shares(public, reference)
    if auxiliary not in get_args(Auxiliary):
        raise UnknownNameError(
            f"auxiliary must be private, public or test, got '{auxiliary}'{nearest(auxiliary, get_args(Auxiliary))}"
        )
    if auxiliary == "public" and public == 0:
        raise ConfigError('auxiliary="public" needs public pictures; set public to their share of train, such as 0.2')
    train, test = data.part("train"), data.part("test")
    stay, taken = stratified(train.labels, fraction=public, seed=seed, purpose="public")
    rest = train.subset(stay) if len(taken) else train
    # `reference` is a share of all of `train`, taken from what is not public
    kept, compared = stratified(rest.labels, fraction=reference / (1 - public), seed=seed, purpose="reference")
    private = rest.subset(kept) if len(compared) else rest
    parts = {"private": private, "public": train.subset(taken)} | ({"reference": rest.subset(compared)} if reference else {})
    if auxiliary == "test":
        stay, taken = stratified(test.labels, fraction=_INFERENCE_FRACTION, seed=seed, purpose="inference")
        own, inference = test.subset(stay), test.subset(taken)
    else:
        own, inference = parts[auxiliary], test
    parts |= {"auxiliary": own, "inference": inference}
    return replace(data, parts={**data.parts, **parts}, auxiliary=auxiliary)


def require_shares(public: float, reference: float) -> None:
    """Raise unless shares of the training pictures leave some to train on.

    Raises:
        ConfigError: one is outside [0, 1), or both are 1 or more together.
    """
    for name, share in (("public", public), ("reference", reference)):
        if not 0 <= share < 1:
            raise ConfigError(f"{name} must be in [0, 1), a share of the training pictures, got {share}")
    if public + reference >= 1:
        raise ConfigError(f"public and reference must leave pictures to train on, got {public} and {reference} of all")


def _share(members: int, fraction: float) -> int:
    if fraction == 0 or members < 2:
        return 0
    return min(max(1, int(members * fraction + 0.5)), members - 1)
