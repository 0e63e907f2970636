# SPDX-License-Identifier: Apache-2.0
"""The traced graph of a model: what each node is called, what crosses it, and the two halves that a cut there gives."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping

from torch import Tensor, fx, nn
from torch.fx.node import Argument

from sfumato.errors import CutError, nearest
from sfumato.modules import mode

_AUGMENTED = {
    getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
}
_IN_PLACE = _AUGMENTED | {operator.setitem}


class Trace:
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
        """Return what crosses a cut besides the node itself.

        Parameters and buffers do not cross, since both halves can hold them, unless they are written on the way.
        """
        above = self.ancestors(node)
        held = {n for n in above if n.op == "get_attr" and not any(map(self._in_place, n.users))}
        across = {n for n in above - {node} - held if any(user not in above for user in n.users)}
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
        # An in-place operation of the tail would overwrite the released features, be it through a view of them.
        after = [n for n in self.graph.nodes if n not in above]
        inner = {node: tail.call_method("clone", (z,)) if any(map(self._in_place, after)) else z}
        for n in self.graph.nodes:
            if n not in above or (n.op == "get_attr" and any(user not in above for user in n.users)):
                inner[n] = tail.node_copy(n, inner.__getitem__)
        return fx.GraphModule(self.model, head, "Head"), fx.GraphModule(self.model, tail, "Tail")

    def _in_place(self, user: fx.Node) -> bool:
        if user.op == "call_module":
            return bool(getattr(self.model.get_submodule(str(user.target)), "inplace", False))
        function = str(getattr(user.target, "__name__", user.target))
        return user.target in _IN_PLACE or function.endswith("_") or bool(user.kwargs.get("inplace", False))

    def tensors(self, nodes: list[fx.Node]) -> list[Tensor]:
        """Return the parameters and buffers that nodes use, each once."""
        named = dict((*self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers(remove_duplicate=False)))
        found: dict[int, Tensor] = {}
        for node in nodes:
            if node.op == "call_module":
                module = self.model.get_submodule(str(node.target))
                found.update((id(tensor), tensor) for tensor in (*module.parameters(), *module.buffers()))
            elif node.op == "get_attr" and (tensor := named.get(str(node.target))) is not None:
                found[id(tensor)] = tensor
        return list(found.values())


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


def _trace_both_modes(model: nn.Module) -> tuple[fx.Graph, dict[str, list[fx.Node]]]:
    """Trace a model so that one graph serves training and evaluation.

    `F.dropout(x, training=self.training)` leaves a constant in a trace. Where the traces of the two modes differ by such a
    constant only, it is replaced by the half's own `training`.
    """
    with mode(model, training=True):
        graph, returned = _trace(model)
    with mode(model, training=False):
        other, _ = _trace(model)
    nodes, twins = list(graph.nodes), list(other.nodes)
    if [(n.op, str(n.target)) for n in nodes] != [(n.op, str(n.target)) for n in twins]:
        raise _modes_differ()
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


def _named_nodes(value: Argument) -> Argument:
    """Return an argument with each node by its name, so that those of two traces can be compared."""
    return fx.node.map_arg(value, lambda node: node.name)


def _modes_differ() -> CutError:
    return CutError(
        "the model computes different things in training and in evaluation, so no cut serves both; "
        "give Split(head=..., tail=...) two modules of your own"
    )


def _follow_mode(graph: fx.Graph, node: fx.Node, twin: fx.Node) -> None:
    """Replace constants that are True in training and False in evaluation by the module's mode."""

    def switch(value: Argument, other: Argument) -> Argument:
        if value is True and other is False:
            with graph.inserting_before(node):
                return graph.create_node("get_attr", "training")
        if _named_nodes(value) != _named_nodes(other):
            raise _modes_differ()
        return value

    node.args = tuple(switch(a, b) for a, b in zip(node.args, twin.args, strict=True))
    node.kwargs = {key: switch(value, twin.kwargs.get(key)) for key, value in node.kwargs.items()}
