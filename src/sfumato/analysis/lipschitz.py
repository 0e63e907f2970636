# SPDX-License-Identifier: Apache-2.0
"""Block-wise local Lipschitz constants of a head: how far noise on the picture drives the outputs of each block apart.

Source: ding2024patrol, section III-B2.
Equations: k_i = sup_x |f_i..f_1(x + d) - f_i..f_1(x)|_1 / |f_{i-1}..f_1(x + d) - f_{i-1}..f_1(x)|_1, Eq. 4, and Eq. 5 for
    i = 1, where the denominator is |d|_1 -> local_constants
Departures: sup over x is the largest of a batch ("max"); "mean" averages instead. One d ~ N(0, 1) is drawn for all blocks, where
Algorithm 1 draws one for each: every k_i has the same distribution, at half of the passes. The blocks compute as deployed, in
eval mode: in train mode batch norm would mix the noisy pictures with each other. The slope of a largest value is that of the
picture which attains it, so all others are run without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, fx, nn

from sfumato.graph import Trace
from sfumato.pruning.blocks import is_residual
from sfumato.types import Images

Supremum = Literal["max", "mean"]


def local_constants(blocks: Sequence[nn.Module], x: Images, *, generator: torch.Generator, supremum: Supremum = "max") -> Tensor:
    """Measure the local Lipschitz constant of each block.

    Args:
        blocks: f_1 to f_N, in eval mode; each takes what the one before gives.
        x: pictures, (B, C, H, W), float.
        generator: draws the noise, on the device of x.
        supremum: how the batch is reduced.

    Returns:
        (N,), at least 0, with gradient to the weights of the blocks.

    Example:
        >>> double = nn.Conv2d(1, 1, 1, bias=False)
        >>> _ = nn.init.constant_(double.weight, 2.0)
        >>> local_constants([double], torch.rand(3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
        tensor([2.], grad_fn=<DiagonalBackward0>)
    """
    noisy = x + torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    if supremum == "mean":
        return _ratios(blocks, x, noisy).mean(1)
    with torch.no_grad():
        largest = _ratios(blocks, x, noisy).argmax(1)
    return _ratios(blocks, x[largest], noisy[largest]).diagonal()


def chain(head: nn.Module) -> tuple[nn.Module, ...]:
    """Divide a head into blocks, which share its modules.

    A block is a stage of residual blocks; in a head without residual blocks it is a top-level module that holds convolutions.
    What comes before the first belongs to it, and so does what follows each.

    Args:
        head: any module that `torch.fx` can trace.

    Returns:
        f_1 to f_N, N >= 1.

    Raises:
        CutError: the head cannot be traced.
    """
    parts: list[nn.Module] = []
    rest: nn.Module = head
    for after in _ends(Trace(head)):
        trace = Trace(rest)
        first, rest = trace.halves(_calls(trace)[-1 - after])
        parts.append(first)
    return (*parts, rest)


def _ratios(blocks: Sequence[nn.Module], clean: Tensor, noisy: Tensor) -> Tensor:
    """Return the ratio of Eq. 4 of each block for each picture, (N, B)."""
    distances = [_distance(noisy, clean)]
    for block in blocks:
        clean, noisy = block(clean), block(noisy)
        distances.append(_distance(noisy, clean))
    tiny = torch.finfo(clean.dtype).tiny  # of a block that is constant where it is measured, 0 / 0
    return torch.stack([after / before.clamp_min(tiny) for before, after in pairwise(distances)])  # Eq. 4; Eq. 5 for the first


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the l1 distance of each row, (B,)."""
    return (a - b).flatten(1).abs().sum(1)


def _ends(trace: Trace) -> list[int]:
    """Return how many calls come after the end of each block but the last: tracing a part again does not change that."""
    calls, clean = _calls(trace), set(trace.clean_nodes())
    owners = {node: owner for node in calls if (owner := _owner(trace.model, node))}
    added = {owners[source] for node in calls if is_residual(node) for source in _branches(trace, node) if source in owners}
    modules = dict(trace.model.named_modules())
    wanted = added or {owners[node] for node in owners if isinstance(modules[str(node.target)], nn.Conv2d)}
    block, last = None, {}
    for place, node in enumerate(calls):
        block = owners[node] if owners.get(node) in wanted else block  # what follows a block belongs to it
        if block is not None and (node in clean or block not in last):
            last[block] = place
    return [len(calls) - 1 - place for place in list(last.values())[:-1] if calls[place] in clean]


def _calls(trace: Trace) -> list[fx.Node]:
    return [node for node in trace.graph.nodes if node.op.startswith("call")]


def _owner(head: nn.Module, node: fx.Node) -> str | None:
    """Return the top-level module that a call is in; those of a head that another defense wrapped count as such."""
    if node.op != "call_module":
        return None
    path = str(node.target)
    parts = path.split(".")
    wrapped = parts[0] if len(parts) > 1 and isinstance(head.get_submodule(parts[0]), fx.GraphModule) else None
    return parts[0] if wrapped is None else f"{wrapped}.{parts[1]}"


def _branches(trace: Trace, addition: fx.Node) -> list[fx.Node]:
    """Return what is added, without a shortcut that the other side is computed from."""
    one, other = addition.all_input_nodes
    return [side for side, across in ((one, other), (other, one)) if side not in trace.ancestors(across)]
