# SPDX-License-Identifier: Apache-2.0
"""Which classes of an inversion audit are shown, and which pictures of each: half the most exposed, half spread over the rest.

The most exposed alone would make every target look naked, and classes drawn at random could hide the few that are.

Example:
    >>> telling_classes(torch.tensor([0.0, 0.9, 0.5, 0.2, 0.1, 0.3]), 4)
    [1, 2, 5, 0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.inversion_types import ClassPictures, InversionExhibit, Rebuilt
from sfumato.types import Pixels

CLASSES = 12
"""How many classes a gallery shows at most."""
PICTURES = 2
"""How many reconstructions of a class it shows of each attack."""
PRIVATE = 4
"""How many private pictures of a class it shows, where it may."""


@dataclass(frozen=True)
class JudgedPictures:
    """Pictures that an attack made of classes, with what the target and the evaluator make of each.

    Attributes:
        attack: its name.
        seed: of the attack.
        pictures: of K classes, n of each.
        confidence: the probability that the target gives the class, (K, n), float32.
        right: whether the evaluator takes it for the class, (K, n), bool; of classes that were not reached nothing counts.
    """

    attack: str
    seed: int
    pictures: ClassPictures
    confidence: Tensor
    right: Tensor

    @property
    def counted(self) -> Tensor:
        """What counts as right, (K, n), bool, on the CPU: of classes that were not reached nothing does."""
        return self.right.cpu() & self.pictures.reached.cpu()[:, None]


def exhibits(
    names: Sequence[str],
    judged: Sequence[JudgedPictures],
    *,
    private: Callable[[int], Pixels] | None = None,
    classes: int = CLASSES,
    pictures: int = PICTURES,
) -> tuple[InversionExhibit, ...]:
    """Choose classes and pictures to look at.

    Args:
        names: of the K classes.
        judged: what each attack made with each seed; of several seeds the one with the most pictures right is shown.
        private: returns private pictures of the class at a place of `names`, (n, C, H, W), uint8; None keeps them out of the
            record. It is asked for the chosen classes only.
        classes: how many at most.
        pictures: of each attack and class at most: those that the adversary itself ranks first, so that nobody helps it choose.

    Returns:
        The chosen classes, the most exposed first; none where there is no attack.

    Raises:
        ConfigError: an attack made pictures of another number of classes.

    Example:
        >>> exhibits(["anna", "ben"], [])
        ()
    """
    for one in judged:
        if one.right.shape[0] != len(names):
            raise ConfigError(f"expected pictures of {len(names)} classes by {one.attack}, found {one.right.shape[0]}; name each")
    shown = _best_seeds(judged)
    if not shown:
        return ()
    # Confidence only orders classes of equal accuracy: of a target that is sure of everything it says nothing.
    exposure = torch.stack([one.counted.float().mean(1) + 1e-3 * one.confidence.cpu().float().mean(1) for one in shown]).mean(0)
    return tuple(
        InversionExhibit(
            name=names[place],
            private=None if private is None else private(place)[:PRIVATE].cpu(),
            rebuilt=tuple(_rebuilt(one, place, pictures) for one in shown),
        )
        for place in telling_classes(exposure, classes)
    )


def telling_classes(exposure: Tensor, count: int) -> list[int]:
    """Choose classes: the more exposed half of them, and as many spread evenly over the others, the least exposed included.

    Args:
        exposure: how well attacks did on each class, (K,); higher is more exposed.
        count: how many to choose.

    Returns:
        At most `count` places, the most exposed first; all of them where there are no more.
    """
    order: list[int] = exposure.argsort(descending=True, stable=True).tolist()
    top = (min(count, len(order)) + 1) // 2
    rest, spread = order[top:], min(count, len(order)) - top
    if not spread:
        return order[:top]
    places = torch.linspace(len(rest) - 1, 0, spread).round().int().tolist()  # backwards, so that a single one is the last
    return [*order[:top], *(rest[place] for place in sorted(places))]


def _best_seeds(judged: Sequence[JudgedPictures]) -> list[JudgedPictures]:
    """Return what each attack made with the seed that did best, in the order of the attacks."""
    best: dict[str, JudgedPictures] = {}
    for one in judged:
        known = best.get(one.attack)
        if known is None or one.counted.float().mean() > known.counted.float().mean():
            best[one.attack] = one
    return list(best.values())


def _rebuilt(judged: JudgedPictures, place: int, pictures: int) -> Rebuilt:
    made = judged.pictures
    return Rebuilt(
        attack=judged.attack,
        seed=judged.seed,
        pixels=made.x_hat[place, :pictures].clamp(0, 1).mul(255).round().to(torch.uint8).cpu(),
        confidence=tuple(judged.confidence[place, :pictures].double().tolist()),
        right=tuple(judged.counted[place, :pictures].tolist()),
        reached=bool(made.reached[place]),
    )
