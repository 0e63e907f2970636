# SPDX-License-Identifier: Apache-2.0
"""Small bundles made with onnx alone: what server and edge are tested on, without PyTorch.

The head returns z = 2 x + sigma n, (N, 1, 4, 4), the tail returns z summed over its upper and its lower half: known answers for
any picture.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from sfumato.deploy import manifest as manifests
from sfumato.deploy.bundle import HEAD, RECIPE, TAIL
from sfumato.deploy.manifest import Draw, FormatFacts, Leak, Manifest, Parity, TensorFacts, WireFormat

SHAPE = (1, 4, 4)
SCALE, OFFSET = 4 / 255, -1.0
"""Of uint8 on the wire: z in [-1, 3]."""
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def write_bundle(folder: Path, *, sigma: float = 0.0, wire: WireFormat = "float32", run: str = "toy") -> Manifest:
    """Write a bundle into a folder, which is made.

    Args:
        folder: of the bundle.
        sigma: of the noise; 0 makes a head without random input.
        wire: numbers of z.
        run: name of the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {HEAD: _head(sigma, wire).SerializeToString(), TAIL: _tail(wire).SerializeToString(), RECIPE: b"seed = 0\n"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    halves = hashlib.sha256(files[HEAD] + files[TAIL]).hexdigest()
    sizes = {"float32": 64, "float16": 32, "uint8": 16}
    leak = Leak("decoder", "inference", {"mse": 0.1, "psnr": 10.0, "ssim": 0.2})
    made = Manifest(
        name=f"{run}-{halves[:8]}",
        run=run,
        task="classification",
        wire=wire,
        picture=TensorFacts("x", "float32", SHAPE),
        draws=(Draw("draw_0", "normal", SHAPE),) if sigma else (),
        sent=TensorFacts("z", wire, SHAPE),
        answer=TensorFacts("answer", "float32", (2,)),
        labels=("upper", "lower"),
        leak="a toy leaks everything",
        formats=(FormatFacts(wire, sizes[wire], {"accuracy": 1.0}, leak),),
        parity=Parity(16, 0.0, 0.0, 0, 1.0),
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        versions={"sfumato": "test"},
    )
    rewrite(folder, made)
    return made


def rewrite(folder: Path, manifest: Manifest) -> None:
    """Write a manifest as it is, right or wrong."""
    (folder / manifests.FILE).write_bytes(manifests.to_bytes(manifest))


def rehashed(folder: Path, manifest: Manifest) -> Manifest:
    """Return a manifest with the hashes of the files as they are now, as somebody malicious would, and write it."""
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest.files if (folder / name).exists()
    }
    made = replace(manifest, files={**manifest.files, **files})
    rewrite(folder, made)
    return made


def answers(z: np.ndarray) -> np.ndarray:
    """Return what the tail answers to z, (N, 1, 4, 4) float32: the sums of its upper and of its lower half."""
    return z.reshape(len(z), 2, 8).sum(2).astype(np.float32)


def _head(sigma: float, wire: WireFormat) -> ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])]
    nodes = [helper.make_node("Mul", ["x", "two"], ["clean"])]
    constants = {"two": np.float32(2)}
    if sigma:
        inputs.append(helper.make_tensor_value_info("draw_0", TensorProto.FLOAT, ["batch", *SHAPE]))
        nodes += [helper.make_node("Mul", ["draw_0", "sigma"], ["noise"]), helper.make_node("Add", ["clean", "noise"], ["kept"])]
        constants["sigma"] = np.float32(sigma)
    last = "kept" if sigma else "clean"
    if wire == "uint8":
        nodes += [
            helper.make_node("Sub", [last, "offset"], ["shifted"]),
            helper.make_node("Div", ["shifted", "scale"], ["steps"]),
            helper.make_node("Round", ["steps"], ["whole"]),
            helper.make_node("Clip", ["whole", "least", "most"], ["clipped"]),
        ]
        constants |= {"offset": np.float32(OFFSET), "scale": np.float32(SCALE), "least": np.float32(0), "most": np.float32(255)}
        last = "clipped"
    nodes.append(helper.make_node("Cast", [last], ["z"], to=_TYPES[wire]))
    outputs = [helper.make_tensor_value_info("z", _TYPES[wire], ["batch", *SHAPE])]
    return _model("head", nodes, inputs, outputs, constants)


def _tail(wire: WireFormat) -> ModelProto:
    inputs = [helper.make_tensor_value_info("z", _TYPES[wire], ["batch", *SHAPE])]
    outputs = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 2])]
    constants = {"shape": np.array([-1, 2, 8], np.int64), "axis": np.array([2], np.int64)}
    nodes = [helper.make_node("Cast", ["z"], ["floats"], to=TensorProto.FLOAT)]
    last = "floats"
    if wire == "uint8":
        nodes += [helper.make_node("Mul", [last, "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "offset"], ["real"])]
        constants |= {"offset": np.float32(OFFSET), "scale": np.float32(SCALE)}
        last = "real"
    nodes += [
        helper.make_node("Reshape", [last, "shape"], ["halves"]),
        helper.make_node("ReduceSum", ["halves", "axis"], ["answer"], keepdims=0),
    ]
    return _model("tail", nodes, inputs, outputs, constants)


def _model(name: str, nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> ModelProto:
    kept = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
