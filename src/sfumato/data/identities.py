# SPDX-License-Identifier: Apache-2.0
"""Who is private and who is public, person by person and not picture by picture.

A classifier is trained on the pictures of some identities, and may be pretrained on those of others; the pictures of everybody
else are public, and they are what an adversary has.

Source: zhang2020secret, Section 4.1 (private and public pictures show different people); struppek2022ppa, released code (the
people with the most pictures are private); ho2024tldmi, Section 4 (pretraining on others still).
Departures: which pictures of private identities are held out is settled by the data set's own split, since it is what a target
is trained by elsewhere; zhang2020secret splits anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sfumato.data.base import Data, Pictures
from sfumato.data.fingerprint import pixel_hashes
from sfumato.data.joined import join
from sfumato.data.loader import shuffled
from sfumato.data.partition import stratified
from sfumato.errors import ConfigError, DataError
from sfumato.seeds import generator

_SHOWN = 5
_HELD_OUT = 0.1  # of the pictures of each class that is pretrained on
_BY_CHANCE = 0.2  # of the pictures: more than this are no doubles by chance


def by_identity(data: Data, *, private: int | None = None, pretrain: int = 0, least: int = 5, seed: int = 0) -> Data:
    """Partition people, not pictures: nobody is in more than one of `private`, `pretrain` and `public`.

    Args:
        data: with the parts `train` and `test`, and a class for each identity.
        private: how many identities the target tells apart: those with the most pictures, ties broken at random. None takes all
            that have enough pictures; where nobody is left for `public` then, `with_public` brings others.
        pretrain: how many of the others are for pretraining, drawn at random among those with enough pictures.
        least: how many pictures an identity must have, in `train` and `test` together, to be private or pretrained on; a private
            one needs one in each.
        seed: of the ties and the draw.

    Returns:
        The data set with the private identities as its classes, in the order of their numbers before. `train` and `private` are
        the same; `test` has held-out pictures of the same people, and is `inference` too; `public` has all pictures of everybody
        else, and is `auxiliary` too. Labels of `pretrain` go on after the classes, and those of `public` after these.

    Raises:
        ConfigError: a number is out of range, or the data set is not for classification.
        DataError: there are not enough identities with enough pictures, or `private` leaves nobody for `public`.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> data = from_tensors(torch.rand(60, 1, 8, 8), torch.arange(60) % 6)
        >>> parted = by_identity(data, private=3, pretrain=1)
        >>> len(parted.classes), {name: len(parted.part(name)) for name in ("private", "test", "pretrain", "public")}
        (3, {'private': 24, 'test': 6, 'pretrain': 10, 'public': 20})
    """
    _check(data, private, pretrain, least)
    train, test = data.part("train"), data.part("test")
    mine, others = _choose(data, private, least, seed)
    far = others[shuffled(len(others), generator(seed, "identities", "pretrain"))[:pretrain]].sort().values
    if len(far) < pretrain:
        raise DataError(
            f"{data.name}: pretrain={pretrain} identities of {least} pictures or more were asked for beside {len(mine)} private "
            f"ones, found {len(others)}; ask for fewer, or lower least"
        )
    everybody = torch.arange(len(data.classes))
    rest = everybody[~torch.isin(everybody, torch.cat([mine, far]))]
    if not len(rest) and private is not None:
        raise DataError(
            f"{data.name}: {len(mine)} private and {len(far)} pretraining identities leave nobody of {len(everybody)} for the "
            "public pictures, which are all that an adversary has; ask for fewer"
        )
    numbers = torch.empty_like(everybody)
    numbers[torch.cat([mine, far, rest])] = everybody
    kept = {"train": _of([train], mine, numbers), "test": _of([test], mine, numbers)}
    parts = {"private": kept["train"], "pretrain": _of([train, test], far, numbers), "public": _of([train, test], rest, numbers)}
    parts |= {"auxiliary": parts["public"], "inference": kept["test"]}
    classes = tuple(data.classes[number] for number in mine.tolist())
    return replace(data, classes=classes, parts=kept | parts, auxiliary="public")


def with_public(data: Data, other: Data) -> Data:
    """Give the adversary the pictures of another data set.

    Args:
        data: as `by_identity` returns it.
        other: the data set whose pictures, of `train` and `test`, are public from now on.

    Returns:
        The data set with these as `public` and `auxiliary`, without their tags, and with labels that go on after all others.

    Raises:
        DataError: the pictures are of another shape, or an identity is in both by its name. Names count that have letters and no
            digits, whatever the case and the signs between words: "identity 3" says of two data sets nothing about who it is.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> data, other = (from_tensors(torch.rand(20, 1, 8, 8), torch.arange(20) % 2) for _ in range(2))
        >>> len(with_public(by_identity(data), other).part("public"))
        20
    """
    _check_shapes(data, other, "public")
    _check_names(data, other, "public")
    taken = 1 + max(int(data.part(name).labels.max()) for name in ("train", "pretrain") if len(data.part(name)))
    public = _all_of(other, after=taken)
    return replace(data, parts={**data.parts, "public": public, "auxiliary": public}, auxiliary="public")


def with_pretrain(data: Data, other: Data) -> Data:
    """Let a model be pretrained on the pictures of another data set.

    Args:
        data: with the parts that a target is trained on and audited by.
        other: the data set whose pictures, of `train` and `test`, are pretrained on.

    Returns:
        The data set with these as `pretrain`, without their tags, and with labels that go on after all others.

    Raises:
        DataError: the pictures are of another shape, or a class is in both by its name, as `with_public` compares them.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> data, other = (from_tensors(torch.rand(20, 1, 8, 8), torch.arange(20) % 2) for _ in range(2))
        >>> with_pretrain(data, other).part("pretrain").labels.unique()
        tensor([2, 3])
    """
    _check_shapes(data, other, "pretrain")
    _check_names(data, other, "pretrained on")
    taken = 1 + max(int(part.labels.max()) for name, part in data.parts.items() if name != "pretrain" and len(part))
    return data.with_parts(pretrain=_all_of(other, after=taken))


def pretraining_data(data: Data, *, seed: int = 0) -> Data:
    """Return the people to pretrain on as a data set of their own, whose classes they are.

    Args:
        data: with the part `pretrain`, as `by_identity` or `with_pretrain` return it.
        seed: of the tenth of the pictures of each that is held out.

    Returns:
        A data set with the parts `train`, which is `private` too, and `test`.

    Raises:
        DataError: there is nobody to pretrain on.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> data = by_identity(from_tensors(torch.rand(80, 1, 8, 8), torch.arange(80) % 4), private=2, pretrain=1)
        >>> others = pretraining_data(data)
        >>> len(others.classes), len(others.part("train")), len(others.part("test"))
        (1, 18, 2)
    """
    pictures = data.parts.get("pretrain")
    if pictures is None or not len(pictures):
        raise DataError(
            f"{data.name} has nobody to pretrain on; set pretrain_identities under [data], or name a data set under [pretrain]"
        )
    known, labels = pictures.labels.unique(return_inverse=True)
    pictures = pictures.relabeled(labels, {})
    stay, held_out = (pictures.subset(some) for some in stratified(labels, fraction=_HELD_OUT, seed=seed, purpose="pretrain"))
    parts = {"train": stay, "private": stay, "test": held_out}
    return Data(f"{data.name}, others", tuple(f"other {number}" for number in range(len(known))), parts)


def _all_of(other: Data, *, after: int) -> Pictures:
    """Return all pictures of another data set, its classes numbered from `after`."""
    pictures = join([other.part("train"), other.part("test")])
    return pictures.relabeled(pictures.labels + after, {})


def disjoint(data: Data, *, tolerated: float = 0.0, parts: Sequence[str] = ("public", "pretrain")) -> tuple[Data, int]:
    """Make sure that no picture of a private identity, trained on or held out, is public or pretrained on.

    Pictures are compared by a hash of their pixels: one that was encoded or cut out again is another picture here.

    Args:
        data: as `by_identity` or `with_public` return it.
        parts: of the data, which are looked through.
        tolerated: share of the pictures of a part, [0, 1), that may be private ones too. Such are left out: collections from
            the web have some, and whoever has the picture already learns nothing from a reconstruction. More say that the
            identities are not disjoint, and are refused.

    Returns:
        The data set, and how many pictures were left out.

    Raises:
        ConfigError: tolerated is outside [0, 1).
        DataError: more pictures than tolerated are on both sides.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> data = by_identity(from_tensors(torch.rand(40, 1, 8, 8), torch.arange(40) % 4), private=2)
        >>> disjoint(data)[1]
        0
    """
    if not 0 <= tolerated < 1:
        raise ConfigError(f"tolerated must be in [0, 1), a share of the pictures, got {tolerated}; 0 refuses a single one")
    secret = {one for name in ("private", "test") for one in pixel_hashes(data.part(name))}
    left, left_out = {}, 0
    for name in parts:
        part = data.part(name)
        shared = torch.tensor([one in secret for one in pixel_hashes(part)], dtype=torch.bool)
        count = int(shared.sum())
        if count > tolerated * len(part):
            raise DataError(
                f"{data.name}: private identities must have no pictures elsewhere, but {count} of {len(part)} of '{name}' have "
                f"the pixels of a private one; take other pictures{_tolerable(count / len(part))}"
            )
        left[name] = part.subset((~shared).nonzero()[:, 0]) if count else part
        left_out += count
    auxiliary = {"auxiliary": left["public"]} if "public" in left else {}
    return data.with_parts(**left, **auxiliary), left_out


def _tolerable(share: float) -> str:
    """Offer to leave doubles out, where they are few enough to be there by chance."""
    if share > _BY_CHANCE:
        return ""
    most = math.ceil(1000 * share) / 1000
    return f", or, where these are doubles by chance, leave out a share of up to {most:g} (overlap in [data])"


def _check(data: Data, private: int | None, pretrain: int, least: int) -> None:
    if data.task != "classification":
        raise ConfigError(f"identities are the classes of a data set for classification, and {data.name} is for {data.task}")
    for name, value, lowest in (
        ("private", 2 if private is None else private, 2),
        ("pretrain", pretrain, 0),
        ("least", least, 2),
    ):
        if value < lowest:
            raise ConfigError(f"{name} must be at least {lowest}, got {value}")


def _choose(data: Data, private: int | None, least: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the classes that are private, ascending, and the others with enough pictures, ascending."""
    here, held_out = (torch.bincount(data.part(part).labels, minlength=len(data.classes)) for part in ("train", "test"))
    counts = here + held_out
    enough = counts >= least
    fit = (enough & (here > 0) & (held_out > 0)).nonzero()[:, 0]
    wanted = len(fit) if private is None else private
    if len(fit) < max(wanted, 2):
        raise DataError(
            f"{data.name}: {max(wanted, 2)} private identities of {least} pictures or more, one of them held out, were asked "
            f"for, found {len(fit)} of {len(data.classes)}; ask for fewer, or lower least"
        )
    fit = fit[shuffled(len(fit), generator(seed, "identities", "ties"))]
    mine = fit[counts[fit].argsort(descending=True, stable=True)[:wanted]].sort().values
    enough[mine] = False
    return mine, enough.nonzero()[:, 0]


def _of(parts: Sequence[Pictures], who: Tensor, numbers: Tensor) -> Pictures:
    """Return the pictures of some classes, with the new number of each as its label."""
    found = join([part.subset(torch.isin(part.labels, who).nonzero()[:, 0]) for part in parts])
    return found.relabeled(numbers[found.labels], found.tags)


def _check_shapes(data: Data, other: Data, name: str) -> None:
    if other.shape != data.shape:
        raise DataError(
            f"{name} pictures must be of the shape (C, H, W) of the private ones, {data.shape} in {data.name}, but those of "
            f"{other.name} are {other.shape}; read both with the same size=, and in gray or in color alike"
        )


def _check_names(data: Data, other: Data, use: str) -> None:
    public = {_plain(name) for name in other.classes}
    if shared := [name for name in data.classes if _telling(name) and _plain(name) in public]:
        rest = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
        raise DataError(
            f"{data.name}: private identities must not be {use} too, but {other.name} has classes of the same name for "
            f"{len(shared)} of {len(data.classes)}: {', '.join(shared[:_SHOWN])}{rest}; take these out of one side"
        )


def _plain(name: str) -> str:
    """Return a name as it reads: "Aaron_Eckhart" and "aaron eckhart" are the same person."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


def _telling(name: str) -> bool:
    """Return whether a name says who it is, and not only that it is somebody: "n000129" and "identity 3" do not."""
    return any(sign.isalpha() for sign in name) and not any(sign.isdigit() for sign in name)
