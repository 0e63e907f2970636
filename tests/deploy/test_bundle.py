# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from toy_bundles import rehashed, rewrite, write_bundle

from sfumato.deploy import bundle as bundles
from sfumato.deploy.bundle import HEAD, Half, open_bundle
from sfumato.deploy.edge import Edge
from sfumato.errors import BundleError

FILES = ["head.onnx", "tail.onnx", "recipe.toml"]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a session is made: what is refused is refused before."""

    def never(*given: object, **named: object) -> None:
        raise AssertionError("the runtime was started")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)


def refused(folder: Path, message: str) -> None:
    """Check that a bundle is refused on a device and on a server."""
    with pytest.raises(BundleError, match=message) as caught:
        Edge(folder)
    assert len(str(caught.value)) < 600
    with pytest.raises(BundleError):
        open_bundle(folder, "tail")


@pytest.mark.parametrize("half", ["head", "tail"])
def test_a_good_bundle_opens_with_the_bytes_of_the_half(tmp_path: Path, half: Half) -> None:
    made = write_bundle(tmp_path, sigma=0.5)
    opened = open_bundle(str(tmp_path), half)
    assert opened.manifest == made
    assert opened.model == (tmp_path / f"{half}.onnx").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_wherever_it_is(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path, sigma=0.5)
    content = (tmp_path / name).read_bytes()
    places = {0, len(content) - 1, *RNG.integers(0, len(content), 30).tolist()}
    for at in places:
        (tmp_path / name).write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        refused(tmp_path, "it is damaged or was changed; copy the bundle again")
    for end in (0, len(content) - 1):
        (tmp_path / name).write_bytes(content[:end])
        refused(tmp_path, "damaged")


def test_a_flipped_byte_of_the_manifest_is_found_at_every_place(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    content = (tmp_path / "manifest.json").read_bytes()
    for at in range(len(content)):
        (tmp_path / "manifest.json").write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        with pytest.raises(BundleError):
            open_bundle(tmp_path, "head")


@pytest.mark.parametrize("half", ["head", "tail"])
def test_the_half_that_runs_must_be_there_and_the_rest_need_not(tmp_path: Path, half: Half) -> None:
    made = write_bundle(tmp_path)
    for name in set(FILES) - {f"{half}.onnx"}:
        (tmp_path / name).unlink()
    assert open_bundle(tmp_path, half).model
    (tmp_path / f"{half}.onnx").unlink()
    with pytest.raises(BundleError, match=f"expected a bundle with {half}.onnx at .*No such file"):
        open_bundle(tmp_path, half)
    rewrite(tmp_path, replace(made, files={}))
    with pytest.raises(BundleError, match=f"expected {half}.onnx among the files"):
        open_bundle(tmp_path, half)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        refused(place, "expected a bundle with manifest.json at .*; make one with: sfumato export")
    (tmp_path / "manifest.json").mkdir()
    refused(tmp_path, "to be a file")


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "a/../../secret",
        "a/../head.onnx",
        "/etc/hostname",
        "..",
        "",
        ".",
        "./head.onnx",
        "a//b",
        "a/",
        "..\\secret",
        "C:\\a",
        "a\0b",
    ]
    + ["x" * 300, "link/secret", "outside", "circle/a"],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_path_that_climbs_out_is_refused(tmp_path: Path, name: str, there: bool) -> None:
    folder = tmp_path / "bundle"
    made = write_bundle(folder)
    if there:
        (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path)
    (folder / "outside").symlink_to(tmp_path / "secret")
    (folder / "circle").symlink_to(folder / "circle")
    rewrite(folder, replace(made, files={**made.files, name: "0" * 64}))
    refused(folder, "expected paths inside of the bundle")


def test_a_head_that_is_a_link_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    made = write_bundle(folder)
    (folder / HEAD).rename(tmp_path / HEAD)
    (folder / HEAD).symlink_to(tmp_path / HEAD)
    rehashed(folder, made)
    refused(folder, "inside of the bundle")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_bundle(tmp_path)
    with (tmp_path / HEAD).open("r+b") as file:
        file.truncate(bundles.LARGEST + 1)  # takes no room: nothing is written
    monkeypatch.setattr(Path, "read_bytes", _not_of(HEAD, Path.read_bytes))
    refused(tmp_path, f"at most {bundles.LARGEST} bytes")
    assert made.files[HEAD]


def _not_of(name: str, read: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    def checked(path: Path) -> bytes:
        assert path.name != name
        return read(path)

    return checked


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / HEAD).unlink()
    os.mkfifo(tmp_path / HEAD)
    refused(tmp_path, "to be a file")


def outside(location: str = "../secret", *, by_name: bool = True) -> TensorProto:
    """Return a tensor whose numbers are in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    if by_name:
        tensor.external_data.add(key="location", value=location)
    return tensor


def _initializer(model: ModelProto) -> None:
    model.graph.initializer.append(outside())


def _location_alone(model: ModelProto) -> None:
    model.graph.initializer.append(outside(by_name=False))


def _entry_alone(model: ModelProto) -> None:
    tensor = outside()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


def _inside_file(model: ModelProto) -> None:
    model.graph.initializer.append(outside("head.onnx"))


def _attribute(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside()))


def _attribute_list(model: ModelProto) -> None:
    node = model.graph.node.add(op_type="Other")
    node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(outside())


def _subgraph(model: ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [outside()])
    inner = helper.make_graph([helper.make_node("If", ["y"], ["w"], then_branch=branch, else_branch=branch)], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["y"], ["w"], then_branch=inner, else_branch=inner))


def _graph_list(model: ModelProto) -> None:
    node = model.graph.node.add(op_type="Other")
    node.attribute.add(name="many", type=onnx.AttributeProto.GRAPHS).graphs.append(
        helper.make_graph([], "g", [], [], [outside()])
    )


def _function(model: ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=outside())
    model.functions.append(helper.make_function("own", "F", [], ["c"], [constant], [helper.make_opsetid("", 18)]))


def _function_default(model: ModelProto) -> None:
    made = helper.make_function("own", "F", [], [], [], [helper.make_opsetid("", 18)])
    made.attribute_proto.append(helper.make_attribute("value", outside()))
    model.functions.append(made)


def _sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add().indices.CopyFrom(outside())


def _sparse_attribute(model: ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant")
    node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.values.CopyFrom(outside())


def _training(model: ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(outside())


PLACES = [
    _initializer,
    _location_alone,
    _entry_alone,
    _inside_file,
    _attribute,
    _attribute_list,
    _subgraph,
    _graph_list,
    _function,
    _function_default,
    _sparse,
    _sparse_attribute,
    _training,
]


@pytest.mark.parametrize("name", ["head.onnx", "tail.onnx"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_tensors_in_other_files_are_refused_wherever_they_are_named(
    tmp_path: Path, place: Callable[[ModelProto], None], name: str
) -> None:
    made = write_bundle(tmp_path / "bundle")
    (tmp_path / "secret").write_bytes(bytes(16))
    model = onnx.load_model_from_string((tmp_path / "bundle" / name).read_bytes())
    place(model)
    (tmp_path / "bundle" / name).write_bytes(model.SerializeToString())
    rehashed(tmp_path / "bundle", made)
    refused(tmp_path / "bundle", "to hold all its tensors, found some that are in other files")


@pytest.mark.parametrize("content", [b"\xff" * 9, b"no protobuf", b"\x3a\xff\xff\xff\xff\x0f"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    made = write_bundle(tmp_path)
    (tmp_path / HEAD).write_bytes(content)
    rehashed(tmp_path, made)
    refused(tmp_path, "expected an ONNX file")


def test_a_file_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    made = write_bundle(tmp_path)
    graph = b""
    for _ in range(3000):  # Graph.node of Node.attribute of Attribute.g
        for field in (0x32, 0x2A, 0x0A):
            graph = bytes([field]) + _varint(len(graph)) + graph
    (tmp_path / HEAD).write_bytes(b"\x3a" + _varint(len(graph)) + graph)
    rehashed(tmp_path, made)
    refused(tmp_path, "expected an ONNX file")


def _varint(number: int) -> bytes:
    out = b""
    while number >= 128:
        out, number = out + bytes([number % 128 + 128]), number // 128
    return out + bytes([number])


def test_the_files_of_a_repository_are_checked_too(tmp_path: Path) -> None:
    made = write_bundle(tmp_path)
    name = f"repository/{made.name}/1/model.onnx"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes((tmp_path / "tail.onnx").read_bytes())
    rehashed(tmp_path, replace(made, files={**made.files, name: ""}))
    assert open_bundle(tmp_path, "tail").model
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path, "damaged")
