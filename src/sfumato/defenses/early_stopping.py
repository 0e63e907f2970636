# SPDX-License-Identifier: Apache-2.0
"""Early stopping: the weights of the epoch after which pictures that are not trained on are named best.

Source: song2021systematic (the baseline that a defense against membership inference has to beat).
Equations: epoch = argmin of the mean cross-entropy on `reference` -> EarlyStopping.end_epoch
Departures: all epochs are trained and the best is kept, so that it needs no patience to guess; the loop does not end sooner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.base import Data, Pictures
from sfumato.data.loader import batches
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_reference
from sfumato.defenses.posteriors import Protect, answers
from sfumato.files import under
from sfumato.modules import device_of
from sfumato.split import Split
from sfumato.target import BATCH
from sfumato.types import Epoch

_LOSS, _WEIGHTS = "loss", "weights."


class EarlyStopping(Defense):
    """Keep the model of the epoch with the lowest loss on the part `reference`, of training and of fine-tuning each.

    The choice looks at pictures, so these must be neither members nor those that an audit asks about: it takes no part of the
    members for itself, and a data set without a part `reference` is refused. List it before defenses that look at the finished
    model.

    Raises:
        ConfigError: once the data is known, it has no part `reference`.

    Example:
        >>> EarlyStopping()
        EarlyStopping()
    """

    name = "early_stopping"
    surface = "predictions"

    def __init__(self) -> None:
        super().__init__()
        self._reference: Pictures | None = None
        self._protect: Protect = self.protect
        self._best: dict[str, Tensor] = {}
        self._loss = math.inf

    @property
    def separable(self) -> bool:
        """Whether training sees each picture for itself: what this one looks at beside is no training picture."""
        return True

    def join(self, whole: Defense) -> None:
        """Learn what protects the features."""
        self._protect = whole.protect

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse data that has no pictures to choose by."""
        require_reference(data, self.name)

    def begin(self, data: Data) -> None:
        """Take the pictures to choose by, and begin anew."""
        self.forget()
        self._reference = data.part("reference")

    def end_epoch(self, epoch: Epoch) -> None:
        """Measure, keep the best weights, and after the last epoch put them back: other parts then finish the best model."""
        assert isinstance(epoch.model, Split)  # noqa: S101 -- the loop trains no other
        loss = self._measure(epoch.model)
        if not self._best or loss < self._loss:
            self._loss = loss
            self._best = {name: value.clone() for name, value in epoch.model.state_dict().items()}
        if epoch.number + 1 == epoch.total:
            epoch.model.load_state_dict(self._best)

    def memory(self) -> dict[str, Tensor]:  # noqa: D102
        if not self._best:
            return {}
        kept = {f"{_WEIGHTS}{name}": value for name, value in self._best.items()}
        return {_LOSS: torch.tensor(self._loss, dtype=torch.float64), **kept}

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: D102
        if memory:
            self._loss, self._best = memory[_LOSS].item(), under(memory, _WEIGHTS)

    def forget(self) -> None:  # noqa: D102
        self._loss, self._best, self._reference = math.inf, {}, None

    def _measure(self, model: Split) -> float:
        """Return the mean cross-entropy on the reference pictures."""
        assert self._reference is not None  # noqa: S101 -- `begin` took them
        device = device_of(model)
        self._reference = self._reference.to(device)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for x, y in batches(self._reference, size=BATCH, device=device):
            total += F.cross_entropy(answers(model, self._protect, x), y, reduction="sum")
        return total.item() / len(self._reference)
