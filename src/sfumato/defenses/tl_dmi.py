# SPDX-License-Identifier: Apache-2.0
"""TL-DMI: the first layers stay as public pictures made them, so that fewer parameters learn the private ones.

This is stage 2, the training on private pictures. Stage 1 gives the weights that the model starts from: in a recipe, the table
`[pretrain]`, or weights under `[model]`; in Python, those that the model has when it is hardened. Layers that were never trained
are frozen as they were drawn.

Source: ho2024tldmi, Section 3 and Table 1; Section 4.3 and Appendix D for where to freeze; its released code.
Equations: T = C after E: E is frozen, C is trained on the private pictures -> TLDMI.prepare
Departures: the released code freezes weights alone: it trains in training mode, so that the statistics of the batch norms that it
calls frozen are those of the private pictures in the end. Here they stay as they are, and dropout in the frozen part is off;
`bn="track"` does as the code does, and leaks. As in `models.freezing` for the places.
"""

from __future__ import annotations

from typing import Literal

import torch

from sfumato.arguments import require_choice
from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, ConflictError
from sfumato.models.freezing import FreezePoint, FrozenPart, freeze_points, frozen_part, nearest_point
from sfumato.modules import device_of
from sfumato.split import Split
from sfumato.types import Epoch


class TLDMI(Defense):
    """Freeze the first layers and train the rest.

    Gradients and activations of the frozen part are not computed, so that training is cheaper too. List it first: what it freezes
    should be what was pretrained.

    Args:
        freeze: the name of the last module to freeze, such as "layer3" or "features.26"; or the paper's index of it, as
            `models.freezing.frozen_by` counts. All that starts to run before it ends is frozen.
        trainable: in place of `freeze`, about how many parameters to leave, such as 13_900_000: the nearest freeze point within
            5 %.
        bn: of the frozen part, keep the statistics of batch norms too and switch dropout off ("frozen"), or run it as in
            training ("track"). Tracked statistics are means of private pictures' features: they leak.

    Attributes:
        point: where the model is frozen, with the counts of parameters; None before `prepare`.

    Raises:
        ConfigError: not exactly one of freeze and trainable is given, or a value is out of its range. When it is prepared: there
            is no such place in the model, nothing would be frozen, or nothing left to train. When it is composed: another part
            prunes, or changes the layers that are frozen.

    Example:
        >>> TLDMI(freeze="layer3")
        TLDMI(freeze='layer3', bn='frozen')
    """

    name = "tl_dmi"
    surface = "weights"

    def __init__(
        self, freeze: str | int | None = None, *, trainable: int | None = None, bn: Literal["frozen", "track"] = "frozen"
    ) -> None:
        super().__init__()
        require_choice("bn", bn, ("frozen", "track"))
        if (freeze is None) == (trainable is None):
            raise ConfigError(
                f"tl_dmi needs either freeze or trainable, got freeze={freeze!r} and trainable={trainable!r}; give the "
                "last module to freeze, such as freeze='layer3', or how many parameters to train, such as trainable=13_900_000"
            )
        if trainable is not None and trainable < 1:
            raise ConfigError(f"trainable must be at least 1 parameter, got {trainable}; the paper's main one is 13_900_000")
        self.freeze, self.trainable, self.bn = freeze, trainable, bn
        self._part: tuple[FrozenPart, ...] = ()  # in a tuple, or its modules would be parts of the defense

    @property
    def point(self) -> FreezePoint | None:
        """Where the model is frozen."""
        return self._part[0].point if self._part else None

    @property
    def separable(self) -> bool:
        """Whether training sees each picture for itself: this one looks at none."""
        return True

    def join(self, whole: Defense) -> None:
        """Refuse parts that would change what is frozen."""
        before = True
        for part in whole if isinstance(whole, Compose) else ():
            before = before and part is not self
            if part.compresses or type(part).reshape is not Defense.reshape:
                raise ConflictError(
                    f"{part.describe()} may prune, and {self.describe()} keeps every bit of the layers that it freezes; keep one"
                )
            if before and part.builds:
                raise ConflictError(
                    f"{part.describe()} puts layers into the model that nobody has trained, and {self.describe()} after it "
                    "may freeze them; list tl_dmi first"
                )

    def prepare(self, model: Split, data: Data) -> None:
        """Freeze the first layers.

        Raises:
            UnknownNameError: no module of that name runs in the model.
            ConfigError: there is no such place; nothing would be frozen, or nothing left to train.
        """
        x = torch.zeros(2, *data.shape, device=device_of(model))
        at = self.freeze
        if self.trainable is not None:
            at = nearest_point(freeze_points(model, x), self.trainable).name
        assert at is not None  # noqa: S101 -- one of the two is given
        self._part = (frozen_part(model, x, at),)
        for layer in self._part[0].layers:
            for parameter in layer.parameters:
                parameter.requires_grad_(False)

    def begin_epoch(self, epoch: Epoch) -> None:
        """Put the frozen part in eval mode again.

        Raises:
            ConflictError: another part of the composition put something else in the place of a frozen layer.
        """
        (part,) = self._part
        there = set(epoch.model.modules())
        if lost := [layer.name for layer in part.layers if layer.module not in there]:
            raise ConflictError(
                f"{self.describe()} froze {len(lost)} layers, {lost[0]} the first, in whose place another defense put "
                "others; leave that out, or take a model whose first layers it does not replace"
            )
        if self.bn == "frozen":
            for module in part.modules:
                module.training = False  # not .eval(): a block may hold what runs after the freeze point

    def extra_repr(self) -> str:  # noqa: D102
        where = f"trainable={self.trainable}" if self.freeze is None else f"freeze={self.freeze!r}"
        return f"{where}, bn={self.bn!r}"
