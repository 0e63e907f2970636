# SPDX-License-Identifier: Apache-2.0
"""Write a module as one ONNX file: a dynamic batch, all weights inside, no random operation, the same bytes each time.

What the exporter notes about the machine (stack traces, paths, names of classes) is left out, so that a file that is given away
tells the network and nothing else.

Source: none.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sfumato.errors import ExportError, SfumatoError

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""Of the ONNX operators; ONNX Runtime has known it since 1.17."""
BATCH = "batch"
"""Name of the first dimension of every input and output."""

_RANDOM = frozenset({"Multinomial", "Bernoulli"})


def require_onnx() -> None:
    """Raise where what writes and runs ONNX files is not installed.

    Raises:
        ExportError: it is not.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ExportError(f'export needs the extra, {", ".join(missing)} is missing: pip install "sfumato[export]"')


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep back inside a `with` block what the exporter logs, warns and prints: four times that torchvision is not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def onnx_file(module: nn.Module, tensors: Sequence[Tensor], names: Sequence[str], *, output: str) -> bytes:
    """Return a module as an ONNX file.

    Args:
        module: in eval mode; takes one tensor, or one and a tuple of the others.
        tensors: examples of its inputs, each (2, ...), on the device of the module.
        names: of its inputs.
        output: name of its one output.

    Returns:
        The file. Its inputs and its output have a dynamic first dimension, "batch".

    Raises:
        ExportError: the module cannot be traced, only takes batches of one size, or draws random numbers.

    Example:
        >>> file = onnx_file(nn.Linear(3, 2).eval(), [torch.zeros(2, 3)], ["z"], output="answer")
        >>> import onnx
        >>> onnx.load_from_string(file).graph.output[0].name
        'answer'
    """
    require_onnx()
    batch = {0: torch.export.Dim(BATCH, min=1)}
    first, *others = tensors
    arguments: tuple[Any, ...] = (first, tuple(others)) if others else (first,)
    shapes: tuple[Any, ...] = (batch, tuple(batch for _ in others)) if others else (batch,)
    try:
        with silence(), torch.no_grad():
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(names),
                output_names=[output],
                opset_version=OPSET,
                external_data=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
                verbose=False,
            )
        assert program is not None  # noqa: S101 -- the dynamo exporter always returns one
        model = program.model_proto
    except SfumatoError:
        raise
    except Exception as error:  # noqa: BLE001 -- the exporter raises whatever a model makes its layers raise
        raise ExportError(f"{_reason(error)}; {type(module).__name__} must be traceable by torch.export") from error
    _strip(model)
    _check(model)
    return bytes(model.SerializeToString(deterministic=True))


def _stable_sort(self: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: N807
    """Return values and indices of a stable sort, which the exporter lacks: TopK of ONNX has equals in their order."""
    from onnxscript import opset20

    op: Any = opset20

    count = op.Reshape(op.Gather(op.Shape(self), op.Constant(value_int=dim), axis=0), op.Constant(value_ints=[1]))
    return op.TopK(self, count, axis=dim, largest=int(descending), sorted=1)


def _reason(error: BaseException) -> str:
    """Return the first line of what began a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300].rstrip(".;")


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """Yield the graph of a file, its functions, and the graphs inside of their nodes: branches and loops."""
    left: list[Any] = [model.graph, *model.functions]
    while left:
        graph = left.pop()
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            left += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _strip(model: onnx.ModelProto) -> None:
    """Remove what tells where and from which code a file was made."""
    parts: list[Any] = [model]
    for graph in _graphs(model):
        named = ("node", "value_info", "initializer", "input", "output")  # inputs and outputs of a function are names alone
        parts += [graph, *(part for name in named for part in getattr(graph, name, ()) if not isinstance(part, str))]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def _check(model: onnx.ModelProto) -> None:
    """Refuse a file that draws for itself, or that takes batches of one size only."""
    from onnx import checker

    for node in (node for graph in _graphs(model) for node in graph.node):
        if node.op_type in _RANDOM or node.op_type.startswith("Random"):
            raise ExportError(
                f"expected no random operation in the exported file, found {node.op_type}: draw with torch.randn_like"
            )
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param == "":
            raise ExportError(
                f"expected a batch of any size in '{value.name}', found one of {first.dim_value}: the model takes no other; keep "
                "the first dimension of every tensor that of the batch, and write x.shape[0] in place of len(x)"
            )
        first.dim_param = BATCH
    checker.check_model(model)
