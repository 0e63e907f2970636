# SPDX-License-Identifier: Apache-2.0
"""Connections between convolutions of the head that are left out: some of their kernels are zero and stay zero.

Source: ding2024patrol, section IV-A ("we randomly skip connections between convolution layers"), which cites oh2019exploring.
Equations: none; w[o, i] = 0 for a random share p of the pairs (o, i) of output and input channel -> Skip.prepare, Skip.after_step
Departures: one sentence of PATROL is all there is, and the work that it cites advises to build nets with skip connections. Our
reading: the connections are the kernels from channel to channel of every convolution but the first, whose input is the picture.
They are drawn once and are the same in training and in deployment; each output channel keeps at least one; grouped convolutions,
which have few, are left alone. PATROL counts this as efficient; here zeros are stored and multiplied like any number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, ConflictError, ModelError
from sfumato.modules import device_of, probe
from sfumato.split import Split
from sfumato.types import Step


class Skip(Defense):
    """Leave out connections between convolutions of the head.

    Args:
        p: share of the kernels of each convolution that is left out, in [0, 1).

    Raises:
        ConfigError: p is outside [0, 1).
        ConflictError: another part of the composition changes the shapes of convolutions.
        ModelError: when the defense is prepared, the head has no two convolutions to connect.

    Example:
        >>> Skip(p=0.5)
        Skip(p=0.5)
    """

    name = "skip"

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"p must be in [0, 1), got {p}; 0 leaves every connection")
        self.p = p
        # In a list, which is no registration: they are modules of the head.
        self._convolutions: list[nn.Conv2d] = []

    def join(self, whole: Defense) -> None:
        """Refuse a defense that changes shapes in `finish`."""
        for part in whole if isinstance(whole, Compose) else ():
            if type(part).reshape is not Defense.reshape:
                raise ConflictError(
                    f"{self.describe()} zeroes kernels of convolutions that {part.describe()} takes apart; keep one of the two"
                )

    def prepare(self, model: Split, data: Data) -> None:
        """Draw the connections to leave out."""
        x = torch.zeros(1, *data.shape, device=device_of(model.head))
        self._convolutions = [conv for conv in _in_order(model.head, x)[1:] if conv.groups == 1]
        if not self._convolutions:
            raise ModelError(
                "skip needs a head of at least two convolutions, the second of them not grouped, found none to leave connections "
                "out of; cut the model later"
            )
        for place, conv in enumerate(self._convolutions):
            self.register_buffer(_buffer(place), _drawn(conv, self.p))
        self._leave_out()

    def after_step(self, step: Step) -> None:
        """Set the kernels to zero again."""
        self._leave_out()

    def extra_repr(self) -> str:  # noqa: D102
        return f"p={self.p}"

    def _leave_out(self) -> None:
        for place, conv in enumerate(self._convolutions):
            conv.weight.masked_fill_(self.get_buffer(_buffer(place)), 0)


def _buffer(place: int) -> str:
    return f"left_out_{place}"


def _drawn(conv: nn.Conv2d, p: float) -> Tensor:
    """Return which kernels of a convolution to leave out, (outputs, inputs, 1, 1), bool, from the ambient stream."""
    outputs, inputs = conv.weight.shape[:2]
    luck = torch.rand(outputs, inputs)
    luck.scatter_(1, luck.argmax(1, keepdim=True), 1)  # above all others: each output keeps its luckiest input
    left_out = torch.zeros(outputs * inputs, dtype=torch.bool)
    left_out[luck.flatten().argsort()[: min(round(p * outputs * inputs), outputs * (inputs - 1))]] = True
    return left_out.view(outputs, inputs, 1, 1).to(conv.weight.device)


def _in_order(head: nn.Module, x: Tensor) -> list[nn.Conv2d]:
    """Return the convolutions of a head in the order in which a picture comes to them."""
    met: dict[nn.Conv2d, None] = {}

    def meet(module: nn.Module, *_: object) -> None:
        assert isinstance(module, nn.Conv2d)  # noqa: S101 -- hooked below
        met.setdefault(module)

    hooks = [module.register_forward_hook(meet) for module in head.modules() if isinstance(module, nn.Conv2d)]
    try:
        probe(head, x)
    finally:
        for hook in hooks:
            hook.remove()
    return list(met)
