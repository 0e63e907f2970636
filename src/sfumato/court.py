# SPDX-License-Identifier: Apache-2.0
"""Everything that pictures of classes are judged by: the target, the private pictures, an evaluator, a reader of factors.

What is judged is one number a picture; what the numbers come to together is said in `sfumato.inversion`.

Source: ho2024tldmi, appendix D.2 (the measures) and B.2 (the target's own confidence beside them).
Equations: none.
Departures: pictures of a class that an attack did not get to count as wrong, whatever the evaluator happens to name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato.data.base import Data, Pictures
from sfumato.errors import DataError
from sfumato.factors import Reader, factors_of
from sfumato.judge import Judge, Judgment
from sfumato.metrics.frechet import frechet_distance, kernel_distance
from sfumato.metrics.identity import centroid_distance, factor_error, named_within, nearest_squared
from sfumato.metrics.utility import hits
from sfumato.models.resolve import check_model
from sfumato.seeds import generator
from sfumato.target import BATCH, LogitsView, Target
from sfumato.types import Images, Labels, Logits, Pixels


@dataclass(frozen=True)
class Measured:
    """What pictures come to.

    Attributes:
        labels: the class that each is to show, (N,), int64.
        values: one number a picture, each (N,), float64: "top1", "top5", "knn", "centroid", and "face" and "factors" where there
            is somebody to tell.
        frechet: Fréchet distance to the private pictures of the same classes.
        kid: kernel distance to these.
    """

    labels: Labels
    values: Mapping[str, Tensor]
    frechet: float
    kid: float


@dataclass(frozen=True)
class Asked:
    """What the target says of pictures, one number a picture: its probability of the class, and whether it names it."""

    confidence: Tensor
    named: Tensor


@dataclass(frozen=True)
class Court:
    """What judges pictures of a target's classes.

    Args:
        target: as deployed.
        data: the pictures; labels of `private` are the target's outputs, `test` has held-out pictures of the same people, and
            `public` pictures of others.
        judge: the evaluator.
        reader: of the identities' factors; None where the pictures come without.

    Raises:
        ModelError: the target does not take the pictures, or has another number of outputs than the data has classes.
        DataError: a class has no private picture.

    Example:
        >>> import sfumato as sf
        >>> from sfumato.defenses.compose import Compose
        >>> from sfumato.evaluator import Evaluator
        >>> from sfumato.judge import prepare_judge
        >>> data = sf.partition(sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2)))
        >>> target = Target(sf.split(sf.build_model("cnn4", classes=2, shape=(1, 8, 8)), at="c1"), Compose())
        >>> judge = prepare_judge(Evaluator(model="lenet5", epochs=1), data, target, device=torch.device("cpu"))
        >>> Court(target, data, judge).private.embedding.shape
        torch.Size([32, 84])
    """

    target: Target
    data: Data
    judge: Judge
    reader: Reader | None = None

    def __post_init__(self) -> None:
        classes = len(self.data.classes)
        check_model(self.target.split, classes=classes, shape=self.data.shape, name="the target")
        found = self.data.part("private").labels.unique()
        if found.tolist() != list(range(classes)):
            raise DataError(
                f"part private must show the classes 0 to {classes - 1}, found {len(found)} classes from {int(found.min())} to "
                f"{int(found.max())}; number them as the target's outputs are"
            )

    @cached_property
    def private(self) -> Judgment:
        """What the judge makes of the private pictures, in their order."""
        return self.judge.read(self.data.part("private"))

    def pictures_of(self, classes: Labels, place: int) -> Pixels:
        """Return the private pictures of the class at a place of `classes`, (n, C, H, W), uint8."""
        private = self.data.part("private")
        return private.read((private.labels == classes[place]).nonzero()[:, 0])

    def ask(self, x: Images, labels: Labels, seed: int) -> Asked:
        """Ask the target as deployed.

        Args:
            x: (N, C, H, W), [0, 1].
            labels: the class that each is to show, (N,), int64.
            seed: of the defense's random numbers.
        """
        logits = self.answers(x, seed, "judged")
        return Asked(logits.softmax(1).gather(1, labels[:, None])[:, 0].double(), hits(logits, labels).double())

    def answers(self, x: Images, seed: int, *purpose: str) -> Logits:
        """Return what the target as deployed answers, (N, K), float32, on the CPU.

        Args:
            x: (N, C, H, W), [0, 1], on any device.
            seed: of the defense's random numbers.
            purpose: names these.
        """
        view = self.target.view("logits", generator(seed, *purpose, device=self.target.device))
        assert isinstance(view, LogitsView)  # noqa: S101 -- the view is made by the declared access
        return torch.cat([view.logits(some).float().cpu() for some in x.split(BATCH)])

    def measure(self, x: Images, labels: Labels) -> Measured:
        """Measure pictures that an adversary made.

        Args:
            x: (N, C, H, W), [0, 1], N at least 2.
            labels: the class that each is to show, (N,), int64, on the CPU.
        """
        return self._measured(self.judge(x), None if self.reader is None else self.reader(x), labels)

    def measure_stored(self, pictures: Pictures, labels: Labels) -> Measured:
        """Measure true pictures as those that an adversary made are, each for the class that it is taken to show."""
        return self._measured(self.judge.read(pictures), None if self.reader is None else self.reader.read(pictures), labels)

    def _measured(self, seen: Judgment, read: Tensor | None, labels: Labels) -> Measured:
        owners = self.data.part("private").labels
        same = torch.isin(owners, labels)
        owners, near = owners[same], self.private.embedding[same]
        values = {
            "top1": named_within(seen.logits, labels),
            "top5": named_within(seen.logits, labels, 5),
            "knn": nearest_squared(seen.embedding, labels, near, owners),
            "centroid": centroid_distance(seen.embedding, labels, near, owners),
        }
        if seen.face is not None and self.private.face is not None:
            values["face"] = nearest_squared(seen.face, labels, self.private.face[same], owners)
        if read is not None:
            values["factors"] = factor_error(read, self._factors[labels])
        return Measured(labels, values, frechet_distance(seen.embedding, near), kernel_distance(seen.embedding, near))

    @cached_property
    def _factors(self) -> Tensor:
        """The true factors of each class, (K, F): those of any of its pictures."""
        assert self.reader is not None  # noqa: S101 -- nobody asks without one
        private = self.data.part("private")
        first = torch.zeros(len(self.data.classes), dtype=torch.int64)
        first[private.labels] = torch.arange(len(private))
        return factors_of(private.subset(first), self.reader.names)
