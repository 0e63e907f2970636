# SPDX-License-Identifier: Apache-2.0
"""Which residual branches of a head can be removed, and the removal: a block without its branch is its shortcut.

Source: ding2024patrol, section III-B1 (block-wise pruning: the mask lies on the residual mapping of each residual block).
Departures: none.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from sfumato.errors import ModelError
from sfumato.pruning.footprint import Plan, Term
from sfumato.pruning.tensors import tensor_costs
from sfumato.split import Split

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True)
class Branch:
    """A residual branch.

    Attributes:
        root: name of its last module, whose output is added to the shortcut and which a soft mask multiplies.
        modules: names of the modules in it.
    """

    root: str
    modules: tuple[str, ...]


def find(model: Split) -> tuple[Branch, ...]:
    """Find the residual branches of a head.

    Args:
        model: a split model.

    Returns:
        The branches that hold convolutions, in order.

    Raises:
        ModelError: the head was not made by `split`, or has no residual block.
    """
    found = [branch for prefix, graph in _graphs(model) for _, branch in _branches(graph, prefix)]
    if not found:
        raise ModelError('block-wise pruning needs residual blocks in a head that sf.split made, found none; use unit="channel"')
    return tuple(found)


def plan(model: Split, branches: Sequence[Branch], x: Tensor) -> Plan:
    """Return what a head is made of, in terms of its branches.

    Args:
        model: the split model.
        branches: as `find` returned them.
        x: pictures, (N, C, H, W), on its device.
    """
    owner = {name: place for place, branch in enumerate(branches) for name in branch.modules}
    terms = tuple(Term(cost, owner.get(name.rsplit(".", 1)[0])) for name, _, cost in tensor_costs(model, x))
    return Plan((1,) * len(branches), (0,) * len(branches), terms)


def remove(model: Split, stays: Sequence[bool]) -> None:
    """Remove branches, in place.

    Args:
        model: the split model; layers may have been added to it since `find`.
        stays: for each branch, in the order of `find`, whether it stays.
    """
    gone = {branch.root for branch, kept in zip(find(model), stays, strict=True) if not kept}
    for prefix, graph in _graphs(model):
        for addition, branch in list(_branches(graph, prefix)):
            if branch.root in gone:
                shortcut = next(node for node in addition.all_input_nodes if f"{prefix}{node.target}" != branch.root)
                addition.replace_all_uses_with(shortcut)
        graph.graph.eliminate_dead_code()
        graph.delete_all_unused_submodules()
        graph.recompile()


def reshape(model: Split, weights: Mapping[str, Tensor]) -> None:
    """Remove the branches of which some weights have nothing, in place."""
    owners = {name.rsplit(".", 1)[0] for name in weights}
    remove(model, [any(name in owners for name in branch.modules) for branch in find(model)])


def is_residual(node: fx.Node) -> bool:
    """Tell whether a node adds two tensors."""
    return node.target in _ADDITIONS and len(node.all_input_nodes) == 2 and not node.kwargs


def _graphs(model: Split) -> Iterator[tuple[str, fx.GraphModule]]:
    """Yield the traced parts of a head with the prefix of their names in the model."""
    for name, module in model.head.named_modules(prefix="head"):
        if isinstance(module, fx.GraphModule):
            yield f"{name}.", module


def _branches(module: fx.GraphModule, prefix: str) -> Iterator[tuple[fx.Node, Branch]]:
    """Yield each addition of a branch to a shortcut, with the branch."""
    for node in module.graph.nodes:
        sides = node.all_input_nodes
        if not is_residual(node):
            continue
        own = [_exclusive(side, other) for side, other in (sides, reversed(sides))]
        longer = max(own, key=lambda nodes: sum(_is_convolution(module, inner) for inner in nodes))
        end = sides[own.index(longer)]
        if end.op == "call_module" and isinstance(module.get_submodule(str(end.target)), nn.Conv2d | nn.BatchNorm2d):
            names = (f"{prefix}{inner.target}" for inner in longer if inner.op == "call_module")
            yield node, Branch(f"{prefix}{end.target}", tuple(names))


def _exclusive(side: fx.Node, other: fx.Node) -> list[fx.Node]:
    """Return what one side of an addition is computed from and the other is not."""
    above, beside = ({node} | set(_ancestors(node)) for node in (side, other))
    return [node for node in side.graph.nodes if node in above and node not in beside]


def _ancestors(node: fx.Node) -> Iterator[fx.Node]:
    seen, queue = set(), [node]
    while queue:
        for source in queue.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                queue.append(source)
                yield source


def _is_convolution(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), nn.Conv2d)
