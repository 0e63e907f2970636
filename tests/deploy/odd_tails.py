# SPDX-License-Identifier: Apache-2.0
"""Toy bundles whose tails answer as the toy does but take their time, or fail on what is too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from toy_bundles import rehashed, write_bundle

from sfumato.deploy.manifest import Manifest


def slow_bundle(folder: Path, layers: int = 8) -> Manifest:
    """A tail of convolutions whose result is multiplied by 0: each layer takes about 1.7 ms a picture on one core."""
    nodes = [
        helper.make_node("Resize", ["floats", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Conv", ["large", "first"], ["layer0"], pads=[1, 1, 1, 1]),
        *(helper.make_node("Conv", [f"layer{at}", "kernel"], [f"layer{at + 1}"], pads=[1] * 4) for at in range(layers)),
        helper.make_node("GlobalAveragePool", [f"layer{layers}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "zeros"], ["odd"]),
    ]
    kernel = np.random.default_rng(0).standard_normal((64, 64, 3, 3)) * 0.04
    constants = {
        "scales": np.array([1, 1, 16, 16], np.float32),
        "first": np.ones((64, 1, 3, 3), np.float32),
        "kernel": kernel.astype(np.float32),
        "zeros": np.zeros((64, 2), np.float32),
    }
    return _with_odd(folder, "slow", nodes, constants)


def failing_bundle(folder: Path) -> Manifest:
    """A tail that looks up a row for the largest number of its batch, and has none for those from 2."""
    nodes = [
        helper.make_node("ReduceMax", ["floats"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["row"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["odd"]),
    ]
    return _with_odd(folder, "failing", nodes, {"table": np.zeros((2, 1), np.float32)})


def _with_odd(folder: Path, run: str, nodes: list, constants: dict[str, np.ndarray]) -> Manifest:
    """Write a toy bundle whose answer has something added."""
    manifest = write_bundle(folder, run=run)
    model = onnx.load_from_string((folder / "tail.onnx").read_bytes())
    model.graph.node[-1].output[0] = "sums"
    model.graph.node.extend([*nodes, helper.make_node("Add", ["sums", "odd"], ["answer"])])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    (folder / "tail.onnx").write_bytes(model.SerializeToString())
    return rehashed(folder, manifest)
