# SPDX-License-Identifier: Apache-2.0
"""Cut any traceable `nn.Module` into the head that runs on the device and the tail that runs on the server.

The model is traced with `torch.fx`. A cut is *clean* when exactly one tensor crosses it; then head and tail hold the model's own
modules, under their own names, and compute the same operations in the same order: head then tail equals the whole bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from sfumato.errors import ConfigError, CutError
from sfumato.graph import Trace
from sfumato.modules import eval_mode

FORMATS: Mapping[str, int] = {"float32": 4, "float16": 2, "uint8": 1}
"""Bytes of one number in each format that features are sent in."""


class Split(nn.Module):
    """A model in two parts.

    Args:
        head: the device part; takes x in [0, 1], (N, C, H, W), and returns z. Normalization lies in it.
        tail: the server part; takes z and returns logits, (N, K).
        at: the name of the cut.
        name: the name of the model, for reports.

    Example:
        >>> halves = Split(nn.Conv2d(1, 2, 3), nn.Flatten(), at="conv")
        >>> halves(torch.zeros(1, 1, 4, 4)).shape
        torch.Size([1, 8])
    """

    def __init__(self, head: nn.Module, tail: nn.Module, *, at: str = "custom", name: str = "custom") -> None:
        super().__init__()
        self.head = head
        self.tail = tail
        self.at = at
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Run the head, then the tail."""
        logits: Tensor = self.tail(self.head(x))
        return logits


@dataclass(frozen=True)
class Cost:
    """What a module costs.

    Attributes:
        parameters: numbers to learn.
        memory: bytes of its tensors, buffers included, as they are exported.
        macs: multiply-accumulates for one picture.
    """

    parameters: int
    memory: int
    macs: int


@dataclass(frozen=True)
class Cut:
    """A clean cut: its name, the shape of z for one picture, and the cost of both sides."""

    name: str
    shape: tuple[int, ...]
    head: Cost
    tail: Cost

    @property
    def bytes_per_picture(self) -> dict[str, int]:
        """Bytes of one z by number format."""
        return bytes_per_picture(self.shape)


def bytes_per_picture(shape: tuple[int, ...]) -> dict[str, int]:
    """Return the bytes of one z of this shape, by number format.

    Example:
        >>> bytes_per_picture((8, 8, 8))
        {'float32': 2048, 'float16': 1024, 'uint8': 512}
    """
    numbers = torch.Size(shape).numel()
    return {name: width * numbers for name, width in FORMATS.items()}


def cost(module: nn.Module, x: Tensor) -> Cost:
    """Count the parameters and multiply-accumulates of a module.

    Args:
        module: any module; its mode is left as it is found.
        x: an input of one picture.

    Returns:
        Its cost, with the MACs of convolutions and matrix products: other operations are not counted.

    Example:
        >>> cost(nn.Linear(4, 3), torch.zeros(1, 4))
        Cost(parameters=15, memory=60, macs=12)
    """
    with eval_mode(module), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return _cost([*module.parameters(), *module.buffers()], counter.get_total_flops() // 2)


def split(model: nn.Module, at: str, *, example: Tensor | None = None, name: str | None = None) -> Split:
    """Cut a model after a module.

    Args:
        model: any module that `torch.fx` can trace, from x in [0, 1], (N, C, H, W), to logits. It is not copied: head and tail
            hold its modules.
        at: the name of a module, such as "c2" or "features.4", or of any other line that `cuts` lists. A module that is called
            several times is named with the number of the call: "act#2".
        example: a batch to check the cut on: z must be a tensor with one row for each picture.
        name: the name of the model in reports; its class where None.

    Returns:
        Head and tail, such that `tail(head(x))` equals `model(x)` bit for bit, in training and in evaluation.

    Raises:
        CutError: the model cannot be traced; there is no such place; several tensors cross there (they are listed, with the
            nearest clean cuts); or z is not a batch of tensors.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> halves = split(model, at="1")
        >>> x = torch.rand(1, 1, 4, 4)
        >>> bool((halves(x) == model(x)).all())
        True
    """
    trace = Trace(model)
    node = trace.find(at)
    trace.require_clean(node, at)
    head, tail = trace.halves(node)
    halves = Split(head, tail, at=at, name=name or type(model).__name__)
    if example is not None:
        _check_released(halves.head, example, at)
    return halves


def whole(model: nn.Module, *, name: str | None = None) -> Split:
    """Leave a model whole: all of it runs on the server, and what the device sends is the picture.

    Args:
        model: any module, from x in [0, 1] to logits; it need not be traceable, and is not copied.
        name: of the model in reports; its class where None.

    Returns:
        A split whose head does nothing and whose `at` is "".

    Example:
        >>> whole(nn.Flatten())(torch.zeros(1, 1, 2, 2)).shape
        torch.Size([1, 4])
    """
    return Split(nn.Identity(), model, at="", name=name or type(model).__name__)


def cuts(model: nn.Module, example: Tensor) -> tuple[Cut, ...]:
    """List every clean cut of a model with its cost.

    Args:
        model: any module that `torch.fx` can trace.
        example: one picture, (1, C, H, W), in [0, 1].

    Returns:
        The clean cuts, from input to output. A cut that ends several nested modules has the name of the outermost.

    Raises:
        CutError: the model cannot be traced.
        ConfigError: the example is no tensor.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
        >>> [(cut.name, cut.shape) for cut in cuts(model, torch.rand(1, 1, 4, 4))]
        [('0', (2, 2, 2)), ('1', (2, 2, 2)), ('2', (8,))]
    """
    if not isinstance(example, Tensor):
        raise ConfigError(f"example must be one picture, such as torch.zeros(1, 3, 32, 32), got {example!r}")
    trace = Trace(model)
    with eval_mode(model), torch.no_grad():
        costs = _Costs(fx.GraphModule(model, trace.graph))
        costs.run(example)
    rows = []
    for node in trace.clean_nodes():
        if (shape := costs.shapes.get(node)) is None or shape[:1] != example.shape[:1]:
            continue
        above = trace.ancestors(node)
        sides = ([n for n in trace.graph.nodes if n in above], [n for n in trace.graph.nodes if n not in above])
        head, tail = (_cost(trace.tensors(side), sum(costs.macs[n] for n in side)) for side in sides)
        rows.append(Cut(trace.name(node), tuple(shape[1:]), head, tail))
    return tuple(rows)


def _cost(tensors: Sequence[Tensor], macs: int) -> Cost:
    """Return the cost of a module that holds these tensors."""
    learned = sum(tensor.numel() for tensor in tensors if isinstance(tensor, nn.Parameter))
    return Cost(learned, sum(tensor.nbytes for tensor in tensors), macs)


class _Costs(fx.Interpreter):
    """An interpreter that notes shape and multiply-accumulates of each node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, torch.Size] = {}
        self.macs: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:  # noqa: D102
        with FlopCounterMode(display=False) as counter:
            out = super().run_node(n)
        self.macs[n] = counter.get_total_flops() // 2
        if isinstance(out, Tensor):
            self.shapes[n] = out.shape
        return out


def _check_released(head: nn.Module, example: Tensor, at: str) -> None:
    """Raise unless the head turns a batch of pictures into a batch of features."""
    with eval_mode(head), torch.no_grad():
        z = head(example)
    if not isinstance(z, Tensor) or z.shape[:1] != example.shape[:1]:
        found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise CutError(f"cut '{at}' must release one row for each of {len(example)} pictures, found {found}; cut at a module")
