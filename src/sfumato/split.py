# SPDX-License-Identifier: Apache-2.0
"""Cut any traceable `nn.Module` into the head that runs on the device and the tail that runs on the server.

The model is traced with `torch.fx`. A cut is *clean* when exactly one tensor crosses it; then head and tail hold the model's own
modules, under their own names, and compute the same operations in the same order: head then tail equals the whole bit for bit.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument
from torch.utils.flop_counter import FlopCounterMode

from sfumato.errors import CutError, nearest

FORMATS: Mapping[str, int] = {"float32": 4, "float16": 2, "uint8": 1}
"""Bytes of one number in each format that features are sent in."""

_AUGMENTED = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class Split(nn.Module):
    """A model in two parts.

    Args:
        head: the device part; takes x in [0, 1], (N, C, H, W), and returns z. Normalisation lies in it.
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
    """What a module costs for one picture: `parameters` numbers to hold, `macs` multiply-accumulates to do."""

    parameters: int
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
        Parameters, and MACs of convolutions and matrix products: other operations are not counted.

    Example:
        >>> cost(nn.Linear(4, 3), torch.zeros(1, 4))
        Cost(parameters=15, macs=12)
    """
    with eval_mode(module), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return Cost(sum(parameter.numel() for parameter in module.parameters()), counter.get_total_flops() // 2)


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
    trace = _Trace(model)
    node = trace.find(at)
    trace.require_clean(node, at)
    head, tail = trace.halves(node)
    halves = Split(head, tail, at=at, name=name or type(model).__name__)
    if example is not None:
        _check_released(halves.head, example, at)
    return halves


def cuts(model: nn.Module, example: Tensor) -> tuple[Cut, ...]:
    """List every clean cut of a model with its cost.

    Args:
        model: any module that `torch.fx` can trace.
        example: one picture, (1, C, H, W), in [0, 1].

    Returns:
        The clean cuts, from input to output. A cut that ends several nested modules has the name of the outermost.

    Raises:
        CutError: the model cannot be traced.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
        >>> [(cut.name, cut.shape) for cut in cuts(model, torch.rand(1, 1, 4, 4))]
        [('0', (2, 2, 2)), ('1', (2, 2, 2)), ('2', (8,))]
    """
    trace = _Trace(model)
    with eval_mode(model), torch.no_grad():
        costs = _Costs(fx.GraphModule(model, trace.graph))
        costs.run(example)
    rows = []
    for node in trace.clean_nodes():
        if (shape := costs.shapes.get(node)) is None or shape[:1] != example.shape[:1]:
            continue
        above = trace.ancestors(node)
        sides = ([n for n in trace.graph.nodes if n in above], [n for n in trace.graph.nodes if n not in above])
        head, tail = (Cost(trace.parameters(side), sum(costs.macs[n] for n in side)) for side in sides)
        rows.append(Cut(trace.name(node), tuple(shape[1:]), head, tail))
    return tuple(rows)


class _Tracer(fx.Tracer):
    """A tracer that notes which node each call of each module returned."""

    proxy_buffer_attributes = True  # else what is computed of buffers becomes a constant, which no device move reaches

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, list[fx.Node]] = {}

    def call_module(self, m: nn.Module, forward: object, args: object, kwargs: object) -> object:  # noqa: D102
        out = super().call_module(m, forward, args, kwargs)  # type: ignore[arg-type]
        if isinstance(out, fx.Proxy):
            self.returned.setdefault(self.path_of_module(m), []).append(out.node)
        return out


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


class _Trace:
    """The graph of a model, and which of its nodes are clean cuts."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.graph, self.returned = _trace_both_modes(model)
        self.order = {node: place for place, node in enumerate(self.graph.nodes)}
        self._names: dict[fx.Node, list[str]] = {}
        for path, nodes in self.returned.items():
            for call, node in enumerate(nodes, start=1):
                self._names.setdefault(node, []).append(path if len(nodes) == 1 else f"{path}#{call}")

    def name(self, node: fx.Node) -> str:
        """Return the name of the outermost module that ends at a node, or the node's own."""
        return min(self._names.get(node, [node.name]), key=lambda name: (name.count("."), len(name)))

    def find(self, at: str) -> fx.Node:
        """Return the node that a name stands for."""
        if len(self.returned.get(at, ())) > 1:
            calls = ", ".join(f"{at}#{call}" for call in range(1, len(self.returned[at]) + 1))
            raise CutError(f"module '{at}' is called several times; name the call: {calls}")
        named = {name: node for node, names in self._names.items() for name in names}
        named |= {node.name: node for node in self.graph.nodes if node.op.startswith("call") and node.name not in named}
        if at not in named:
            clean = ", ".join(self.name(node) for node in self.clean_nodes())
            raise CutError(f"the model has no cut '{at}'{nearest(at, named)}; clean cuts: {clean or 'none'}")
        return named[at]

    def ancestors(self, node: fx.Node) -> set[fx.Node]:
        """Return a node and everything that it is computed from."""
        above, queue = {node}, [node]
        while queue:
            fresh = [source for source in queue.pop().all_input_nodes if source not in above]
            above.update(fresh)
            queue.extend(fresh)
        return above

    def crossing(self, node: fx.Node) -> list[fx.Node]:
        """Return what crosses a cut besides the node itself. Parameters do not cross: both halves can hold them."""
        above = self.ancestors(node)
        across = {n for n in above - {node} if n.op != "get_attr" and any(user not in above for user in n.users)}
        return sorted(across, key=self.order.__getitem__)

    def clean_nodes(self) -> list[fx.Node]:
        """Return every node at which a cut is clean and leaves something to the tail."""
        ends = {source for node in self.graph.nodes if node.op == "output" for source in node.all_input_nodes}
        inside = [node for node in self.graph.nodes if node.op.startswith("call") and node not in ends]
        from_input = {node for node in inside if any(n.op == "placeholder" for n in self.ancestors(node))}
        return [node for node in inside if node in from_input and not self.crossing(node)]

    def require_clean(self, node: fx.Node, at: str) -> None:
        """Raise unless a cut at the node is clean."""
        clean = self.clean_nodes()
        if node in clean:
            return
        across = [*self.crossing(node), node]
        place = self.order[node]
        before = [self.name(n) for n in clean if self.order[n] < place][-1:]
        after = [self.name(n) for n in clean if self.order[n] > place][:1]
        hint = " and ".join(f"'{name}'" for name in (*before, *after)) or "none"
        if len(across) == 1:
            raise CutError(f"cut '{at}' is at the end of the model or does not depend on x; nearest clean cuts: {hint}")
        listed = ", ".join(self.name(n) for n in across)
        raise CutError(f"cut '{at}' is not clean: {len(across)} values cross it ({listed}); nearest clean cuts: {hint}")

    def halves(self, node: fx.Node) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Return the modules before and after a clean node."""
        above = self.ancestors(node)
        head, tail = fx.Graph(), fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for n in self.graph.nodes:
            if n in above:
                copies[n] = head.node_copy(n, copies.__getitem__)
        head.output(copies[node])
        z = tail.placeholder("z")
        # An in-place operation at the start of the tail would overwrite the released features.
        inner = {node: tail.call_method("clone", (z,)) if self._overwritten(node) else z}
        for n in self.graph.nodes:
            if n not in above or (n.op == "get_attr" and any(user not in above for user in n.users)):
                inner[n] = tail.node_copy(n, inner.__getitem__)
        return fx.GraphModule(self.model, head, "Head"), fx.GraphModule(self.model, tail, "Tail")

    def _overwritten(self, node: fx.Node) -> bool:
        """Tell whether any user of a node works in place."""
        return any(self._in_place(user) for user in node.users)

    def _in_place(self, user: fx.Node) -> bool:
        if user.op == "call_module":
            return bool(getattr(self.model.get_submodule(str(user.target)), "inplace", False))
        function = str(getattr(user.target, "__name__", user.target))
        return user.target in _AUGMENTED or function.endswith("_") or bool(user.kwargs.get("inplace", False))

    def parameters(self, nodes: list[fx.Node]) -> int:
        """Count the parameters that nodes use, each once."""
        found: dict[int, int] = {}
        for node in nodes:
            if node.op == "call_module":
                owned = list(self.model.get_submodule(str(node.target)).parameters())
            elif node.op == "get_attr":
                owned = [p for name, p in self.model.named_parameters() if name == node.target]
            else:
                continue
            found.update((id(parameter), parameter.numel()) for parameter in owned)
        return sum(found.values())


def _trace_both_modes(model: nn.Module) -> tuple[fx.Graph, dict[str, list[fx.Node]]]:
    """Trace a model so that one graph serves training and evaluation.

    `F.dropout(x, training=self.training)` leaves a constant in a trace. Where the traces of the two modes differ by such a
    constant only, it is replaced by the half's own `training`.
    """
    with _mode(model, training=True):
        graph, returned = _trace(model)
    with _mode(model, training=False):
        other, _ = _trace(model)
    nodes, twins = list(graph.nodes), list(other.nodes)
    if [(n.op, str(n.target)) for n in nodes] != [(n.op, str(n.target)) for n in twins]:
        raise CutError(
            "the model computes different things in training and in evaluation, so no cut serves both; "
            "give Split(head=..., tail=...) two modules of your own"
        )
    for node, twin in zip(nodes, twins, strict=True):
        _follow_mode(graph, node, twin)
    return graph, returned


def _trace(model: nn.Module) -> tuple[fx.Graph, dict[str, list[fx.Node]]]:
    """Trace a model in its present mode."""
    tracer = _Tracer()
    _, *others = inspect.signature(model.forward).parameters.values()
    fixed = {other.name: other.default for other in others if other.default is not inspect.Parameter.empty}
    try:
        graph = tracer.trace(model, concrete_args=fixed)
    except Exception as error:  # whatever the user's forward raises when it meets a proxy
        raise CutError(
            f"torch.fx cannot trace {type(model).__name__}: {error}. A forward pass that branches on values cannot be cut "
            "by name; give Split(head=..., tail=...) two modules of your own"
        ) from error
    _drop_fixed(graph, fixed)
    return graph, tracer.returned


def _drop_fixed(graph: fx.Graph, fixed: Mapping[str, object]) -> None:
    """Remove what tracing leaves of arguments that have defaults: their placeholders, and assertions about their values."""
    for node in reversed(graph.nodes):
        leftover = node.op == "placeholder" and str(node.target).rsplit("_", 1)[0] in fixed
        asserted = node.op == "call_function" and "assert" in str(getattr(node.target, "__name__", ""))
        compared = node.op == "call_function" and node.target is operator.eq
        if (leftover or asserted or compared) and not node.users:
            graph.erase_node(node)


def _follow_mode(graph: fx.Graph, node: fx.Node, twin: fx.Node) -> None:
    """Replace constants that are True in training and False in evaluation by the module's mode."""

    def switch(value: Argument, other: Argument) -> Argument:
        if value is True and other is False:
            with graph.inserting_before(node):
                return graph.create_node("get_attr", "training")
        return value

    node.args = tuple(switch(a, b) for a, b in zip(node.args, twin.args, strict=True))
    node.kwargs = {key: switch(value, twin.kwargs.get(key)) for key, value in node.kwargs.items()}


def _check_released(head: nn.Module, example: Tensor, at: str) -> None:
    """Raise unless the head turns a batch of pictures into a batch of features."""
    with eval_mode(head), torch.no_grad():
        z = head(example)
    if not isinstance(z, Tensor) or z.shape[:1] != example.shape[:1]:
        found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise CutError(f"cut '{at}' must release one row for each of {len(example)} pictures, found {found}; cut at a module")


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a model in a mode inside a `with` block, and each of its modules back afterwards."""
    before = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def eval_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Put a model in evaluation mode inside a `with` block, and each of its modules back afterwards.

    Example:
        >>> model = nn.Dropout()
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    return _mode(model, training=False)
