# SPDX-License-Identifier: Apache-2.0
"""The tail as a model repository that Triton, KServe and MLServer load as it is.

    repository/
      settings.json           for MLServer: without workers of its own
      after-1f2e3d4c/
        config.pbtxt          for Triton, and for KServe with its Triton runtime
        model-settings.json   for MLServer, with a runtime of ours
        1/model.onnx          the bytes of tail.onnx

Source: the model configuration of Triton Inference Server; the model settings of MLServer.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from sfumato.deploy.bundle import REPOSITORY, TAIL
from sfumato.deploy.manifest import TYPES, VERSION, Manifest, TensorFacts

LARGEST_BATCH = 64
"""Pictures that a server computes at once at most."""
PREFERRED = (8, 32)
"""Batches that Triton does not wait any longer for more than."""
LONGEST_WAIT = 2_000
"""Microseconds that a request waits for others at most."""
_MLSERVER = {"parallel_workers": 0}  # workers of MLServer 1.7.1 do not start beside uvloop 0.23, and ONNX Runtime has threads
_RUNTIME = "sfumato.deploy.mlserver_runtime.Tail"


def write_repository(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Write the repository into a bundle that has its tail already.

    Args:
        folder: of the bundle.
        manifest: of the bundle; its files need not be complete.

    Returns:
        The paths written, in the bundle.
    """
    model = Path(REPOSITORY) / manifest.name
    version = model / VERSION / "model.onnx"
    (folder / version).parent.mkdir(parents=True)
    try:
        os.link(folder / TAIL, folder / version)  # the same bytes once, where the disk can
    except OSError:
        shutil.copyfile(folder / TAIL, folder / version)
    texts = {
        model / "config.pbtxt": triton_config(manifest),
        model / "model-settings.json": mlserver_settings(manifest),
        Path(REPOSITORY) / "settings.json": json.dumps(_MLSERVER) + "\n",
    }
    for path, text in texts.items():
        (folder / path).write_text(text, encoding="utf-8")
    return tuple(path.as_posix() for path in (version, *texts))


def triton_config(manifest: Manifest) -> str:
    """Return the configuration of the tail for Triton, a `ModelConfig` in the text format of protobuf.

    Args:
        manifest: of the bundle.
    """
    sizes = ", ".join(map(str, PREFERRED))
    return f"""name: {json.dumps(manifest.name)}
platform: "onnxruntime_onnx"
max_batch_size: {LARGEST_BATCH}
input [ {_triton_tensor(manifest.sent)} ]
output [ {_triton_tensor(manifest.answer)} ]
dynamic_batching {{
  preferred_batch_size: [ {sizes} ]
  max_queue_delay_microseconds: {LONGEST_WAIT}
}}
version_policy {{ specific {{ versions: [ {VERSION} ] }} }}
"""


def _triton_tensor(facts: TensorFacts) -> str:
    """Return an input or output, without the dimension of the batch, which Triton adds."""
    kind = f"TYPE_{TYPES[facts.type]}"
    return f"{{ name: {json.dumps(facts.name)} data_type: {kind} dims: [ {', '.join(map(str, facts.shape))} ] }}"


def mlserver_settings(manifest: Manifest) -> str:
    """Return the settings of the tail for MLServer, JSON.

    Args:
        manifest: of the bundle.
    """
    tensors = {"inputs": manifest.sent, "outputs": manifest.answer}
    told = {
        side: [{"name": facts.name, "datatype": TYPES[facts.type], "shape": [-1, *facts.shape]}]
        for side, facts in tensors.items()
    }
    settings = {
        "name": manifest.name,
        "implementation": _RUNTIME,
        "platform": "onnx",
        **told,
        "max_batch_size": LARGEST_BATCH,
        "max_batch_time": LONGEST_WAIT / 1e6,  # in seconds there
        "parameters": {"uri": f"./{VERSION}/model.onnx", "version": VERSION},
    }
    return json.dumps(settings, indent=2) + "\n"
