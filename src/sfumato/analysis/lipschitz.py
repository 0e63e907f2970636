# SPDX-License-Identifier: Apache-2.0
"""Block-wise local Lipschitz constants of a head: how far noise on the picture drives the outputs of each block apart.

Source: ding2024patrol, section III-B2.
Equations: k_i = sup_x |f_i..f_1(x + d) - f_i..f_1(x)|_1 / |f_{i-1}..f_1(x + d) - f_{i-1}..f_1(x)|_1, Eq. 4, and Eq. 5 for
    i = 1, where the denominator is |d|_1 -> local_constants
Departures: sup over x is the largest of a batch ("max"); "mean" averages instead. d ~ N(0, 1) is drawn for each block anew, as in
Algorithm 1. The blocks compute as deployed, in eval mode: in train mode batch norm would mix the noisy pictures with each other.
The slope of a largest value is that of the picture which attains it, so all others are run without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        tensor([2.], grad_fn=<StackBackward0>)
    """
    noises = [torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) for _ in blocks]
    if supremum == "max":
        with torch.no_grad():
            clean = _outputs(blocks, x)
            chosen = [_ratios(blocks, clean, noise, last).argmax(keepdim=True) for last, noise in enumerate(noises)]
        picked = [(_outputs(blocks[: last + 1], x[one]), noises[last][one]) for last, one in enumerate(chosen)]
        ratios = [_ratios(blocks, clean, noise, last) for last, (clean, noise) in enumerate(picked)]
    else:
        clean = _outputs(blocks, x)
        ratios = [_ratios(blocks, clean, noise, last) for last, noise in enumerate(noises)]
    return torch.stack([ratio.mean() for ratio in ratios])


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


def _outputs(blocks: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """Return x and what each block gives."""
    outputs = [x]
    for block in blocks:
        outputs.append(block(outputs[-1]))
    return outputs


def _ratios(blocks: Sequence[nn.Module], clean: Sequence[Tensor], noise: Tensor, last: int) -> Tensor:
    """Return the ratio of Eq. 4 of one block for each picture, (B,), given what the blocks give without noise."""
    moved = _outputs(blocks[: last + 1], clean[0] + noise)
    before, after = (moved[place] - clean[place] for place in (last, last + 1))
    tiny = torch.finfo(noise.dtype).tiny  # of a block that is constant where it is measured, 0 / 0
    return after.flatten(1).abs().sum(1) / before.flatten(1).abs().sum(1).clamp_min(tiny)  # Eq. 4; Eq. 5 where last is 0


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
