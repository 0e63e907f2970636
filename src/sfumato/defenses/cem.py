# SPDX-License-Identifier: Apache-2.0
"""Conditional entropy maximization: squeeze what the features say about the picture beyond their cluster.

Source: xia2025cem, sections 3 and 4, Algorithm 1; its released code for `mode="reference"`, which computes something else.
Equations: (8) -> CEM.penalty, which the loop adds to the loss of the task and of all other defenses; (5), (6), (7) ->
    analysis.mixture.entropy_loss; the release's loss -> analysis.clusters.hinged_variance.
Departures, mode="paper": the mixture is fitted to the clean features and Sigma_p added once, in (7); line 4 of Algorithm 1 fits
the noisy ones, whose covariance holds Sigma_p already. Its fit is one step of EM for each epoch, warm-started, with moments
streamed from the training forward, so that no pass over the data is added; the first epoch seeds the means and has no penalty. A
component that empties is given half of the largest one. L_C is divided by the dimensions of z (`normalize`), without which the
paper's weight of 16 would mean 512 times more at 512 dimensions than at one.
Departures, mode="reference": one backward pass in place of two, which gives the same gradient; features are clustered without
augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from sfumato.analysis.clusters import ClassClusters, cluster_classes, hinged_variance, lloyd, seed_means
from sfumato.analysis.mixture import Covariance, Mixture, Moments, entropy_loss, nearest, split_largest
from sfumato.arguments import require_choice
from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError, DataError, TrainingError
from sfumato.split import Split
from sfumato.types import Epoch, Step

ROWS_PER_COMPONENT = 32
"""Features that are gathered in the first epoch before the means are seeded, for each component."""
LARGEST = 8 << 30
"""Bytes that the covariances of a mixture may take."""


class CEM(Defense):
    """Maximize H(x|z) by minimizing a bound on I(z; z_hat); composes with every other defense of features.

    The Gaussian noise is that of the composition, such as `Noise(sigma=0.025)` beside it.

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
        self._pictures = self._classes = 0
        self._statistics: _PaperStatistics | _ReferenceStatistics | None = None

    def join(self, whole: Defense) -> None:
        """Learn the noise of the composition."""
        self._noise_std = max(whole.noise_std, self.floor)
        if self.mode == "paper" and self._noise_std == 0:
            raise ConfigError(
                "cem needs noise on z: without it z_hat is z and the bound on I(z; z_hat) is infinite; add "
                "Noise(sigma=0.025), or give cem a floor, the noise std that it shall assume"
            )

    def prepare(self, model: Split, data: Data) -> None:
        """Count pictures and classes; nothing of the model is changed."""
        labels = data.part("private").labels
        self._pictures, self._classes = len(labels), len(data.classes)
        components = self._classes * self.components_per_class
        if components > self._pictures:
            raise ConfigError(
                f"cem needs at least as many pictures as components, got {self._pictures} pictures for {components} "
                f"components ({self._classes} classes x {self.components_per_class}); lower components_per_class"
            )
        counts = torch.bincount(labels, minlength=self._classes)
        few = int(counts.argmin())
        if self.by_class and counts[few] < self.components_per_class:
            raise DataError(
                f"cem has {self.components_per_class} components for each class, but class '{data.classes[few]}' has "
                f"{int(counts[few])} training pictures; lower components_per_class, or leave the class out"
            )
        self._statistics = self._fresh()

    def penalty(self, step: Step) -> Tensor | None:
        """Return lambda times L_C, or None in the first epoch, which has no statistics yet."""
        assert self._statistics is not None  # noqa: S101 -- `prepare` made them
        with torch.autocast(step.z.device.type, enabled=False):
            z = step.z.flatten(1).float()
            _check(z, step.epoch)
            loss = self._statistics.loss(z, step.y, self._noise_std**2)
        if loss is None:
            return None
        if self.mode == "reference":
            # The release multiplies the gradient so while the rate is high: a constant step of 0.001 lambda.
            return self.weight * (0.001 / step.learning_rate if step.learning_rate >= 4.1e-4 else 1.0) * loss
        return self.weight * (loss / z.shape[1] if self.normalize else loss)  # Eq. (8)

    def end_epoch(self, epoch: Epoch) -> None:
        """Make the statistics that the next epoch uses."""
        assert self._statistics is not None  # noqa: S101 -- `prepare` made them
        self._statistics.refit(epoch)

    def finish(self, model: Split) -> None:
        """Forget the statistics: a deployed target does not need them."""
        self._statistics = self._fresh()

    def memory(self) -> dict[str, Tensor]:  # noqa: D102
        return {} if self._statistics is None else self._statistics.memory()

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: D102
        assert self._statistics is not None  # noqa: S101 -- `prepare` made them
        self._statistics.recall(memory)

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"weight={self.weight}, mode={self.mode!r}, components_per_class={self.components_per_class}, "
            f"covariance={self.covariance!r}, by_class={self.by_class}, floor={self.floor}, normalize={self.normalize}, "
            f"threshold={self.threshold}"
        )

    def _fresh(self) -> _PaperStatistics | _ReferenceStatistics:
        if self.mode == "reference":
            return _ReferenceStatistics(self._classes, self.components_per_class, self.threshold)
        classes = self._classes if self.by_class else 1
        components = self._classes * self.components_per_class // classes
        return _PaperStatistics(classes, components, self.covariance, self._pictures)


class _PaperStatistics:
    """The mixture of the last epoch and the moments of this one.

    Args:
        groups: the classes, where each has components of its own, or 1.
        components: of each group.
        covariance: how covariances are estimated.
        pictures: of the data set, N.
    """

    def __init__(self, groups: int, components: int, covariance: Covariance, pictures: int) -> None:
        self.groups, self.components, self.covariance, self.pictures = groups, components, covariance, pictures
        self.gathered: list[tuple[Tensor, Tensor]] = []
        self.moments: Moments | None = None
        self.mixture: Mixture | None = None

    def loss(self, z: Tensor, y: Tensor, noise_variance: float) -> Tensor | None:
        """Take a batch into the moments; return L_C, or None before there is a mixture."""
        group = y if self.groups > 1 else torch.zeros_like(y)
        if self.moments is None:
            self._gather(z.detach(), group)
            return None
        component = self._nearest(z.detach(), group, self.moments.centers)
        self.moments.add(z.detach(), component)
        if self.mixture is None:
            return None
        return entropy_loss(self.mixture, z, component, noise_variance=noise_variance, total=self.pictures)

    def refit(self, epoch: Epoch) -> None:
        """Make the mixture of the moments, and start new ones about its means."""
        if self.moments is None:
            self._seed()
        assert self.moments is not None  # noqa: S101 -- seeded just above
        if len(bad := self.moments.overflowed()):
            raise TrainingError(
                f"the covariance of cem's component {bad[0]} is not finite, and so not positive definite, at the end of epoch "
                f"{epoch.number}: z is too large; end the head in a bounded layer, such as that of the bottleneck"
            )
        self._adopt(split_largest(self.moments.mixture(self.covariance), groups=self.groups))

    def memory(self) -> dict[str, Tensor]:
        """Return the mixture; between epochs there is nothing else."""
        return {} if self.mixture is None else {name: value for name, value in vars(self.mixture).items() if value is not None}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take a mixture back."""
        self._adopt(Mixture(memory["weights"], memory["means"], memory["values"], memory.get("vectors")))

    def _adopt(self, mixture: Mixture) -> None:
        self.mixture, self.moments = mixture, Moments(mixture.means, diagonal=self.covariance == "diagonal")

    def _nearest(self, z: Tensor, group: Tensor, centers: Tensor) -> Tensor:
        """Return the component with the nearest mean, of the row's own group, (n,)."""
        if self.groups == 1:
            return nearest(z, centers)
        own = centers.unflatten(0, (self.groups, self.components))[group]
        within: Tensor = (z[:, None] - own).square().sum(2).argmin(1)
        return group * self.components + within

    def _gather(self, z: Tensor, group: Tensor) -> None:
        """Keep the first rows until there are enough of each group to seed the means."""
        total = self.groups * self.components
        if not self.gathered and self.covariance != "diagonal" and (size := 4 * total * z.shape[1] ** 2) > LARGEST:
            raise ConfigError(
                f"cem would need {size / 2**30:.0f} GiB for {total} covariances in {z.shape[1]} dimensions, more than "
                f"{LARGEST >> 30} GiB; use covariance='diagonal', fewer components_per_class, or a narrower bottleneck"
            )
        self.gathered.append((z, group))
        counts = torch.bincount(torch.cat([part for _, part in self.gathered]), minlength=self.groups)
        if int(counts.sum()) >= ROWS_PER_COMPONENT * total and int(counts.min()) >= self.components:
            self._seed()

    def _seed(self) -> None:
        """Seed the means by k-means on the rows gathered, and take these into the moments."""
        z, group = (torch.cat(parts) for parts in zip(*self.gathered, strict=True))
        self.gathered = []
        parts = [z[group == number] for number in range(self.groups)]
        centers = torch.cat([lloyd(part, seed_means(part, self.components), iterations=10)[0] for part in parts])
        self.moments = Moments(centers, diagonal=self.covariance == "diagonal")
        self.moments.add(z, self._nearest(z, group, centers))


class _ReferenceStatistics:
    """The clusters of the last epoch, of the features of all training pictures.

    Args:
        classes: of the data.
        components: of each class.
        threshold: of the hinge, times sigma^2.
    """

    def __init__(self, classes: int, components: int, threshold: float) -> None:
        self.classes, self.components, self.threshold = classes, components, threshold
        self.clusters: ClassClusters | None = None

    def loss(self, z: Tensor, y: Tensor, noise_variance: float) -> Tensor | None:
        """Return the release's loss, or None before there are clusters."""
        if self.clusters is None:
            return None
        return hinged_variance(self.clusters, z, y, floor=self.threshold * noise_variance)

    def refit(self, epoch: Epoch) -> None:
        """Cluster the features of all training pictures, from the means of the epoch before."""
        z, y = (torch.cat(parts) for parts in zip(*((z.flatten(1).float(), y) for _, z, y in epoch.batches()), strict=True))
        if self.clusters is None:
            # The release draws with the probability of the distance, where k-means++ takes its square.
            means = torch.stack([seed_means(z[y == number], self.components, power=1) for number in range(self.classes)])
        else:
            means = self.clusters.means
        self.clusters = cluster_classes(z, y, means)

    def memory(self) -> dict[str, Tensor]:
        """Return the clusters."""
        if self.clusters is None:
            return {}
        return {name: torch.as_tensor(value) for name, value in vars(self.clusters).items()}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take clusters back."""
        means, weights, variances = (memory[name] for name in ("means", "weights", "variances"))
        self.clusters = ClassClusters(means, weights, variances, int(memory["pictures"]))


def _check(z: Tensor, epoch: int) -> None:
    """Refuse features without which there is no covariance. One look at the device for both."""
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
