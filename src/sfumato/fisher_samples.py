# SPDX-License-Identifier: Apache-2.0
"""Which pictures the Fisher information of a classifier is measured on: of more than 500 as many, drawn by the seed.

Source: ho2024tldmi, section 4.2 (held-out pictures for naming, those of an attack for rebuilding).
Equations: none.
Departures: the paper does not say of how many pictures its profiles are a mean.
"""

from __future__ import annotations

from sfumato.data.base import Data, Pictures
from sfumato.data.loader import shuffled
from sfumato.data.resident import ResidentPictures
from sfumato.inversion_exhibits import JudgedPictures
from sfumato.seeds import generator
from sfumato.types import Labels

SAMPLES = 500
"""Pictures that Fisher information is the mean of, at most."""


def held_out(data: Data, seed: int) -> Pictures:
    """Return pictures of the target's people that it was not trained on: for naming.

    Args:
        data: with part `test`.
        seed: of the draw.
    """
    held = data.part("test")
    return held.subset(shuffled(len(held), generator(seed, "fisher", "task"))[:SAMPLES])


def reconstructions(found: JudgedPictures, classes: Labels, seed: int) -> Pictures | None:
    """Return pictures that an attack ended with: for rebuilding.

    Args:
        found: what the attack made of K classes; those that it did not reach are left out, since it made no pictures of them.
        classes: that were attacked, (K,), int64.
        seed: of the draw.

    Returns:
        Pictures of float32 in [0, 1], each labeled with the class that it is to show; None where no class was reached.
    """
    reached = found.pictures.reached.cpu()
    if not bool(reached.any()):
        return None
    x_hat = found.pictures.x_hat[reached]
    labels = classes.cpu()[reached].repeat_interleave(x_hat.shape[1])
    chosen = shuffled(len(labels), generator(seed, "fisher", found.attack))[:SAMPLES]
    return ResidentPictures(x_hat.flatten(0, 1)[chosen], labels[chosen])
