# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

import sfumato
from sfumato.deploy.exporting import onnx_files
from sfumato.deploy.exporting.onnx_files import onnx_file, silence
from sfumato.errors import ExportError


class Sum(nn.Module):
    def forward(self, x: Tensor, others: tuple[Tensor, ...] = ()) -> Tensor:
        return sum(others, x)


def test_a_file_takes_any_batch_and_tells_nothing_of_where_it_was_made() -> None:
    first, again = (onnx_file(Sum(), [torch.zeros(2, 3), torch.zeros(2, 3)], ["x", "draw_0"], output="z") for _ in range(2))
    assert first == again
    for told in (str(Path.cwd()), str(Path(sfumato.__file__).parent), "site-packages", __name__, "def forward"):
        assert told.encode() not in first
    session = onnxruntime.InferenceSession(first)
    for size in (1, 2, 7, 64):
        x = torch.rand(size, 3)
        (z,) = session.run(None, {"x": x.numpy(), "draw_0": x.numpy()})
        assert torch.equal(torch.from_numpy(z), 2 * x)
    graph = onnx.load_from_string(first).graph
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)} == {"batch"}


@pytest.mark.parametrize("descending", [True, False])
def test_a_stable_sort_keeps_equals_in_their_order(descending: bool) -> None:
    class Order(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argsort(dim=1, descending=descending, stable=True)

    x = torch.randint(4, (64, 50)).float()
    (found,) = onnxruntime.InferenceSession(onnx_file(Order(), [x[:2]], ["z"], output="answer")).run(None, {"z": x.numpy()})
    assert torch.equal(torch.from_numpy(found), Order()(x))


class Drawing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class OfTwo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


@pytest.mark.parametrize(
    ("module", "message"),
    [(Drawing(), "no random operation"), (Branching(), "traceable"), (OfTwo(), "batch of any size|traceable")],
)
def test_what_would_compute_something_else_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        onnx_file(module, [torch.rand(2, 3)], ["z"], output="answer")


@pytest.mark.parametrize("kind", ["RandomNormal", "RandomUniformLike", "Multinomial", "Bernoulli"])
@pytest.mark.parametrize("place", ["graph", "branch", "branch of a branch", "function"])
def test_a_random_operation_is_found_wherever_it_is(kind: str, place: str) -> None:
    model = onnx.load_from_string(onnx_file(nn.Identity(), [torch.rand(2, 3)], ["x"], output="z"))
    node = helper.make_node(kind, ["x"], ["r"], doc_string="told")
    if place == "function":
        model.functions.append(helper.make_function("own", "F", ["x"], ["r"], [node], []))
    for depth in range(place.count("branch")):
        inner = helper.make_graph([node], "inner", [], [helper.make_tensor_value_info("r", 1, [2], "told")], doc_string="told")
        node = helper.make_node("If", ["c"], [f"r{depth}"], then_branch=inner, else_branch=inner)
    if place != "function":
        model.graph.node.append(node)
    onnx_files._strip(model)
    assert b"told" not in model.SerializeToString()
    with pytest.raises(ExportError, match=f"found {kind}"):
        onnx_files._check(model)


def test_silence_ends(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with silence():
        print("said")
        warnings.warn("warned", stacklevel=1)
        logging.getLogger("torch.onnx").warning("logged")
    assert (capsys.readouterr().out, caplog.text) == ("", "")
    logging.getLogger("torch.onnx").warning("logged")
    assert "logged" in caplog.text
