# SPDX-License-Identifier: Apache-2.0
"""Features and answers as messages of the Open Inference Protocol, version 2: what edge and server share of it.

A request has one input, z, whose numbers are the only raw contents; a response has one output likewise. The first dimension
is that of the batch.

Source: oip2024, the gRPC data plane of KServe; the messages are those of NVIDIA's Triton client, the only copy of them that
may be imported in a process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy.manifest import TYPES as TYPES  # the words of a repository too, which is written without tritonclient
from sfumato.deploy.manifest import VERSION as VERSION
from sfumato.deploy.manifest import TensorFacts

SERVICE = "inference.GRPCInferenceService"
"""The name of the protocol's service; a method's path is "/SERVICE/METHOD"."""
PUSHBACK = "grpc-retry-pushback-ms"
"""Where a server says in how many milliseconds to come back; a negative number is never."""
PICTURES_MOST = 1 << 20
"""Pictures in one request that are believed, before anything is multiplied."""


def request_of(model: str, facts: TensorFacts, z: NDArray[np.generic]) -> messages.ModelInferRequest:
    """Return the request for an answer.

    Args:
        model: its name.
        facts: of the features.
        z: (N, *shape), of the type of the facts.
    """
    request = messages.ModelInferRequest(model_name=model)
    request.inputs.add(name=facts.name, datatype=TYPES[facts.type], shape=z.shape)
    request.raw_input_contents.append(_raw(z, facts))
    return request


def response_of(
    request: messages.ModelInferRequest, facts: TensorFacts, answer: NDArray[np.generic]
) -> messages.ModelInferResponse:
    """Return the response to a request.

    Args:
        request: what was asked.
        facts: of the answer.
        answer: (N, *shape), of the type of the facts.
    """
    response = messages.ModelInferResponse(model_name=request.model_name, model_version=VERSION, id=request.id)
    response.outputs.add(name=facts.name, datatype=TYPES[facts.type], shape=answer.shape)
    response.raw_output_contents.append(_raw(answer, facts))
    return response


def features_of(request: messages.ModelInferRequest, sent: TensorFacts, answer: TensorFacts) -> NDArray[np.generic]:
    """Return the features in a request that asks for the answer. Nothing is allocated that was not sent.

    Args:
        request: what a client sent.
        sent: facts of the features.
        answer: facts of the answer, which a request may name or not.

    Returns:
        (N, *shape), N at least 1, of the type of the facts, finite; read-only, in the request's memory.

    Raises:
        ValueError: the request is another one; the message says what was expected and found.
    """
    if len(request.inputs) != 1:
        raise ValueError(f"expected one input, '{sent.name}', found {len(request.inputs)}")
    if len(request.outputs) > 1 or any(wanted.name != answer.name for wanted in request.outputs):
        raise ValueError(f"expected to be asked for '{answer.name}' alone, found another output")
    if request.inputs[0].HasField("contents"):
        raise ValueError("expected the numbers as raw contents alone, found typed contents")
    return _tensor(request.inputs[0], request.raw_input_contents, sent)


def answer_of(response: messages.ModelInferResponse, facts: TensorFacts) -> NDArray[np.generic]:
    """Return the answer in a response, as `features_of` does with the features in a request."""
    if len(response.outputs) != 1:
        raise ValueError(f"expected one output, '{facts.name}', found {len(response.outputs)}")
    return _tensor(response.outputs[0], response.raw_output_contents, facts)


def _tensor(
    said: messages.ModelInferRequest.InferInputTensor | messages.ModelInferResponse.InferOutputTensor,
    raw: Sequence[bytes],
    facts: TensorFacts,
) -> NDArray[np.generic]:
    """Return a tensor of a message if it is the one that the facts tell of."""
    if (said.name, said.datatype) != (facts.name, TYPES[facts.type]):
        raise ValueError(
            f"expected '{facts.name}' of type {TYPES[facts.type]}, found {said.name[:60]!r} of {said.datatype[:20]!r}"
        )
    shape = tuple(said.shape[: len(facts.shape) + 2])  # one too many is enough to see, millions would take their time
    if shape[1:] != facts.shape or not shape or not 1 <= shape[0] <= PICTURES_MOST:
        raise ValueError(f"expected shape (N, {', '.join(map(str, facts.shape))}) with N from 1, found {_short(said.shape)}")
    if len(raw) != 1:
        raise ValueError(f"expected the numbers as one raw content, found {len(raw)}")
    bytes_expected = _little(facts.type).itemsize * math.prod(shape)
    if len(raw[0]) != bytes_expected:
        raise ValueError(f"expected {bytes_expected} bytes for shape {shape}, found {len(raw[0])}")
    tensor = np.frombuffer(raw[0], dtype=_little(facts.type)).reshape(shape)
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise ValueError(f"expected finite numbers in '{facts.name}', found NaN or infinity")
    return tensor


def _short(shape: Sequence[int]) -> str:
    return str(tuple(shape)) if len(shape) <= 8 else f"{len(shape)} dimensions"


def _raw(tensor: NDArray[np.generic], facts: TensorFacts) -> bytes:
    return tensor.astype(_little(facts.type), casting="equiv", copy=False).tobytes()


@cache
def _little(name: str) -> np.dtype[np.generic]:
    """Return a number type as it lies on the wire, the lowest byte first; it is looked up for every message."""
    return np.dtype(name).newbyteorder("<")
