# SPDX-License-Identifier: Apache-2.0
"""Where the first layers of a model may be frozen, and how much that leaves to train.

A freeze point is the end of a module: what starts to run before it is frozen, whatever holds it, and so is what nothing calls.

Source: ho2024tldmi, Section 3 (T = C after E: E is frozen, C trained), Section 4.3, Tables 3 to 5; its released code for indices.
Equations: |theta_C| -> FreezePoint.trainable
Departures: the released code means to freeze the input stem of IR-50 and IR-152, 1,920 parameters, and leaves it trained by a
misspelt attribute; here it is frozen, and so much less is trained than the paper counts. Its index 0 freezes all of a VGG but its
classifier, and nothing of an IR; here it freezes what it names, as every other index does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from sfumato.errors import ConfigError, UnknownNameError, nearest
from sfumato.models.layers import Layer, modules_in_order
from sfumato.quantity import show_count
from sfumato.split import Split

_INDEXED = ("features", "body")  # what the released code takes its indices from
_TOLERANCE = 0.05  # of the number of parameters that is asked for
_SHOWN = 24


@dataclass(frozen=True)
class FreezePoint:
    """A place after which a model is trained, and before which it is not.

    Attributes:
        name: of the module that ends there, as the model knows it; a cut changes no name.
        frozen: how many parameters it keeps from being trained; those that were fixed before do not count.
        trainable: how many it leaves to train.
    """

    name: str
    frozen: int
    trainable: int


@dataclass(frozen=True)
class FrozenPart:
    """What a freeze point freezes.

    Attributes:
        point: the freeze point.
        layers: the modules whose own tensors are frozen, in the order in which they run.
        modules: these, and the modules without tensors that ended by then, such as dropouts.
    """

    point: FreezePoint
    layers: tuple[Layer, ...]
    modules: tuple[nn.Module, ...]


def freeze_points(model: nn.Module, x: Tensor) -> tuple[FreezePoint, ...]:
    """List the places after which a model may be frozen: one between any two layers that compute with a kernel or a matrix.

    Of the places between two such layers it is the one where the outermost module ends, and of several such ends the last: a norm
    is frozen with the convolution that it follows, and not with another block's.

    Args:
        model: any module, cut or whole; it runs once, in eval mode and without gradients.
        x: a batch that it takes, on its device.

    Returns:
        The points from input to output. Points that freeze no parameter, or leave none to train, are left out.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 2))
        >>> freeze_points(model, torch.zeros(1, 1, 4, 4))
        (FreezePoint(name='1', frozen=24, trainable=35), FreezePoint(name='3', frozen=51, trainable=8))
    """
    return _Order(model, x).points()


def frozen_by(model: nn.Module, x: Tensor, at: str | int) -> tuple[Layer, ...]:
    """Return the layers that are frozen at a place: all that start to run before its module ends, those first that nothing calls.

    Args:
        model: any module, cut or whole; it runs once, in eval mode and without gradients.
        x: a batch that it takes, on its device.
        at: the name of any module that runs, or the paper's index, which is the last that is frozen. It counts from 0 the
            children of the model's module `features` or `body`, in the order in which they run; where it has neither, the units
            of an IR-50 or IR-152; else PyTorch's own modules that hold no others, so not the normalization of our models.

    Returns:
        Modules with tensors of their own, in the order in which they run. The model's own tensors are of a layer named "".

    Raises:
        UnknownNameError: no module of that name runs in the model.
        ConfigError: the index is out of range; or nothing would be frozen, or nothing left to train.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
        >>> [layer.name for layer in frozen_by(model, torch.zeros(1, 1, 4, 4), 1)]
        ['0', '1']
    """
    return frozen_part(model, x, at).layers


def frozen_part(model: nn.Module, x: Tensor, at: str | int) -> FrozenPart:
    """Return what is frozen at a place, with its counts of parameters: arguments and errors are those of `frozen_by`.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 2))
        >>> part = frozen_part(model, torch.zeros(1, 1, 2, 2), "2")
        >>> part.point, part.modules[-1]
        (FreezePoint(name='2', frozen=15, trainable=8), Dropout(p=0.5, inplace=False))
    """
    order = _Order(model, x)
    point = order.point(name := order.find(at))
    if not point.frozen:
        raise ConfigError(f"freeze must keep parameters from being trained, but {name} ends before any; {order.advice()}")
    if not point.trainable:
        raise ConfigError(f"freeze must leave parameters to train, but none is trained after {name}; {order.advice()}")
    layers = order.before(name)
    over = [layer.module for layer in order.modules if layer.end <= order.places[name][1]]
    return FrozenPart(point, layers, tuple(dict.fromkeys([*(layer.module for layer in layers), *over])))


def nearest_point(points: Sequence[FreezePoint], trainable: int) -> FreezePoint:
    """Return the freeze point that leaves about so many parameters to train.

    Args:
        points: as `freeze_points` lists them.
        trainable: how many parameters; the papers' "13.9 M" is 13_900_000.

    Raises:
        ConfigError: the nearest is more than 5 % off.

    Example:
        >>> nearest_point([FreezePoint("c1", 10, 990), FreezePoint("c2", 500, 500)], 510).name
        'c2'
    """
    found = min(points, key=lambda point: abs(point.trainable - trainable), default=None)
    if found is None or abs(found.trainable - trainable) > _TOLERANCE * trainable:
        unit = "; it is a number of parameters: write 13_900_000 for 13.9 million" if trainable < 1000 else ""
        raise ConfigError(f"trainable must be within 5 % of what a freeze point leaves, got {trainable}{unit}; {_advice(points)}")
    return found


class _Order:
    """The modules of a model in the order in which they run, and the places at which they end."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.modules = modules_in_order(model, x)
        self.trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
        self.places = _places(model, self.modules)
        named = {layer.module for layer in self.modules}
        whole = [Layer("", module, -math.inf, -math.inf) for module in model.modules() if module not in named]
        self.layers = tuple(layer for layer in (*whole, *self.modules) if layer.tensors)

    def before(self, name: str) -> tuple[Layer, ...]:
        """Return the layers that start before a module ends."""
        return tuple(layer for layer in self.layers if layer.start < self.places[name][1])

    def point(self, name: str) -> FreezePoint:
        """Count what is frozen and what is trained where the end of a module is the freeze point."""
        held = {parameter for layer in self.before(name) for parameter in layer.parameters}
        counts = [sum(one.numel() for one in group) for group in (self.trained & held, self.trained - held)]
        return FreezePoint(name, *counts)

    def points(self) -> tuple[FreezePoint, ...]:
        """Return the freeze points, one at most between two layers that weigh."""
        heavy = [number for number, layer in enumerate(self.layers) if layer.weighs]
        points = []
        for this, following in pairwise(heavy):
            ends = [name for count in range(this + 1, following + 1) if (name := self._end_of_first(count)) is not None]
            if ends:
                points.append(self.point(min(reversed(ends), key=_depth)))  # the last of the outermost
        return tuple(point for point in points if point.frozen and point.trainable)

    def find(self, at: str | int) -> str:
        """Return the name of the module that is meant."""
        if isinstance(at, str):
            if at not in self.places:
                raise UnknownNameError(f"freeze: no module '{at}' runs in the model{nearest(at, self.places)}; {self.advice()}")
            return at
        names = self._indexed()
        if not 0 <= at < len(names):
            known = f"from 0, {names[0]}, to {len(names) - 1}, {names[-1]}" if names else "of a module that PyTorch has"
            raise ConfigError(f"freeze must be an index {known}, got {at}; {self.advice()}")
        return names[at]

    def advice(self) -> str:
        """Say which freeze points there are."""
        return _advice(self.points())

    def _end_of_first(self, count: int) -> str | None:
        """Return the outermost module that holds the last of the first layers, and ends before the next."""
        last, after = self.layers[count - 1 : count + 1]
        places = self.places.items()
        fitting = (name for name, (start, end) in places if start <= last.start < end <= after.start and last.end <= end)
        return min(fitting, key=_depth, default=None)

    def _indexed(self) -> list[str]:
        """Return what the paper's index counts."""
        for holder in _INDEXED:
            if children := [name for name in self.places if name.rpartition(".")[0] == holder]:
                return children
        if units := [name for name in self.places if f"{name}.body.prelu" in self.places]:  # by name: a cut keeps no class
            return units
        # a cut leaves of others' modules nothing that could be counted
        counted = {
            layer.name for layer in self.modules if _is_single(layer) and type(layer.module).__module__.startswith("torch")
        }
        return [name for name in self.places if name in counted]


def _places(model: nn.Module, modules: Sequence[Layer]) -> dict[str, tuple[float, float]]:
    """Return when each module that runs does so, by its name; one that a cut divided runs from its first part to its last."""
    full = dict(model.named_modules()) if isinstance(model, Split) else {}
    places: dict[str, tuple[float, float]] = {}
    for layer in modules:
        if _is_single(layer) and not -math.inf < layer.start == layer.end - 1:
            continue  # it is not called, and has the time of what holds it
        divided = not _is_single(layer) and full.get(layer.name) is layer.module  # then its name has the half in front
        name = layer.name.partition(".")[2] if divided else layer.name
        start, end = places.get(name, (math.inf, -math.inf))
        places[name] = (min(start, layer.start), max(end, layer.end))
    return places


def _is_single(layer: Layer) -> bool:
    return not any(layer.module.children())


def _depth(name: str) -> int:
    return name.count(".")


def _advice(points: Sequence[FreezePoint]) -> str:
    """List freeze points for a message, those inside of blocks only where there are not too many."""
    if not points:
        return "the model has no freeze point: it needs two layers with weights, the last of them trained"
    levels = [[point for point in points if _depth(point.name) <= depth] for depth in {_depth(point.name) for point in points}]
    shown = max((level for level in levels if len(level) <= _SHOWN), key=len, default=min(levels, key=len)[:_SHOWN])
    listed = ", ".join(f"{point.name} ({show_count(point.trainable)})" for point in shown)
    more = "" if len(shown) == len(points) else f", and {len(points) - len(shown)} further inside"
    return f"freeze points, and how many parameters each leaves to train: {listed}{more}"
