# SPDX-License-Identifier: Apache-2.0
"""Knowledge-enriched distributional inversion: a Gaussian of latents for each class, under a prior that knows the target.

Source: chen2021kedmi, sections 3.2 and 3.3; constants of its release, and of those that ho2024tldmi compares with.
Equations: z = mu + exp(log_var / 2) * e, e ~ N(0, I), one draw a class and step -> GaussianSearch.latents
    min over mu, log_var of softplus(-lse D(G(z))) + 100 * CE(T(G(z)), y) -> KEDMI.invert
Departures: releases differ in where they begin (log_var 1 in the first, 0 in later ones) and in whether the latents that the
prior sees are clipped to [-1, 1]: the first clips only a copy for its log. The defaults are those of the later ones, by which the
tables of TL-DMI were made: 0, and clipped, so that a latent outside of the box has no gradient; `original` is the first. The
momentum of the releases' configuration is never used and has no field here. The log variance is kept in [-20, 20].
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.arguments import require_least
from sfumato.attacks.weights.base import InversionAttack, Means
from sfumato.attacks.weights.latents import GaussianSearch
from sfumato.attacks.weights.objectives import cross_entropy, identity
from sfumato.inversion_types import ClassPictures
from sfumato.types import Labels


@dataclass(kw_only=True)
class KEDMI(InversionAttack):
    """Search a Gaussian of latents for each class, in a GAN that learned the target's soft labels; white box.

    Args:
        steps: of the search.
        learning_rate: of Adam.
        identity_weight: of the cross-entropy, beside a prior term of weight 1.
        log_var: of the Gaussians at the beginning, whose means are 0.
        bound: latents are clipped to [-bound, bound]; None clips none.
        per_class: pictures of each class, drawn from its Gaussian at the end.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> KEDMI(steps=300).prior
        'inversion'
    """

    access = "weights"
    prior = "inversion"

    steps: int = 3000
    learning_rate: float = 0.02
    identity_weight: float = 100.0
    log_var: float = 0.0
    bound: float | None = 1.0

    def __post_init__(self) -> None:
        require_least(0, identity_weight=self.identity_weight)
        self._search = GaussianSearch(
            steps=self.steps,
            per_class=self.per_class,
            learning_rate=self.learning_rate,
            log_var=self.log_var,
            bound=self.bound,
        )

    def invert(self, means: Means, labels: Labels) -> ClassPictures:
        """Make pictures of classes."""
        return self._search(means, labels, [(self.identity_weight, identity(cross_entropy))])


def original(*, steps: int = 1500, identity_weight: float = 100.0, per_class: int = 5) -> KEDMI:
    """Return the attack as its first release has it: half the steps, a wider start, latents that are not clipped.

    Args:
        steps: of the search.
        identity_weight: of the cross-entropy.
        per_class: pictures of each class.

    Example:
        >>> original().log_var
        1.0
    """
    return KEDMI(steps=steps, identity_weight=identity_weight, per_class=per_class, log_var=1.0, bound=None)
