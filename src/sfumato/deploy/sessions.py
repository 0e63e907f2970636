# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime as every half runs in it: on the processor, saying nothing but fatal errors, its waiting threads asleep."""

from __future__ import annotations

import onnxruntime

from sfumato.cores import cores

_FATAL = 4  # of ONNX Runtime's levels: it raises what it logs as an error


def session_of(model: str | bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Make a session.

    Args:
        model: an ONNX file, or its path.
        threads: that share the work of one operator; the caller is one of them. 0 is one for each core that this process may use.

    Raises:
        Exception: of ONNX Runtime, whose errors have no nearer common base: the model is none, or takes what it lacks.

    Example:
        >>> session_of(b"")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        onnxruntime.capi.onnxruntime_pybind11_state...
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    # A thread that waits by spinning drains a battery, and takes a core from the server's other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
