# SPDX-License-Identifier: Apache-2.0
"""MID: a classifier whose answer says little about the picture, by a variational bottleneck before the logits.

Source: wang2021mid, the mutual information between picture and answer as a penalty; peng2022bido, whose release has the network
and the loss that tables call MID; ho2024tldmi, Table 11 for the weights (0.01 and 0.003 for VGG-16).
Equations: L + weight * mean over the batch of KL(N(mu, std^2) || N(0, 1)), an upper bound of the information that the bottleneck
    holds -> MID.penalty; the bottleneck as `models.variational`
Departures: the release puts the bottleneck into a network of its own that has no batch norm on the features; here it takes the
place of the last linear layer of any model, and leaves what is before as it is. The release draws one sample when deployed too;
an adversary who has the weights averages that away, so `answers` offers the mean, and the expectation over draws with gradients
through all of them. The expectation answers with log-probabilities: the mean of probabilities has no logits of its own, and the
logits of the mean draw are another function. The paper's release of TL-DMI has this method too, but it cannot run.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from sfumato.arguments import require_choice
from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError
from sfumato.models.embedding import last_linear
from sfumato.models.variational import Answers, Pass, VariationalBottleneck
from sfumato.modules import device_of
from sfumato.split import Split
from sfumato.types import Step


class MID(Defense):
    """Answer from a Gaussian of few nats.

    What the last linear layer of the model was given becomes a Gaussian, and the logits are those of a draw. The embedding of the
    model is then the mean, at each look the same. Random numbers come from the stream that `protect` is given.

    Args:
        weight: of the divergence, at least 0. The papers have 0.01 and 0.003 at 2,048 features; a larger one says less, and
            classifies worse.
        width: length of the bottleneck; half of what the last linear layer is given where None.
        answers: what a deployed model answers from: "mean"; "sample", one draw, as published; "expectation", the mean of the
            probabilities over several draws. In training it is always one draw.
        draws: for "expectation".

    Raises:
        ConfigError: a value is out of its range.
        ModelError: when it is prepared, the logits come from something else than a linear layer.

    Example:
        >>> MID(answers="mean")
        MID(weight=0.01, width=None, answers='mean', draws=8)
    """

    name = "mid"
    surface = "weights"

    def __init__(self, weight: float = 0.01, *, width: int | None = None, answers: Answers = "sample", draws: int = 8) -> None:
        super().__init__()
        require_choice("answers", answers, get_args(Answers))
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"weight must be >= 0 and finite, got {weight}; 0.01 is the paper's, for no defense use Compose()")
        if draws < 1 or (width is not None and width < 1):
            raise ConfigError(f"draws and width must be at least 1, got {draws} and {width}; 8 draws and half the features serve")
        self.weight, self.width, self.draws = weight, width, draws
        self.answers: Answers = answers
        self.shared = Pass()

    @property
    def gaussian(self) -> bool:
        """Whether features are left as they are: they are, since what is random comes after them."""
        return True

    @property
    def builds(self) -> bool:
        """Whether `prepare` puts layers into the model: the bottleneck."""
        return True

    def prepare(self, model: Split, data: Data) -> None:
        """Put the bottleneck in the place of the last linear layer, with PyTorch's initial weights from the ambient stream."""
        last = last_linear(model, torch.zeros(2, *data.shape, device=device_of(model)))
        made = VariationalBottleneck(
            last.in_features,
            last.out_features,
            width=self.width or max(1, last.in_features // 2),
            answers=self.answers,
            draws=self.draws,
            shared=self.shared,
        ).to(last.weight)  # its device and its type
        for owner in list(model.modules()):
            for name in [name for name, child in owner.named_children() if child is last]:
                setattr(owner, name, made)

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Hand the stream on to the bottleneck, which draws from it in the pass that follows."""
        self.shared.stream = generator
        return z

    def penalty(self, step: Step) -> Tensor:  # noqa: D102
        seen = self.shared.take()
        assert seen is not None  # noqa: S101 -- the loop has run the model in training mode just before
        return self.weight * seen.divergence.mean()

    def after_step(self, step: Step) -> None:
        """Forget what other defenses' passes through the model left."""
        self.shared.take()

    def extra_repr(self) -> str:  # noqa: D102
        return f"weight={self.weight}, width={self.width}, answers={self.answers!r}, draws={self.draws}"
