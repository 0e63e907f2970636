# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages

from sfumato.deploy.manifest import TensorFacts
from sfumato.deploy.protocol import PICTURES_MOST, VERSION, answer_of, features_of, request_of, response_of

SHAPE = (2, 3)
Z = {
    "float32": np.array([[[0.5, -1, 3e38], [1e-45, 0, -0.0]]] * 4, np.float32),
    "float16": np.array([[[0.5, -1, 6e4], [6e-8, 0, -0.0]]] * 4, np.float16),
    "uint8": np.arange(24, dtype=np.uint8).reshape(4, *SHAPE),
}
FACTS = {kind: TensorFacts("z", kind, SHAPE) for kind in Z}
ANSWER = TensorFacts("answer", "float32", (2,))


@pytest.mark.parametrize("kind", Z)
def test_features_and_answers_come_back_bit_by_bit(kind: str) -> None:
    request = request_of("toy-12345678", FACTS[kind], Z[kind])
    request.id = "7"
    sent = messages.ModelInferRequest.FromString(request.SerializeToString())
    assert sent.model_name == "toy-12345678"
    found = features_of(sent, FACTS[kind], ANSWER)
    assert (found.dtype, found.tobytes()) == (Z[kind].dtype, Z[kind].tobytes())
    assert not found.flags.writeable
    response = response_of(sent, FACTS[kind], Z[kind])
    back = answer_of(messages.ModelInferResponse.FromString(response.SerializeToString()), FACTS[kind])
    assert back.tobytes() == Z[kind].tobytes()
    assert (response.model_name, response.model_version, response.id) == ("toy-12345678", VERSION, "7")


@pytest.mark.parametrize("kind", Z)
def test_the_bytes_beside_the_numbers_are_few(kind: str) -> None:
    request = request_of("a-name-of-some-length-12345678", FACTS[kind], Z[kind])
    assert Z[kind].nbytes < request.ByteSize() <= Z[kind].nbytes + 128


def test_views_that_are_not_contiguous_are_sent_as_they_look() -> None:
    z = Z["float32"][:, ::-1]
    assert (features_of(request_of("m", FACTS["float32"], z), FACTS["float32"], ANSWER) == z).all()


Change = Callable[[messages.ModelInferRequest], object]
CHANGES: list[tuple[str, Change]] = [
    ("expected one input, 'z', found 0", lambda r: r.ClearField("inputs")),
    ("expected one input, 'z', found 2", lambda r: r.inputs.add(name="z")),
    ("expected 'z' of type FP32, found 'y' of 'FP32'", lambda r: setattr(r.inputs[0], "name", "y")),
    ("found 'z' of 'FP64'", lambda r: setattr(r.inputs[0], "datatype", "FP64")),
    ("found 'z' of 'FP16'", lambda r: setattr(r.inputs[0], "datatype", "FP16")),
    ("found 'z' of ''", lambda r: r.inputs[0].ClearField("datatype")),
    ("found 'n{60}' of", lambda r: setattr(r.inputs[0], "name", "n" * 10_000)),
    (r"found \(\)", lambda r: r.inputs[0].ClearField("shape")),
    (r"found \(4,\)", lambda r: r.inputs[0].shape.__delitem__(slice(1, None))),
    (r"found \(4, 2\)", lambda r: r.inputs[0].shape.pop()),
    (r"found \(4, 2, 3, 1\)", lambda r: r.inputs[0].shape.append(1)),
    ("found 5003 dimensions", lambda r: r.inputs[0].shape.extend([1] * 5000)),
    (r"found \(4, 3, 2\)", lambda r: r.inputs[0].shape.__setitem__(slice(1, 3), [3, 2])),
    (r"found \(0, 2, 3\)", lambda r: r.inputs[0].shape.__setitem__(0, 0)),
    (r"found \(-4, 2, 3\)", lambda r: r.inputs[0].shape.__setitem__(0, -4)),
    (r"found \(4, -2, -3\)", lambda r: r.inputs[0].shape.__setitem__(slice(1, 3), [-2, -3])),
    ("N from 1, found", lambda r: r.inputs[0].shape.__setitem__(0, PICTURES_MOST + 1)),
    ("N from 1, found", lambda r: r.inputs[0].shape.__setitem__(0, 2**63 - 1)),
    ("expected 25165824 bytes", lambda r: r.inputs[0].shape.__setitem__(0, PICTURES_MOST)),
    ("expected 120 bytes for shape", lambda r: r.inputs[0].shape.__setitem__(0, 5)),
    ("expected 72 bytes for shape", lambda r: r.inputs[0].shape.__setitem__(0, 3)),
    ("as one raw content, found 0", lambda r: r.ClearField("raw_input_contents")),
    ("as one raw content, found 2", lambda r: r.raw_input_contents.append(b"")),
    ("found 95", lambda r: r.raw_input_contents.__setitem__(0, r.raw_input_contents[0][:-1])),
    ("found 97", lambda r: r.raw_input_contents.__setitem__(0, r.raw_input_contents[0] + b"0")),
    ("found 0", lambda r: r.raw_input_contents.__setitem__(0, b"")),
    ("as raw contents alone, found typed", lambda r: r.inputs[0].contents.fp32_contents.extend([0.0] * 24)),
    ("as raw contents alone, found typed", lambda r: r.inputs[0].contents.SetInParent()),
    ("asked for 'answer' alone, found another", lambda r: r.outputs.add(name="z")),
    ("asked for 'answer' alone, found another", lambda r: [r.outputs.add(name="answer") for _ in range(2)]),
]


@pytest.mark.parametrize(("message", "change"), CHANGES, ids=[f"{at}" for at in range(len(CHANGES))])
def test_requests_that_are_none(message: str, change: Change) -> None:
    request = request_of("m", FACTS["float32"], Z["float32"])
    features_of(request, FACTS["float32"], ANSWER)
    change(request)
    with pytest.raises(ValueError, match=message) as caught:
        features_of(request, FACTS["float32"], ANSWER)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_numbers_that_are_none(kind: str, bad: float) -> None:
    z = Z[kind].copy()
    z[3, 1, 2] = bad
    with pytest.raises(ValueError, match="finite"):
        features_of(request_of("m", FACTS[kind], z), FACTS[kind], ANSWER)
    with pytest.raises(ValueError, match="finite"):
        answer_of(response_of(request_of("m", FACTS[kind], z), FACTS[kind], z), FACTS[kind])


def test_a_request_may_name_the_answer() -> None:
    request = request_of("m", FACTS["float32"], Z["float32"])
    request.outputs.add(name="answer")
    assert features_of(request, FACTS["float32"], ANSWER).shape == (4, *SHAPE)


@pytest.mark.parametrize("what", ["inputs", "outputs", "raw_input_contents", "shape"])
def test_a_message_of_a_million_parts_is_refused_without_looking_at_each(what: str) -> None:
    """A few megabytes that take a second would keep everybody else waiting for it."""
    request = request_of("m", FACTS["float32"], Z["float32"])
    kind = {
        "inputs": messages.ModelInferRequest.InferInputTensor,
        "outputs": messages.ModelInferRequest.InferRequestedOutputTensor,
    }
    parts = request.inputs[0].shape if what == "shape" else getattr(request, what)
    parts.extend([kind[what]() if what in kind else b"" if what == "raw_input_contents" else 1] * 300_000)
    start = time.process_time()
    with pytest.raises(ValueError, match="expected"):
        features_of(request, FACTS["float32"], ANSWER)
    assert time.process_time() - start < 5e-3  # a look at each takes ten times as long, and the refusal none


def test_responses_that_are_none() -> None:
    facts = FACTS["float32"]
    response = response_of(request_of("m", facts, Z["float32"]), facts, Z["float32"])
    response.outputs.add(name="z")
    with pytest.raises(ValueError, match="expected one output, 'z', found 2"):
        answer_of(response, facts)
    with pytest.raises(ValueError, match="expected one output, 'z', found 0"):
        answer_of(messages.ModelInferResponse(), facts)


def test_a_tensor_without_dimensions_of_its_own() -> None:
    facts = TensorFacts("answer", "float32", ())
    request = request_of("m", facts, np.zeros(3, np.float32))
    assert features_of(request, facts, ANSWER).shape == (3,)
    request.inputs[0].ClearField("shape")
    with pytest.raises(ValueError, match="expected shape"):
        features_of(request, facts, ANSWER)
