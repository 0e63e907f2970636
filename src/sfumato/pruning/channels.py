# SPDX-License-Identifier: Apache-2.0
"""Which channels of a head can be removed, with all that depends on them, and the removal.

Channels that are added to each other (the streams of a residual stage) can only go together, so a unit is the set of convolutions
whose outputs share their channels. Which these are says the dependency graph of the package torch-pruning (extra `prune`). What a
linear layer gives out are channels too, for those who ask for them.

Source: ding2024patrol, section III-B1 (channel-wise pruning); fang2023depgraph (the graph).
Departures: none of the paper's own; it does not say what becomes of channels that a shortcut holds.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.errors import ConfigError, ModelError
from sfumato.modules import eval_mode
from sfumato.pruning import gate
from sfumato.pruning.footprint import Plan, Term
from sfumato.pruning.tensors import tensor_costs
from sfumato.split import Split

_TOLERANCE = 1e-11


@dataclass(frozen=True)
class Unit:
    """Channels that go together.

    Attributes:
        root: name of the first layer that gives them out.
        size: how many channels.
        gated: names of the modules whose outputs a soft mask multiplies: of each layer of the unit, its batch norm if it has one.
        gives: names of all modules that have them as output channels.
        takes: names of all modules that have them as input channels, each with the share of its inputs that they are.
    """

    root: str
    size: int
    gated: tuple[str, ...]
    gives: tuple[str, ...]
    takes: tuple[tuple[str, float], ...]


def find(model: Split, x: Tensor, *, linear: bool = False) -> tuple[Unit, ...]:
    """Find the units of channels that a head gives out.

    A unit whose zeros do not stay zeros (a sigmoid follows, say) cannot be removed without changing the outputs and is left out.

    Args:
        model: a split model; its weights and modes are left as they are.
        x: pictures, (N, C, H, W), on its device; N >= 2.
        linear: find what linear layers give out too.

    Returns:
        The units, in order of their roots.

    Raises:
        ModelError: the head has no such layer or none that can lose channels, or the model has a layer that the dependency graph
            does not know.
        ConfigError: the package torch-pruning is not installed.
    """
    kinds = (nn.Conv2d, nn.Linear) if linear else (nn.Conv2d,)
    layers = [name for name, module in model.head.named_modules(prefix="head") if isinstance(module, kinds)]
    if not layers:
        raise ModelError("pruning needs a head with convolutions, found none; cut later, or leave channel pruning out")
    with eval_mode(model):
        graph = _graph(model, x)
        found = dict.fromkeys(_unit(model, graph, name, kinds) for name in layers)
        units = tuple(_removable([unit for unit in found if unit is not None and unit.takes], model, x))
    if not units:
        raise ModelError(
            "pruning found no channel in the head that can go without a change of the outputs; leave channel pruning out"
        )
    return units


def remove(model: Split, roots: Sequence[nn.Module], stays: Sequence[Tensor], x: Tensor) -> None:
    """Remove channels, in place, with every input that took them in.

    Args:
        model: the split model; layers may have been added to it since `find`.
        roots: the root of each unit that `find` returned.
        stays: for each unit, (size,), bool: the channels that stay, at least one.
        x: pictures, (N, C, H, W), on its device.
    """
    with eval_mode(model):
        graph = _graph(model, x)
        for root, kept in zip(roots, stays, strict=True):
            gone = (~kept).nonzero()[:, 0].tolist()
            if gone:
                _group(graph, root, gone).prune()
    model.zero_grad(set_to_none=True)


def plan(model: Split, units: Sequence[Unit], x: Tensor, least: float) -> Plan:
    """Return what a head is made of, in terms of its units.

    Args:
        model: the split model.
        units: as `find` returned them.
        x: pictures, (N, C, H, W), on its device.
        least: share of the channels of each unit that must stay, [0, 1]; at least one does.
    """
    gives = {name: place for place, unit in enumerate(units) for name in unit.gives}
    terms = []
    for key, tensor, cost in tensor_costs(model, x):
        name = key.rsplit(".", 1)[0]
        depthwise = getattr(model.get_submodule(name), "groups", 1) > 1  # such a kernel has one input
        takes = [(place, part) for place, unit in enumerate(units) for taker, part in unit.takes if taker == name]
        terms.append(Term(cost, gives.get(name) if tensor.dim() else None, () if depthwise or tensor.dim() < 2 else tuple(takes)))
    sizes = tuple(unit.size for unit in units)
    return Plan(sizes, tuple(max(1, math.ceil(least * size)) for size in sizes), tuple(terms))


def _pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise ConfigError(
            'channel pruning needs the package torch-pruning; install it with pip install "sfumato[prune]"'
        ) from error
    return torch_pruning


def _group(graph: Any, root: nn.Module, places: Sequence[int]) -> Any:
    """Return all that must go with some channels that a layer gives out."""
    return graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, idxs=list(places))


def _graph(model: Split, x: Tensor) -> Any:
    """Return the dependency graph of a model."""
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = x[:2].clone().requires_grad_()  # a layer whose weights are frozen has a gradient to its input
            graph = _pruning().DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)
    except ConfigError:
        raise
    except Exception as error:  # the package raises what it happens to run into
        raise ModelError(f"pruning cannot follow the channels through the model: {error}; leave channel pruning out") from error
    known = set(graph.module2node)
    unknown = [
        name
        for name, module in model.named_modules()
        if name and module not in known and any(True for _ in module.parameters(recurse=False))
    ]
    loose = {id(one) for one, *_ in graph.unwrapped_parameters}
    named = [name for name, parameter in model.named_parameters() if id(parameter) in loose]
    unknown += [name for name in named if name.rpartition(".")[0] not in unknown]
    if unknown:
        raise ModelError(
            f"pruning needs layers that the dependency graph knows, such as convolutions, linear layers and batch norms; it does "
            f"not know {', '.join(unknown)}; leave channel pruning out, or replace them"
        )
    return graph


def _unit(model: Split, graph: Any, name: str, kinds: tuple[type[nn.Module], ...]) -> Unit | None:
    """Return the unit of a layer, or None where its channels cannot be removed one by one."""
    root = model.get_submodule(name)
    size = len(root.get_parameter("weight"))
    if getattr(root, "groups", 1) > 1:
        return None
    names = {module: path for path, module in model.named_modules()}
    gives: dict[str, nn.Module] = {}
    takes: list[tuple[str, float]] = []
    for dependency, places in _group(graph, root, range(size)):
        module, path = dependency.target.module, names.get(dependency.target.module)
        if path is None:
            continue
        if graph.is_out_channel_pruning_fn(dependency.handler):
            if not _whole(module, places, size, kinds):
                return None
            gives[path] = module
        elif isinstance(module, nn.Linear):
            takes.append((path, len(places) / module.in_features))
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            takes.append((path, len(places) / module.in_channels))
        else:
            return None
    order = {path: place for place, path in enumerate(names.values())}
    layers = sorted((path for path, module in gives.items() if isinstance(module, kinds)), key=order.__getitem__)
    plain = [path for path in layers if getattr(gives[path], "groups", 1) == 1]
    gated = sorted({_norm_after(graph, names, gives[path]) or path for path in layers}, key=order.__getitem__)
    return Unit(plain[0], size, tuple(gated), tuple(sorted(gives, key=order.__getitem__)), tuple(sorted(takes)))


def _whole(module: nn.Module, places: Sequence[int], size: int, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Tell whether a module's outputs are the channels of a unit, all of them. That their order is one says `_agrees`."""
    if isinstance(module, nn.Conv2d) and module.groups not in (1, module.out_channels):
        return False
    if not isinstance(module, (*kinds, nn.BatchNorm2d, nn.BatchNorm1d)):
        return False
    own = module.num_features if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) else len(module.get_parameter("weight"))
    return own == size and sorted(int(place) for place in places) == list(range(size))


def _norm_after(graph: Any, names: dict[nn.Module, str], module: nn.Module) -> str | None:
    """Return the name of the batch norm that alone follows a layer, if one does."""
    after = graph.module2node[module].outputs
    if len(after) == 1 and isinstance(after[0].module, nn.BatchNorm2d | nn.BatchNorm1d) and after[0].module.affine:
        return names[after[0].module]
    return None


def _removable(units: list[Unit], model: Split, x: Tensor) -> Iterator[Unit]:
    """Yield the units whose zeros can be removed without a change of the outputs."""
    if units and _agrees(units, model, x):
        yield from units
    else:
        yield from (unit for unit in units if _agrees([unit], model, x))


def _agrees(units: list[Unit], model: Split, x: Tensor) -> bool:
    """Tell whether removing a channel of each unit equals masking it.

    In double precision: of what a channel says in the head of a deep net, little may arrive at its end.
    """
    trial, x = copy.deepcopy(model).double(), x.double()
    _unsettle(trial)
    masks = [nn.Parameter(torch.ones(unit.size).to(x)) for unit in units]
    try:
        with torch.no_grad():
            for unit, mask in zip(units, masks, strict=True):
                mask[unit.size // 2] = 0.0 if unit.size > 1 else 1.0  # in the middle: a shuffle of channels leaves the ends
                for path in unit.gated:
                    gate.attach(trial.get_submodule(path), mask)
            masked: Tensor = trial(x)
            gate.fold(trial)
        remove(trial, [trial.get_submodule(unit.root) for unit in units], [mask.detach().cpu() > 0 for mask in masks], x)
        with torch.no_grad():
            return bool((masked - trial(x)).abs().max() <= _TOLERANCE * masked.abs().max())
    except RuntimeError:  # a size is written into the model's own code
        return False


@torch.no_grad()
def _unsettle(model: nn.Module) -> None:
    """Move the batch norms off where they start: there they make 0 of 0, and after training they do not."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            if module.running_mean is not None:
                module.running_mean.add_(1)
            if module.bias is not None:
                module.bias.add_(2)
