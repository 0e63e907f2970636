# SPDX-License-Identifier: Apache-2.0
"""Conditional entropy maximization: squeeze what the features say about the picture beyond their cluster.

Source: xia2025cem, sections 3 and 4, Algorithm 1; its released code for `mode="reference"`, which computes something else.
Equations: (8) -> CEM.penalty, which the loop adds to the loss of the task and of all other defenses; (5), (6), (7) ->
    sfumato.analysis.mixture; the release's loss -> sfumato.analysis.clusters.
Departures, mode="paper": the mixture is fitted to the clean features and Sigma_p added once, in (7); line 4 of Algorithm 1 fits
the noisy ones, whose covariance holds Sigma_p already. Its fit is one step of EM for each epoch, warm-started, in which a row
belongs to the component with the nearest mean (line 9) and not to all by their posteriors, with moments streamed from the
training forward while the head learns, so that no pass over the data is added; the first epoch seeds the means and has no
penalty. A component that empties is given half of the largest one. L_C is divided by the dimensions of z (`normalize`), without
which the paper's weight of 16 would mean 512 times more at 512 dimensions than at one.
Departures, mode="reference": one backward pass in place of two, which gives the same gradient; features are clustered without
augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from sfumato.analysis.mixture import Covariance
from sfumato.arguments import require_choice
from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.statistics import ClusterStatistics, MixtureStatistics
from sfumato.errors import ConfigError, DataError, TrainingError
from sfumato.types import Epoch, Step


class CEM(Defense):
    """Maximize H(x|z) by minimizing a bound on I(z; z_hat); composes with every other defense of features.

    The noise is that of the composition, such as `Noise(sigma=0.025)` beside it. Where it is not Gaussian, L_C is the bound but
    for a constant. In a run of several processes each has a mixture of its own share of the pictures.

    Args:
        weight: lambda of Eq. 8.
        mode: "paper" (Theorem 2 and Algorithm 1) or "reference" (what the released code computes).
        components_per_class: k is this times the classes; 0 takes the mode's own, 3 and 5.
        covariance: of each component in mode "paper": "full", or "shrunk" (Ledoit-Wolf) or "diagonal" for when a component has
            fewer pictures than z has dimensions.
        by_class: in mode "paper" give each class components of its own, as mode "reference" does.
        floor: noise std in units of z to assume where the other defenses add less; the bound needs more than 0.
        normalize: divide L_C by the dimensions of z; off, Eq. 7 to the letter.
        threshold: in mode "reference" a cluster with a variance under this times sigma^2 costs nothing (0.0625 on Tiny-ImageNet).

    Raises:
        ConfigError: a value is out of its range, or, once composed, no part adds noise and floor is 0.

    Example:
        >>> CEM(weight=16.0).describe().startswith("CEM(weight=16.0, mode='paper', components_per_class=3")
        True
    """

    name = "cem"

    def __init__(
        self,
        weight: float = 16.0,
        *,
        mode: Literal["paper", "reference"] = "paper",
        components_per_class: int = 0,
        covariance: Covariance = "full",
        by_class: bool = False,
        floor: float = 0.0,
        normalize: bool = True,
        threshold: float = 0.125,
    ) -> None:
        super().__init__()
        require_choice("mode", mode, ("paper", "reference"))
        require_choice("covariance", covariance, ("full", "shrunk", "diagonal"))
        for name, value in (("weight", weight), ("floor", floor), ("threshold", threshold)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be >= 0 and finite, got {value}")
        if components_per_class < 0:
            raise ConfigError(f"components_per_class must be at least 1, or 0 for the mode's own, got {components_per_class}")
        self.weight, self.mode, self.covariance, self.by_class = weight, mode, covariance, by_class or mode == "reference"
        self.components_per_class = components_per_class or (3 if mode == "paper" else 5)
        self.floor, self.normalize, self.threshold = floor, normalize, threshold
        self._noise_std = 0.0
        self._statistics: MixtureStatistics | ClusterStatistics | None = None
        self._seen = -1

    def join(self, whole: Defense) -> None:
        """Learn the noise of the composition."""
        self._noise_std = max(whole.noise_std, self.floor)
        if self.mode == "paper" and self._noise_std == 0:
            raise ConfigError(
                "cem needs noise on z: without it z_hat is z and the bound on I(z; z_hat) is infinite; add "
                "Noise(sigma=0.025), or give cem a floor, the noise std that it shall assume"
            )

    def begin(self, data: Data) -> None:
        """Count pictures and classes, and start without statistics."""
        labels, classes = data.part("private").labels, len(data.classes)
        components = classes * self.components_per_class
        if components > len(labels):
            raise ConfigError(
                f"cem needs at least as many pictures as components, got {len(labels)} pictures for {components} "
                f"components ({classes} classes x {self.components_per_class}); lower components_per_class"
            )
        counts = torch.bincount(labels, minlength=classes)
        few = int(counts.argmin())
        if self.by_class and counts[few] < self.components_per_class:
            raise DataError(
                f"cem has {self.components_per_class} components for each class, but class '{data.classes[few]}' has "
                f"{int(counts[few])} training pictures; lower components_per_class, or leave the class out"
            )
        self._statistics, self._seen = self._fresh(len(labels), classes), -1

    def before_step(self, step: Step) -> None:
        """Take the features of a batch into the statistics of this epoch, once where a composition makes several updates."""
        if step.index == self._seen:
            return
        self._seen = step.index
        z = step.z.detach().flatten(1).float()
        _check(z, step.epoch)
        self._required.gather(z, step.y)

    def penalty(self, step: Step) -> Tensor | None:
        """Return lambda times L_C, or None in the first epoch, which has no statistics yet."""
        with torch.autocast(step.z.device.type, enabled=False):
            loss = self._required.loss(step.z.flatten(1).float(), step.y, self._noise_std**2)
        if loss is None:
            return None
        if self.mode == "reference":
            # The release multiplies the gradient so while the rate is high: a constant step of 0.001 lambda.
            return self.weight * (0.001 / step.learning_rate if step.learning_rate >= 4.1e-4 else 1.0) * loss
        return self.weight * (loss / step.z[0].numel() if self.normalize else loss)  # Eq. (8)

    def end_epoch(self, epoch: Epoch) -> None:
        """Make the statistics that the next epoch uses."""
        self._required.refit(epoch)

    def memory(self) -> dict[str, Tensor]:  # noqa: D102
        return {} if self._statistics is None else self._statistics.memory()

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: D102
        self._required.recall(memory)

    def forget(self) -> None:  # noqa: D102
        self._statistics = None

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"weight={self.weight}, mode={self.mode!r}, components_per_class={self.components_per_class}, "
            f"covariance={self.covariance!r}, by_class={self.by_class}, floor={self.floor}, normalize={self.normalize}, "
            f"threshold={self.threshold}"
        )

    @property
    def _required(self) -> MixtureStatistics | ClusterStatistics:
        assert self._statistics is not None  # noqa: S101 -- `begin` made them
        return self._statistics

    def _fresh(self, pictures: int, classes: int) -> MixtureStatistics | ClusterStatistics:
        if self.mode == "reference":
            return ClusterStatistics(classes, self.components_per_class, self.threshold)
        groups = classes if self.by_class else 1
        return MixtureStatistics(groups, classes * self.components_per_class // groups, self.covariance, pictures)


def _check(z: Tensor, epoch: int) -> None:
    """Refuse features that have no covariance."""
    low, high = z.aminmax()
    if not bool((high - low).isfinite()):
        raise TrainingError(f"cem needs finite features, found z with {_what(z)} in epoch {epoch}; lower the learning rate")
    if len(z) > 1 and bool((z == z[:1]).all()):
        raise TrainingError(
            f"cem needs features that differ, found one z for every picture of a batch in epoch {epoch}: the head says nothing; "
            "lower the weight of cem or the learning rate"
        )


def _what(z: Tensor) -> str:
    return "NaN" if bool(z.isnan().any()) else "infinite values"
