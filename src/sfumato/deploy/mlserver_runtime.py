# SPDX-License-Identifier: Apache-2.0
"""The tail of a bundle in MLServer: `model-settings.json` in the repository of a bundle names `Tail`.

    mlserver start BUNDLE/repository

The settings.json there is the server's, and a file of the bundle: other settings go into the environment (MLSERVER_GRPC_PORT).

MLServer speaks the same protocol, puts batches together itself and runs behind KServe. It has neither TLS nor tokens over gRPC:
put it behind something that has.

Source: mlserver2024, custom inference runtimes.
Departures: a request is checked before MLServer batches it, because MLServer splits the answers of a batch by the shapes that the
requests claim: whoever claimed more pictures than it sent could get the answers of others. And the class is made when it is asked
for: MLServer and NVIDIA's client register the same messages, and whatever imports all of this package would have both at once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.deploy.sessions import session_of

if TYPE_CHECKING:
    from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

_TYPES = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}
_PICTURES_MOST = 1 << 20


def __getattr__(name: str) -> Any:
    """Return the runtime, `Tail`, when MLServer asks for it."""
    if name == "Tail":
        return _tail()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def features(request: InferenceRequest, facts: MetadataTensor) -> NDArray[np.generic]:
    """Return the features of a request, or of a batch of them.

    Args:
        request: its numbers flat, as they come over gRPC.
        facts: of the features, from the settings of the model; the first dimension is -1.

    Returns:
        (N, *shape), N at least 1, of the type of the facts, finite.

    Raises:
        ValueError: the request is another one.
    """
    if len(request.inputs) != 1 or (request.inputs[0].name, request.inputs[0].datatype) != (facts.name, facts.datatype):
        raise ValueError(f"expected one input, '{facts.name}' of type {facts.datatype}, found another")
    shape, wanted = tuple(request.inputs[0].shape), tuple(facts.shape[1:])
    if shape[1:] != wanted or not 1 <= shape[0] <= _PICTURES_MOST:
        raise ValueError(f"expected shape (N, {', '.join(map(str, wanted))}) with N from 1, found another")
    data = request.inputs[0].data
    numbers = getattr(data, "root", data)
    if len(numbers) != math.prod(shape):
        raise ValueError(f"expected {math.prod(shape)} numbers for shape {shape}, found {len(numbers)}")
    try:
        z = np.asarray(numbers, dtype=_TYPES[facts.datatype]).reshape(shape)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"expected numbers of type {facts.datatype}, found others") from error
    if not np.isfinite(z).all():
        raise ValueError(f"expected finite numbers in '{facts.name}', found NaN or infinity")
    return z


@cache
def _tail() -> type:
    """Make the runtime."""
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.errors import InferenceError
    from mlserver.types import InferenceResponse
    from mlserver.utils import get_model_uri

    class Tail(MLModel):  # type: ignore[misc]
        """Serves one tail with ONNX Runtime."""

        _batched: Callable[[InferenceRequest], Awaitable[InferenceResponse]] | None = None

        async def load(self) -> bool:
            """Load the file that the settings name."""
            self._session = session_of(await get_model_uri(self._settings), threads=0)
            return True

        @property
        def predict(self) -> Callable[[InferenceRequest], Awaitable[InferenceResponse]]:
            """What answers a request. MLServer takes it once, and puts in its place what batches it."""
            return self._answer if self._batched is None else self._check_and_batch

        @predict.setter
        def predict(self, batched: Callable[[InferenceRequest], Awaitable[InferenceResponse]]) -> None:
            self._batched = batched

        def _features(self, payload: InferenceRequest) -> NDArray[np.generic]:
            try:
                return features(payload, self.inputs[0])
            except ValueError as error:
                raise InferenceError(str(error)) from error

        async def _check_and_batch(self, payload: InferenceRequest) -> InferenceResponse:
            self._features(payload)
            assert self._batched is not None  # noqa: S101 -- how one gets here
            return await self._batched(payload)

        async def _answer(self, payload: InferenceRequest) -> InferenceResponse:
            z, answer = self._features(payload), self._session.get_outputs()[0].name
            rows = self._session.run([answer], {self.inputs[0].name: z})[0]
            outputs = [NumpyCodec.encode_output(answer, rows)]
            return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    return Tail
