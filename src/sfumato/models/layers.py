# SPDX-License-Identifier: Apache-2.0
"""The layers of any model in the order in which they run: what "the first layers" means.

A layer is a module that holds tensors of its own. Modules are timed by one run, so nothing depends on how a model is written
down: neither on the order of its attributes nor on whether it was cut in two.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from sfumato.modules import probe
from sfumato.split import Split


@dataclass(frozen=True)
class Layer:
    """A module of a model, and when it runs.

    Attributes:
        name: by which the model knows it; a cut changes no name.
        module: the module.
        start: the tick at which it is first called.
        end: the tick at which that call ends; of a module that holds others, the last such of theirs.
    """

    name: str
    module: nn.Module
    start: float
    end: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters and buffers that it holds itself, those of its parts left out."""
        return (*self.module.parameters(recurse=False), *self.module.buffers(recurse=False))

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters that it holds itself."""
        return tuple(self.module.parameters(recurse=False))

    @property
    def weighs(self) -> bool:
        """Whether it computes with a matrix or a kernel, as convolutions and linear layers do and norms do not."""
        return any(parameter.ndim > 1 for parameter in self.parameters)


def modules_in_order(model: nn.Module, x: Tensor) -> tuple[Layer, ...]:
    """Return the modules of a model in the order in which they start, those that hold others before what they hold.

    Args:
        model: any module, cut or whole; it runs once, in eval mode and without gradients.
        x: a batch that it takes, on its device.

    Returns:
        Every module but the model itself. One that is called several times counts by its first call. One that is never called
        itself, and holds tensors which its owner computes with, runs when its owner does; where no part of the model but the
        whole calls it, it starts before all.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2))
        >>> [layer.name for layer in modules_in_order(model, torch.zeros(1, 1, 2, 2))]
        ['0', '1', '1.0', '1.1', '2']
    """
    starts, ends = _times(model, x)
    found = []
    for name, module in model.named_modules():
        inside = [part for part in module.modules() if part in starts]
        start = min((starts[part] for part in inside), default=-math.inf)
        end = max((ends[part] for part in inside), default=-math.inf)
        found.append((name, module, start, end))
    called = {name: (start, end) for name, _, start, end in found if start > -math.inf}
    told = _told(model, [name for name, *_ in found])
    layers = [Layer(told[name], module, *(called.get(name) or _owner(name, called))) for name, module, *_ in found if told[name]]
    return tuple(sorted(layers, key=lambda layer: layer.start))  # stable: owners stay before what they hold


def layers_of(model: nn.Module, x: Tensor) -> tuple[Layer, ...]:
    """Return the modules of a model that hold tensors of their own, in the order in which they run.

    Args:
        model: any module, cut or whole; it runs once, in eval mode and without gradients.
        x: a batch that it takes, on its device.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        >>> [(layer.name, layer.weighs) for layer in layers_of(model, torch.zeros(1, 1, 4, 4))]
        [('0', True), ('1', False)]
    """
    return tuple(layer for layer in modules_in_order(model, x) if layer.tensors)


def _times(model: nn.Module, x: Tensor) -> tuple[dict[nn.Module, int], dict[nn.Module, int]]:
    """Return the ticks at which the first call of each module starts and ends."""
    starts: dict[nn.Module, int] = {}
    ends: dict[nn.Module, int] = {}
    ticks = iter(range(2**62))

    def start(module: nn.Module, _: object) -> None:
        starts.setdefault(module, next(ticks))

    def end(module: nn.Module, _: object, __: object) -> None:
        ends.setdefault(module, next(ticks))

    parts = [part for part in model.modules() if part is not model]
    handles = [part.register_forward_pre_hook(start) for part in parts]
    handles += [part.register_forward_hook(end) for part in parts]
    try:
        probe(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return starts, ends


def _owner(name: str, called: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Return when the nearest module around one that was never called ran, the model itself left out."""
    while "." in name:
        name = name.rpartition(".")[0]
        if name in called:
            return called[name]
    return -math.inf, -math.inf


def _told(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Return the name of each module without the half that a cut put it in, where that leaves no doubt; "" of what is no part."""
    if not isinstance(model, Split):
        return {name: name for name in names}
    short = {name: name.partition(".")[2] for name in names}  # "" of the model and its halves
    often = Counter(short.values())
    return {name: told if often[told] == 1 or not told else name for name, told in short.items()}
