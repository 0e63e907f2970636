# SPDX-License-Identifier: Apache-2.0
"""What conditional entropy maximization knows of the features, from one epoch to the next.

`gather` is given every batch, `loss` asks what it costs by the statistics of the epoch before, and `refit` makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sfumato.analysis.clusters import ClassClusters, cluster_classes, hinged_variance, lloyd, seed_means
from sfumato.analysis.mixture import Covariance, Mixture, Moments, entropy_loss, nearest, split_largest
from sfumato.errors import ConfigError, TrainingError
from sfumato.types import Epoch

ROWS_PER_COMPONENT = 32
"""Features that are gathered in the first epoch before the means are seeded, for each component."""
LARGEST = 8 << 30
"""Bytes that the covariances of a mixture may take."""
COPIES = 4
"""Of the covariances: the moments, the eigenvectors, and what the decomposition takes while it runs."""


class MixtureStatistics:
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

    def gather(self, z: Tensor, y: Tensor) -> None:
        """Take a batch into the moments; before there are means, keep it until they can be seeded.

        Args:
            z: clean features, (n, D), float32, without gradient.
            y: class numbers, (n,), int64.
        """
        group = self._group(y)
        if self.moments is None:
            self._keep(z, group)
        else:
            self.moments.add(z, self._nearest(z, group, self.moments.centers))

    def loss(self, z: Tensor, y: Tensor, noise_variance: float) -> Tensor | None:
        """Return L_C of a batch with gradient to z, or None before there is a mixture."""
        if self.mixture is None:
            return None
        component = self._nearest(z.detach(), self._group(y), self.mixture.means)
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
        # A decomposition gives columns, a checkpoint gives rows, and products of the two differ in the last bit.
        laid = {name: value.contiguous() for name, value in vars(mixture).items() if value is not None}
        self.mixture = replace(mixture, **laid)
        self.moments = Moments(self.mixture.means, diagonal=self.covariance == "diagonal")

    def _nearest(self, z: Tensor, group: Tensor, centers: Tensor) -> Tensor:
        """Return the component with the nearest mean, of the row's own group, (n,)."""
        if self.groups == 1:
            return nearest(z, centers)
        own = centers.unflatten(0, (self.groups, self.components))[group]
        within: Tensor = (z[:, None] - own).square().sum(2).argmin(1)
        return group * self.components + within

    def _group(self, y: Tensor) -> Tensor:
        return y if self.groups > 1 else torch.zeros_like(y)

    def _keep(self, z: Tensor, group: Tensor) -> None:
        """Keep the first rows until there are enough of each group to seed the means."""
        total = self.groups * self.components
        size = 4 * COPIES * total * z.shape[1] ** 2
        if not self.gathered and self.covariance != "diagonal" and size > LARGEST:
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


class ClusterStatistics:
    """The clusters of the last epoch, of the features of all training pictures.

    Args:
        classes: of the data.
        components: of each class.
        threshold: of the hinge, times sigma^2.
    """

    def __init__(self, classes: int, components: int, threshold: float) -> None:
        self.classes, self.components, self.threshold = classes, components, threshold
        self.clusters: ClassClusters | None = None

    def gather(self, z: Tensor, y: Tensor) -> None:
        """Look at nothing: the clusters are made of a pass over all pictures after the epoch, as in the release."""

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
