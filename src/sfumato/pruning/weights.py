# SPDX-License-Identifier: Apache-2.0
"""Which weights of a model can be pruned, and how many of each layer stay.

Weights go one by one, or in rows: all that a layer needs for one of the channels that it gives out, in every layer that shares
these channels. Biases, normalizations and embeddings of places are no weights to prune, nor is what is frozen.

Source: zhang2018admm, section 4 (a number of weights for each layer); wang2021mcmia, Table V (one ratio for a whole model).
Departures: neither paper says how a ratio is divided over the layers. Here a layer of n weights keeps a number in proportion to
the square root of n, all of them at most: large layers have more to spare; so do those with many channels, by the same rule. Of
single weights, the first and the last layer and depthwise convolutions, which have little to spare, keep at least half, the
smaller of them first, as far as half of what stays is enough. For LeNet-5 at 16.1x that is near the numbers that the field found
by hand (80, 20, 5, 6 and 25 %).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import compress

from torch import Tensor, nn

from sfumato.errors import ConfigError, ModelError, nearest
from sfumato.pruning import channels
from sfumato.pruning.footprint import Plan
from sfumato.pruning.tensors import as_head, tensor_costs
from sfumato.split import Split

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


@dataclass(frozen=True)
class Place:
    """Where a tensor is: a module may get another one, as when it loses channels."""

    module: nn.Module
    key: str

    @property
    def tensor(self) -> Tensor:
        """The tensor that is there now."""
        return self.module.get_parameter(self.key)


@dataclass(frozen=True)
class Group:
    """Weights of which a number stays.

    Attributes:
        name: of their layer in the model, wherever that is cut; of the first where several share their channels.
        size: how many weights, or rows.
        weights: where they are.
        beside: what goes with a row: its bias, its entries in batch norms.
        rows: they go in rows.
        fragile: it has little to spare.
    """

    name: str
    size: int
    weights: tuple[Place, ...]
    beside: tuple[Place, ...] = ()
    rows: bool = False
    fragile: bool = False

    @property
    def root(self) -> nn.Module:
        """The first layer whose rows can be removed."""
        return next(place.module for place in self.weights if getattr(place.module, "groups", 1) == 1)


def single(model: Split) -> tuple[Group, ...]:
    """Find the weights of a model that can go one by one: a group for each layer, those of the head first.

    Args:
        model: the split model, head and tail alike.

    Raises:
        ModelError: it has none.

    Example:
        >>> halves = Split(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Flatten(), nn.Linear(8, 2)))
        >>> [(group.name, group.size) for group in single(halves)]
        [('head', 18), ('1', 16)]
    """
    found: dict[Tensor, Group] = {}
    for path, module in model.named_modules():
        for key, tensor in module.named_parameters(recurse=False):
            if tensor.dim() > 1 and key.endswith("weight") and tensor.requires_grad and not isinstance(module, _NORMS):
                name = _own(path) if key == "weight" else f"{_own(path)}.{key}"
                depthwise = getattr(module, "groups", 1) > 1 and tensor.shape[1] == 1
                found.setdefault(tensor, Group(name, tensor.numel(), (Place(module, key),), fragile=depthwise))
    if not found:
        raise ModelError("pruning needs a model with weights of two dimensions or more that are trained, found none")
    groups = list(found.values())
    for end in (0, -1):
        groups[end] = replace(groups[end], fragile=True)
    return tuple(groups)


def coupled(model: Split, x: Tensor) -> tuple[tuple[Group, ...], Plan]:
    """Find the channels of a model that can be removed: a group for those that go together.

    Args:
        model: the split model, head and tail alike.
        x: pictures, (N, C, H, W), on its device; N >= 2.

    Returns:
        The groups, and what the weights of the model are in terms of them.

    Raises:
        ModelError: there is nothing to remove, or layers that the dependency graph does not know.
        ConfigError: the package torch-pruning is not installed.
    """
    joined = as_head(model)
    units = channels.find(joined, x, linear=True)
    own = {module: _own(path) for path, module in model.named_modules()}
    trained = [unit for unit in units if all(module.weight.requires_grad for module in _layers(joined, unit))]
    if not trained:
        raise ModelError("pruning found no channel whose weights are trained; leave channel pruning out")
    plan = channels.plan(joined, trained, x, 0.0)
    weights = [tensor.dim() > 1 for _, tensor, _ in tensor_costs(joined, x)]
    groups = tuple(_rows(joined, unit, own[joined.get_submodule(unit.root)]) for unit in trained)
    return groups, replace(plan, terms=tuple(compress(plan.terms, weights)))


def each(groups: Sequence[Group], ratio: Sequence[float] | Mapping[str, float]) -> tuple[int, ...]:
    """Return how many weights or rows of each group stay, by a ratio for each.

    Args:
        groups: as `single` or `coupled` returned them.
        ratio: numbers before over numbers after, at least 1: in the order of the groups, or by patterns for their names, of which
            the first that fits counts. A group that no pattern fits stays whole.

    Raises:
        ConfigError: there are as many ratios as something else, a pattern fits no group, or nothing of a group would stay.

    Example:
        >>> weights = single(Split(nn.Identity(), nn.Sequential(nn.Linear(100, 20), nn.Linear(20, 10))))
        >>> each(weights, (20, 4)), each(weights, {"0": 20})
        ((100, 50), (100, 200))
    """
    names = [group.name for group in groups]
    if isinstance(ratio, Mapping):
        for pattern in ratio:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(f"ratio: no layer fits '{pattern}'{nearest(pattern, names)}; the layers are {', '.join(names)}")
        ratios = [next((value for pattern, value in ratio.items() if fnmatchcase(name, pattern)), 1.0) for name in names]
    else:
        ratios = list(ratio)
    if len(ratios) != len(groups):
        raise ConfigError(f"ratio must have one number for each of {', '.join(names)} ({len(groups)}), got {len(ratios)}")
    counts = tuple(math.floor(group.size / value + 0.5) for group, value in zip(groups, ratios, strict=True))
    for group, value, count in zip(groups, ratios, counts, strict=True):
        if count < 1:
            what = "channels" if group.rows else "weights"
            raise ConfigError(
                f"ratio {value:g} leaves none of the {group.size} {what} of '{group.name}'; it must be at most {group.size}, "
                "which leaves one"
            )
    return counts


def divide(groups: Sequence[Group], ratio: float) -> tuple[int, ...]:
    """Return how many weights of each group stay, by one ratio for all of them together.

    Args:
        groups: as `single` returned them.
        ratio: weights before over weights after, at least 1.

    Returns:
        Numbers of which each is at least 1, and whose sum is the largest that reaches the ratio.

    Raises:
        ConfigError: some layer would be left without a weight.

    Example:
        >>> weights = single(Split(nn.Identity(), nn.Sequential(nn.Linear(90, 100), nn.Linear(100, 40), nn.Linear(40, 2))))
        >>> divide(weights, 10.0)
        (743, 495, 70)
    """
    sizes = [group.size for group in groups]
    total = math.floor(sum(sizes) / ratio)
    if total < len(groups):
        least = min(groups, key=lambda group: group.size)
        raise ConfigError(
            f"ratio {ratio:g} leaves {total} of {sum(sizes)} weights for {len(groups)} layers, so that one of them, such as "
            f"'{least.name}' ({least.size} weights), would be empty; it must be at most {sum(sizes) / len(groups):g}"
        )
    low = _floors(groups, total)

    def counts(scale: float) -> list[float]:
        return [min(max(scale * math.sqrt(size), least), size) for size, least in zip(sizes, low, strict=True)]

    below, above = 0.0, math.sqrt(max(sizes))  # the largest layer is whole, and so are all
    for _ in range(100):
        middle = (below + above) / 2
        below, above = (middle, above) if sum(counts(middle)) <= total else (below, middle)
    found = counts(below)
    whole = [math.floor(count) for count in found]
    order = sorted(range(len(groups)), key=lambda place: whole[place] - found[place])
    for place in order[: total - sum(whole)]:
        whole[place] += 1
    return tuple(whole)


def narrow(plan: Plan, ratio: float) -> tuple[int, ...]:
    """Return how many channels of each group stay, in proportion to the square root of their number.

    Args:
        plan: as `coupled` returned it.
        ratio: weights before over weights after, at least 1.

    Returns:
        The most that reach the ratio, at least one each.

    Raises:
        ConfigError: one channel of each group is too much.
    """
    whole = plan.footprint(plan.sizes).parameters

    def counts(scale: float) -> list[int]:
        return [min(max(1, math.floor(scale * math.sqrt(size) + 1e-9)), size) for size in plan.sizes]

    if plan.footprint(plan.least).parameters > whole / ratio:
        most = whole / plan.footprint(plan.least).parameters
        raise ConfigError(
            f"ratio {ratio:g} cannot be reached by removing channels: with one left of each of {len(plan.sizes)} groups it is "
            f"{most:.4g}; ask for less, or set structured=False"
        )
    scales = sorted({count / math.sqrt(size) for size in set(plan.sizes) for count in range(1, size + 1)})
    fitting = bisect_right(scales, whole / ratio, key=lambda scale: plan.footprint(counts(scale)).parameters)
    return tuple(counts(scales[fitting - 1] if fitting else 0.0))


def _floors(groups: Sequence[Group], total: int) -> list[int]:
    """Return what each group keeps in any case: half of a fragile one, as long as all of these take at most half of the total."""
    low, left = [1] * len(groups), total // 2
    for place in sorted(range(len(groups)), key=lambda place: groups[place].size):
        half = math.ceil(groups[place].size / 2)
        if groups[place].fragile and half <= left:
            low[place], left = half, left - half
    return low


def _layers(model: Split, unit: channels.Unit) -> list[nn.Conv2d | nn.Linear]:
    found = [model.get_submodule(name) for name in unit.gives]
    return [module for module in found if isinstance(module, nn.Conv2d | nn.Linear)]


def _rows(model: Split, unit: channels.Unit, name: str) -> Group:
    """Return the rows of a unit of channels."""
    layers = _layers(model, unit)
    places = [Place(model.get_submodule(path), key) for path in unit.gives for key in ("weight", "bias")]
    beside = [
        place
        for place in places
        if getattr(place.module, place.key, None) is not None and not (place.module in layers and place.key == "weight")
    ]
    return Group(name, unit.size, tuple(Place(layer, "weight") for layer in layers), tuple(beside), rows=True)


def _own(path: str) -> str:
    """Return the name of a module in the model that was split."""
    half, _, own = path.partition(".")
    return own if half in ("head", "tail") and own else path
