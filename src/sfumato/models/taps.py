# SPDX-License-Identifier: Apache-2.0
"""Where a hook can catch what the modules of a model give, whether they are called themselves or a cut has taken them apart.

Tracing keeps the innermost modules and what is computed between them; the blocks that held them are there and never called. What
such a block gives is found by what the next module is given. A sum after the last module of a block counts as the block's, and so
as that of a part at its end, such as the shortcut: that is the one thing that a cut hides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.models.layers import Layer, modules_in_order
from sfumato.modules import probe


@dataclass(frozen=True)
class Tap:
    """Where the output of a module can be caught, the first time that it is computed.

    Attributes:
        layer: the module.
        at: the module whose call has it.
        given: whether it is what `at` is given, else what `at` gives.
        shape: of the output.
    """

    layer: Layer
    at: nn.Module
    given: bool
    shape: torch.Size


def taps(model: nn.Module, x: Tensor) -> dict[str, Tap]:
    """Return where the outputs of modules can be caught, in the order in which the modules start.

    Args:
        model: any module, cut or whole; it runs twice, in eval mode and without gradients.
        x: a batch that it takes, on its device.

    Returns:
        By name, those that give one tensor with a row for each picture.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> {name: tuple(tap.shape) for name, tap in taps(model, torch.zeros(3, 1, 2, 2)).items()}
        {'0': (3, 4), '1': (3, 2)}
    """
    run = _Run(model, x)
    found = {layer.name: run.tap(layer) for layer in modules_in_order(model, x)}
    return {name: tap for name, tap in found.items() if tap is not None and tap.shape[:1] == x.shape[:1]}


@dataclass
class _Call:
    """The first call of a module; what it has is None where that is no tensor."""

    module: nn.Module
    start: int
    given: Tensor | None
    end: int = -1
    output: Tensor | None = None


class _Run:
    """One run of a model: the first call of each module, and when each tensor was seen first."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.calls: dict[nn.Module, _Call] = {}
        self.seen: dict[int, int] = {}
        self._alive: list[object] = []  # or another tensor may get the identity of one that is gone
        parts = [part for part in model.modules() if part is not model]
        handles = [part.register_forward_pre_hook(self._start) for part in parts]
        handles += [part.register_forward_hook(self._end) for part in parts]
        try:
            probe(model, x)
        finally:
            for handle in handles:
                handle.remove()

    def tap(self, layer: Layer) -> Tap | None:
        """Return where the output of a module can be caught; None where it cannot."""
        call = self.calls.get(layer.module)
        if call is not None:
            return None if call.output is None else Tap(layer, call.module, False, call.output.shape)
        inside = [self.calls[part] for part in layer.module.modules() if part in self.calls]
        if not inside:
            return None
        last = max(inside, key=lambda one: one.end)
        after = min((one for one in self.calls.values() if one.start > last.end), key=lambda one: one.start, default=None)
        # What nobody had before the module ended was made at its end, such as the sum of a residual block.
        if after is not None and after.given is not None and self.seen[id(after.given)] > last.end:
            return Tap(layer, after.module, True, after.given.shape)
        return None if last.output is None else Tap(layer, last.module, False, last.output.shape)

    def _start(self, module: nn.Module, given: tuple[object, ...]) -> None:
        tick = self._note(given)
        first = given[0] if given else None
        self.calls.setdefault(module, _Call(module, tick, first if isinstance(first, Tensor) else None))

    def _end(self, module: nn.Module, _: object, output: object) -> None:
        tick, call = self._note((output,)), self.calls[module]
        if call.end < 0:
            call.end, call.output = tick, output if isinstance(output, Tensor) else None

    def _note(self, values: tuple[object, ...]) -> int:
        """Remember values, and return the tick."""
        self._alive.append(values)
        tick = len(self._alive)
        for value in values:
            self.seen.setdefault(id(value), tick)
        return tick
