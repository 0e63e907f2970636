# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import sfumato as sf
from nets import small_net
from sfumato.deploy.draws import Fresh, fill
from sfumato.deploy.export import export
from sfumato.deploy.manifest import WireFormat
from sfumato.errors import ExportError
from sfumato.target import Target


def target(*defenses: sf.Defense) -> Target:
    return Target(sf.split(small_net(), at="2").eval(), sf.Compose(*defenses))


@pytest.mark.parametrize("wire", ["float32", "float16", "uint8"])
@pytest.mark.filterwarnings("ignore")  # of ExecuTorch and what it imports
def test_the_program_sends_what_the_onnx_head_does(wire: WireFormat, blobs: sf.Data, tmp_path: Path) -> None:
    pytest.importorskip("executorch", exc_type=ImportError)
    from executorch.runtime import Runtime

    made = export(target(sf.Noise(sigma=0.1)), blobs, tmp_path / "bundle", wire=wire, only=True, executorch=True)
    assert "head.pte" in made.manifest.files
    method = Runtime.get().load_program(tmp_path / "bundle" / "head.pte").load_method("forward")
    head = onnxruntime.InferenceSession(tmp_path / "bundle" / "head.onnx")
    for place in range(4):
        x = blobs.part("test").read(torch.tensor([place])).float() / 255
        draws = fill(made.manifest.draws, x.numpy(), Fresh())
        (found,) = method.execute([x, *(torch.from_numpy(draw) for draw in draws.values())])
        (wanted,) = head.run(None, {"x": x.numpy(), **draws})
        assert str(found.dtype) == f"torch.{wire}" == f"torch.{wanted.dtype}"
        difference = np.abs(found.float().numpy() - wanted.astype(np.float32)).max()
        assert difference <= {"float32": 1e-4, "float16": 2e-3, "uint8": 1}[wire]


def test_without_executorch_the_extra_is_named(blobs: sf.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(ExportError, match=r'pip install "sfumato\[executorch\]"'):
        export(target(), blobs, tmp_path / "bundle", executorch=True)
    assert not (tmp_path / "bundle").exists()
