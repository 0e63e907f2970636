# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from toy_bundles import OFFSET, SCALE, SHAPE, rehashed, rewrite, write_bundle

from sfumato.deploy.edge import Edge, as_input
from sfumato.deploy.manifest import Draw, TensorFacts, WireFormat
from sfumato.errors import BundleError, ConfigError, DataError

PICTURES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
X = PICTURES.astype(np.float32) / 255


@pytest.mark.parametrize("wire", ["float32", "float16", "uint8"])
def test_features_are_those_of_the_head_in_the_type_of_the_wire(tmp_path: Path, wire: WireFormat) -> None:
    write_bundle(tmp_path, wire=wire)
    z = Edge(tmp_path).features(PICTURES)
    assert (z.dtype, z.shape) == (np.dtype(wire), (5, *SHAPE))
    real = z.astype(np.float32) * SCALE + OFFSET if wire == "uint8" else z
    assert np.abs(real - 2 * X).max() < {"float32": 1e-6, "float16": 1e-3, "uint8": 0.51 * SCALE}[wire]


def test_bytes_and_floats_of_a_picture_are_one_picture(tmp_path: Path) -> None:
    write_bundle(tmp_path, sigma=0.5)
    edge = Edge(tmp_path, sticky=True)
    assert (edge.features(PICTURES) == edge.features(X)).all()


def test_noise_is_new_in_every_call_and_for_every_picture(tmp_path: Path) -> None:
    write_bundle(tmp_path, sigma=0.5)
    edge, same = Edge(tmp_path), np.repeat(PICTURES[:1], 3, 0)
    rows = np.concatenate([edge.features(same), edge.features(same), Edge(tmp_path).features(same)]).reshape(9, -1)
    assert len(np.unique(rows, axis=0)) == 9
    assert (np.diff(np.sort(rows, 0), axis=0) > 0).mean() > 0.9  # in all numbers but those equal by chance, not in some


def test_sticky_noise_repeats_for_identical_pictures_of_one_start_only(tmp_path: Path) -> None:
    write_bundle(tmp_path, sigma=0.5)
    edge = Edge(tmp_path, sticky=True)
    first = edge.features(PICTURES)
    assert (edge.features(PICTURES[::-1]) == first[::-1]).all()
    assert (Edge(tmp_path, sticky=True).features(PICTURES) != first).mean() > 0.9
    near = PICTURES.copy()
    near[:, 0, 0, 0] ^= 1
    noise, other = first - 2 * X, edge.features(near) - 2 * near.astype(np.float32) / 255
    assert (np.abs(noise - other) > 1e-4).mean() > 0.9


def test_many_pictures_are_the_same_as_one_after_another(tmp_path: Path) -> None:
    write_bundle(tmp_path, sigma=0.5)
    edge = Edge(tmp_path, sticky=True)
    many = np.random.default_rng(1).integers(0, 256, (150, *SHAPE), np.uint8)
    assert (edge.features(many) == np.concatenate([edge.features(many[at : at + 1]) for at in range(150)])).all()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((0, *SHAPE), np.uint8), "N from 1"),
        (np.zeros(SHAPE, np.uint8), "shape"),
        (np.zeros((1, 3, 4, 4), np.uint8), r"expected pictures of shape \(N, 1, 4, 4\)"),
        (np.zeros((1, 4, 4, 1), np.uint8), "shape"),
        (np.zeros((1, *SHAPE), np.float64), "got float64"),
        (np.zeros((1, *SHAPE), np.int64), "got int64"),
        (np.full((1, *SHAPE), 1.001, np.float32), "divide by 255"),
        (np.full((1, *SHAPE), -0.001, np.float32), "undo a normalization"),
        (np.full((1, *SHAPE), np.nan, np.float32), r"in \[0, 1\]"),
        (np.full((1, *SHAPE), np.inf, np.float32), r"in \[0, 1\]"),
    ],
)
def test_pictures_that_are_none_are_refused(pictures: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_input(pictures, TensorFacts("x", "float32", SHAPE))


def test_the_ends_of_the_range_are_pictures() -> None:
    x = as_input(np.array([[[[0, 255]]]], np.uint8), TensorFacts("x", "float32", (1, 1, 2)))
    assert x.tolist() == [[[[0.0, 1.0]]]]
    strided = np.zeros((2, 1, 4, 8), np.float32)[..., ::2]
    assert as_input(strided, TensorFacts("x", "float32", SHAPE)).flags.c_contiguous


@pytest.mark.parametrize(
    "change",
    [
        {"picture": TensorFacts("x", "float32", (1, 4, 5))},
        {"picture": TensorFacts("y", "float32", SHAPE)},
        {"sent": TensorFacts("z", "float32", (1, 16))},
        {"draws": ()},
        {"draws": (Draw("draw_0", "normal", (1, 4, 3)),)},
        {"draws": (Draw("draw_0", "normal", SHAPE), Draw("draw_1", "normal", SHAPE))},
    ],
    ids=str,
)
def test_a_head_that_is_not_the_one_of_the_manifest_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    made = write_bundle(tmp_path, sigma=0.5)
    rewrite(tmp_path, replace(made, **change))
    with pytest.raises(BundleError, match="the manifest says that the head"):
        Edge(tmp_path)


def test_a_head_for_one_picture_at_a_time_is_refused(tmp_path: Path) -> None:
    made = write_bundle(tmp_path)
    head = onnx.load_model_from_string((tmp_path / "head.onnx").read_bytes())
    for tensor in (*head.graph.input, *head.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / "head.onnx").write_bytes(head.SerializeToString())
    rehashed(tmp_path, made)
    with pytest.raises(BundleError, match=r"takes .*'N', 1, 4, 4.* but it takes .*\(1, 1, 4, 4\)"):
        Edge(tmp_path)


def test_a_device_needs_the_manifest_and_the_head_alone(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "tail.onnx").unlink()
    (tmp_path / "recipe.toml").unlink()
    assert Edge(tmp_path).features(PICTURES).shape == (5, *SHAPE)


def test_a_damaged_head_never_reaches_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path)
    content = bytearray((tmp_path / "head.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "head.onnx").write_bytes(bytes(content))

    def never(*given: object, **named: object) -> None:
        raise AssertionError("the runtime was started")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    with pytest.raises(BundleError, match="damaged"):
        Edge(tmp_path)


@pytest.mark.parametrize("threads", [-1, 0, 1025, 100_000])
def test_threads_out_of_range(tmp_path: Path, threads: int) -> None:
    write_bundle(tmp_path)
    with pytest.raises(ConfigError, match=f"threads must be from 1 to 1024, got {threads}"):
        Edge(tmp_path, threads=threads)


def test_the_head_runs_with_as_many_threads_as_asked_which_sleep_while_they_wait(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    options = Edge(tmp_path, threads=2)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
