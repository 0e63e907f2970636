# SPDX-License-Identifier: Apache-2.0
"""Generative model inversion: follow the gradient to latents that a critic takes for pictures and the target for the class.

Source: zhang2020secret, section 3; constants of its release, and of those that ho2024tldmi compares with.
Equations: min over z of -D(G(z)) + 100 * CE(T(G(z)), y), z in [-1, 1]^d -> GMI.invert
Departures: the releases write the accelerated step out by hand, ``v' = m v - r g`` and ``z' = z - m v + (1 + m) v'``; with
``v = -r b`` that is PyTorch's Nesterov momentum, which a test shows. They clip after a step and start outside of the box; here
the start is clipped too, so that every picture that is looked at comes from the box. The release for faces reads the score of the
wrong class wherever classes are not attacked in the order of their numbers, and calls it a success when any of five restarts is
right: here every restart counts as a picture of its own. The context branch for masked pictures, which no successor kept, is not
here.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.arguments import require_least
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.latents import PointSearch
from sfumato.attacks.weights.objectives import cross_entropy, identity
from sfumato.inversion_types import ClassPictures
from sfumato.types import Labels


@dataclass(kw_only=True)
class GMI(InversionAttack):
    """Search the latents of a plain GAN; white box.

    The defaults are those that TL-DMI's tables were made with; `original` gives those of the first release.

    Args:
        steps: of the search.
        learning_rate: of Nesterov's descent.
        momentum: likewise.
        identity_weight: of the cross-entropy, beside a critic of weight 1.
        bound: latents are kept in [-bound, bound].
        per_class: pictures of each class, each from a start of its own.
        mean_over: the loss is divided by so many, as the releases average over the rows of their batch: it scales the steps.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> GMI(steps=300, per_class=3).access
        'weights'
    """

    access = "weights"
    prior = "gan"

    steps: int = 3000
    learning_rate: float = 0.02
    momentum: float = 0.9
    identity_weight: float = 100.0
    bound: float = 1.0
    mean_over: float = 60.0

    def __post_init__(self) -> None:
        require_least(0, identity_weight=self.identity_weight)
        self._search = PointSearch(
            steps=self.steps,
            per_class=self.per_class,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            bound=self.bound,
            mean_over=self.mean_over,
        )

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        return self._search(means, labels, [(self.identity_weight, identity(cross_entropy))])


def original(*, steps: int = 1500, identity_weight: float = 100.0, per_class: int = 5, mean_over: float = 100.0) -> GMI:
    """Return the attack with the constants of its first release: half the steps, the mean over batches of 100.

    Args:
        steps: of the search.
        identity_weight: of the cross-entropy.
        per_class: pictures of each class.
        mean_over: the loss is divided by so many.

    Example:
        >>> original().mean_over
        100.0
    """
    return GMI(steps=steps, identity_weight=identity_weight, per_class=per_class, mean_over=mean_over)
