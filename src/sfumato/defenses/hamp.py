# SPDX-License-Identifier: Apache-2.0
"""HAMP: train on labels that are hardly sure, and answer with the scores of random pictures in the order of the true ones.

Source: chen2024hamp, Section IV (high-entropy soft labels, entropy regularization, modified output), and its released code.
Equations: label' = the largest p with H(p, (1 - p) / (C - 1), ...) >= gamma log C -> label_probability;
    L = KL(label' || softmax) - alpha H(softmax) -> HAMP.criterion;
    scores' = the sorted scores of a random picture, in the order of the scores -> HAMP.release
Departures: the label's probability is found by bisection; the release lowers it from 1 in steps of 0.01, which overshoots 1 / C
where there are many classes. KL is the divergence of an example; the release divides it by C as well, so that its alpha of 0.001
for the 10 classes of CIFAR-10 is 0.01 here, the default, and its learning rate of 0.5 is 0.05. The release draws a random picture
for every answer; here some are drawn once, and the order of the classes in the answer says which of them is taken: the same
question gets the same answer, which depends on nothing but that order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.data.base import Data
from sfumato.data.loader import as_images
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes
from sfumato.defenses.posteriors import Protect, answers, fraction_of, keep_label
from sfumato.errors import ConfigError
from sfumato.modules import device_of
from sfumato.split import Split
from sfumato.target import BATCH
from sfumato.types import Epoch, Step


class HAMP(Defense):
    """Keep the model unsure, and release the order of its scores alone.

    Every pixel of a random picture is any of 0 to 255; of a table every number is 0 or 1. List it after defenses that change the
    model when training is over.

    Args:
        gamma: share of the largest possible entropy that a label has at least, [0, 1).
        alpha: weight of the entropy of the answers, >= 0.
        pictures: how many random pictures are drawn, >= 1.

    Attributes:
        bank: (pictures, C), float32, descending: the log posteriors of the random pictures, once training is over; before, the
            ranks alone.

    Raises:
        ConfigError: an argument is out of its range; or, once the data is known, it is not for classification.

    Example:
        >>> HAMP(gamma=0.5)
        HAMP(gamma=0.5, alpha=0.01, pictures=256)
    """

    name = "hamp"
    surface = "predictions"
    bank: Tensor

    def __init__(self, gamma: float = 0.95, alpha: float = 0.01, *, pictures: int = 256) -> None:
        super().__init__()
        if not 0 <= gamma < 1:
            raise ConfigError(f"gamma must be in [0, 1), got {gamma}: at 1 the label is lost; 0.95 is the paper's for CIFAR-10")
        if not 0 <= alpha < math.inf:
            raise ConfigError(f"alpha must be >= 0 and finite, got {alpha}; 0.01 is the default")
        if pictures < 1:
            raise ConfigError(f"pictures must be at least 1, got {pictures}; 256 is the default")
        self.gamma, self.alpha, self.pictures = gamma, alpha, pictures
        self._protect: Protect = self.protect

    @property
    def separable(self) -> bool:
        """Whether training sees each picture for itself: it does, and the random pictures are nobody's."""
        return True

    def join(self, whole: Defense) -> None:
        """Learn what protects the features."""
        self._protect = whole.protect

    def prepare(self, model: Split, data: Data) -> None:
        """Make room for the scores of the random pictures."""
        require_classes(data, self.name)
        self._shape, self._table = data.shape, data.part("private").read(torch.arange(1)).is_floating_point()
        ranks = -torch.arange(len(data.classes), dtype=torch.float32, device=device_of(model))
        self.register_buffer("bank", ranks.repeat(self.pictures, 1))

    def criterion(self, step: Step) -> Tensor:
        """Return the divergence of the answers from the soft labels, less alpha times their entropy."""
        scores = step.logits.float().log_softmax(1)
        classes = scores.shape[1]
        label = label_probability(classes, self.gamma)
        soft = torch.full_like(scores, (1 - label) / (classes - 1)).scatter_(1, step.y[:, None], label)
        entropy = -(scores.exp() * scores).sum(1).mean()
        return F.kl_div(scores, soft, reduction="batchmean") - self.alpha * entropy

    def end_epoch(self, epoch: Epoch) -> None:
        """Ask about the random pictures after the last epoch: of a fine-tuning, after which nothing finishes."""
        assert isinstance(epoch.model, Split)  # noqa: S101 -- the loop trains no other
        if epoch.number + 1 == epoch.total:
            self._ask(epoch.model)

    def finish(self, model: Split) -> None:
        """Ask about the random pictures."""
        self._ask(model)

    def release(self, logits: Tensor) -> Tensor:
        """Return scores of a random picture in the order of `logits`, (N, C), finite."""
        order = logits.argsort(dim=1, descending=True, stable=True)
        picked = (fraction_of(order) * len(self.bank)).long()
        scores = self.bank[picked].to(logits.dtype)
        return keep_label(torch.empty_like(scores).scatter_(1, order, scores), logits)

    def extra_repr(self) -> str:  # noqa: D102
        return f"gamma={self.gamma}, alpha={self.alpha}, pictures={self.pictures}"

    def _ask(self, model: Split) -> None:
        """Fill the bank with the scores of pictures whose every pixel is random."""
        pixels = torch.randint(2 if self._table else 256, (self.pictures, *self._shape), dtype=torch.uint8)
        stored = pixels.float() if self._table else pixels
        asked = [answers(model, self._protect, as_images(part, self.bank.device)) for part in stored.split(BATCH)]
        self.bank.copy_(torch.cat(asked).log_softmax(1).sort(1, descending=True).values)


@lru_cache(maxsize=64)
def label_probability(classes: int, gamma: float) -> float:
    """Return the probability of the label in a soft label whose entropy is gamma times the largest possible.

    Args:
        classes: C, at least 2; all but the label have the same probability.
        gamma: [0, 1).

    Returns:
        In (1 / C, 1]; the entropy is not below gamma log C.

    Example:
        >>> round(label_probability(10, 0.95), 2)
        0.27
    """
    low, high = 1 / classes, 1.0
    for _ in range(60):  # the entropy falls from 1 / C to 1
        middle = (low + high) / 2
        if _entropy(middle, classes) >= gamma * math.log(classes):
            low = middle
        else:
            high = middle
    return low


def _entropy(label: float, classes: int) -> float:
    """Return the entropy in nats of a soft label, given the probability of the label."""
    rest = 1 - label
    return -label * math.log(label) - (rest * math.log(rest / (classes - 1)) if rest else 0.0)
