# SPDX-License-Identifier: Apache-2.0
"""What a target is trained for: the order of the pictures, the loss, and the numbers that say how useful it is.

Source: hermans2017triplet, Section 2 (batch-hard triplets of P individuals with K pictures each); szegedy2016smoothing,
Section 7; he2020fastreid, whose defaults these are (margin 0.3, smoothing 0.1, hard mining, embeddings not normalized, both terms
with weight 1); ding2024patrol, Section V-A (the embedding is what the linear head is given).
Equations: hermans2017triplet (5) -> _batch_hard, by pytorch-metric-learning.
Departures: the mean over anchors in place of the sum of (5), as he2020fastreid has it. Its release spreads the smoothing over the
wrong classes alone; szegedy2016smoothing, and so PyTorch, over all of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.base import Data, Pictures
from sfumato.data.loader import shuffled
from sfumato.data.reid import check_identities
from sfumato.data.sampler import pk_order
from sfumato.errors import ConfigError
from sfumato.target import Target
from sfumato.types import Interval, Step, TaskName
from sfumato.utility import accuracy, retrieval


class Task(ABC):
    """What a target is trained for.

    Attributes:
        name: of the task, as `Data.task` says it.
        embeds: whether the loss asks for `Step.embedding`.
        together: how many neighbors in an order belong together where processes share it.
    """

    name: ClassVar[TaskName]
    embeds: ClassVar[bool]

    @property
    def together(self) -> int:
        """How many neighbors in an order belong together."""
        return 1

    @abstractmethod
    def check(self, data: Data, batch_size: int) -> None:
        """Raise where a data set cannot be trained on, or measured on, in batches of this size."""

    @abstractmethod
    def order(self, pictures: Pictures, batch_size: int, generator: torch.Generator) -> Tensor:
        """Return the pictures of an epoch in their order, (n,), int64; n is the same in every epoch."""

    @abstractmethod
    def loss(self, step: Step) -> Tensor:
        """Return the loss of a batch, a scalar. Run with gradient."""

    @abstractmethod
    def utility(self, target: Target, data: Data, seed: int) -> dict[str, Interval]:
        """Return how useful a target is as deployed, [0, 1], the headline first.

        Args:
            target: the target.
            data: the pictures.
            seed: of the defense's random numbers.
        """


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Name the class of a picture: cross-entropy over shuffled pictures, accuracy on `test`."""

    name = "classification"
    embeds = False

    def check(self, data: Data, batch_size: int) -> None:
        """Do nothing: any labeled pictures will do."""

    def order(self, pictures: Pictures, batch_size: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        return shuffled(len(pictures), generator)

    def loss(self, step: Step) -> Tensor:  # noqa: D102
        return F.cross_entropy(step.logits.float(), step.y)

    def utility(self, target: Target, data: Data, seed: int) -> dict[str, Interval]:  # noqa: D102
        return {"accuracy": accuracy(target, data.part("test"), seed)}


@dataclass(frozen=True, kw_only=True)
class Reidentification(Task):
    """Find the pictures of the same individual: cross-entropy over the individuals of `train`, and triplets of embeddings.

    Args:
        instances: pictures of each individual in a batch.
        margin: by which an individual's farthest picture must be nearer than the nearest of another, in units of the embedding.
        smoothing: share of the label that is spread over all individuals, [0, 1).

    Raises:
        ConfigError: instances is under 2, margin is negative, or smoothing is outside [0, 1).

    Example:
        >>> import sfumato as sf
        >>> sf.Reidentification(instances=8)
        Reidentification(instances=8, margin=0.3, smoothing=0.1)
    """

    name = "reidentification"
    embeds = True

    instances: int = 4
    margin: float = 0.3
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if self.instances < 2:
            raise ConfigError(f"instances must be at least 2, got {self.instances}: a triplet has two pictures of an individual")
        if not (0 <= self.margin < math.inf and 0 <= self.smoothing < 1):
            raise ConfigError(f"margin must be >= 0 and smoothing in [0, 1), got {self.margin} and {self.smoothing}")

    @property
    def together(self) -> int:
        """The pictures of an individual that are in a batch together."""
        return self.instances

    def check(self, data: Data, batch_size: int) -> None:
        """Raise where triplets cannot be made of the training pictures, or no query can be answered."""
        _batch_hard(self.margin)
        size = max(2, batch_size // self.instances) * self.instances
        if size != batch_size:
            raise ConfigError(
                f"batch_size must be a multiple of instances, and hold two individuals or more, got {batch_size} for "
                f"{self.instances} instances; {size} is one"
            )
        check_identities(data)

    def order(self, pictures: Pictures, batch_size: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        identities = batch_size // self.instances
        return pk_order(pictures.labels, identities=identities, instances=self.instances, generator=generator)

    def loss(self, step: Step) -> Tensor:  # noqa: D102
        assert step.embedding is not None  # noqa: S101 -- the loop captures it
        named = F.cross_entropy(step.logits.float(), step.y, label_smoothing=self.smoothing)
        return named + _batch_hard(self.margin)(step.embedding.float(), step.y)

    def utility(self, target: Target, data: Data, seed: int) -> dict[str, Interval]:  # noqa: D102
        return retrieval(target, data, seed)


TASKS: Mapping[str, Callable[..., Task]] = {
    "classification": Classification,
    "reidentification": Reidentification,
}


def task_for(data: Data, task: Task | None = None) -> Task:
    """Return the task that a data set is for.

    Args:
        data: the pictures.
        task: with arguments of the user's own; the defaults where None.

    Raises:
        ConfigError: the data set is for another task.

    Example:
        >>> import sfumato as sf
        >>> task_for(sf.load_data((torch.rand(4, 1, 8, 8), torch.arange(4) % 2)))
        Classification()
    """
    if task is None:
        return TASKS[data.task]()
    if task.name != data.task:
        raise ConfigError(
            f"the task is {task.name}, but the data set '{data.name}' is for {data.task}; leave the task out, or give a data set "
            f"for {task.name}"
        )
    return task


@cache
def _batch_hard(margin: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the triplet loss of embeddings, (N, E), and labels, (N,), with the hardest pair of each anchor.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        from pytorch_metric_learning import distances, losses, miners, reducers
    except ImportError as error:
        raise ConfigError('re-identification needs the extra: pip install "sfumato[reid]"') from error
    distance = distances.LpDistance(normalize_embeddings=False)
    miner = miners.BatchHardMiner(distance=distance)
    triplet = losses.TripletMarginLoss(margin, distance=distance, reducer=reducers.MeanReducer())

    def loss(embedding: Tensor, y: Tensor) -> Tensor:
        value: Tensor = triplet(embedding, y, miner(embedding, y))  # Eq. (5)
        return value

    return loss
