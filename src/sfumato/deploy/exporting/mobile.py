# SPDX-License-Identifier: Apache-2.0
"""The head as an ExecuTorch program for phones and boards, with XNNPACK: one picture at a time, the same inputs as head.onnx.

Source: the documentation of ExecuTorch, "Lowering to XNNPACK".
"""

from __future__ import annotations

import torch

from sfumato.deploy.exporting.halves import Halves
from sfumato.deploy.exporting.onnx_files import silence
from sfumato.errors import ExportError

PROGRAM = "head.pte"
"""The file's name in a bundle."""


def require_executorch() -> None:
    """Raise where ExecuTorch is not installed.

    Raises:
        ExportError: it is not.
    """
    try:
        import executorch.exir  # noqa: F401 -- whether it can be imported is the question
    except ImportError as error:
        raise ExportError('--executorch needs the extra: pip install "sfumato[executorch]"') from error


def head_program(halves: Halves) -> bytes:
    """Return the head as a program for batches of one picture; its inputs are x and the draws, its output is z.

    Args:
        halves: in PyTorch.

    Raises:
        ExportError: ExecuTorch is not installed, or cannot lower the head.
    """
    require_executorch()
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    x, draws = torch.rand(1, *halves.picture_shape), tuple(torch.rand(1, *draw.shape) for draw in halves.draws)
    try:
        with silence(), torch.no_grad():
            traced = torch.export.export(halves.head, (x, draws) if draws else (x,))
            program = to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()]).to_executorch()
    except Exception as error:  # noqa: BLE001 -- lowering raises whatever an operation lacks
        raise ExportError(f"ExecuTorch cannot lower this head: {str(error)[:300]}; leave --executorch out") from error
    return bytes(program.buffer)
