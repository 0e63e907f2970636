# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import toy_bundles
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sfumato.deploy import repository
from sfumato.deploy.manifest import WireFormat
from sfumato.deploy.repository import LARGEST_BATCH, LONGEST_WAIT, mlserver_settings, triton_config, write_repository

TRITON = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8"}


@pytest.mark.parametrize("wire", TRITON)
def test_triton_reads_the_configuration_as_it_is_meant(wire: WireFormat, tmp_path: Path) -> None:
    made = toy_bundles.write_bundle(tmp_path / "bundle", wire=wire)
    config = text_format.Parse(triton_config(made), model_config_pb2.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == (made.name, "onnxruntime_onnx", LARGEST_BATCH)
    (given,), (answer,) = config.input, config.output
    assert (given.name, model_config_pb2.DataType.Name(given.data_type), list(given.dims)) == ("z", TRITON[wire], [1, 4, 4])
    assert (answer.name, model_config_pb2.DataType.Name(answer.data_type), list(answer.dims)) == ("answer", "TYPE_FP32", [2])
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == LONGEST_WAIT
    assert list(config.version_policy.specific.versions) == [1]


def test_a_name_cannot_leave_its_quotes(tmp_path: Path) -> None:
    made = replace(toy_bundles.write_bundle(tmp_path / "bundle"), name='a" max_batch_size: 1 name: "b')
    assert text_format.Parse(triton_config(made), model_config_pb2.ModelConfig()).name == made.name


def test_mlserver_finds_its_runtime_and_the_file(tmp_path: Path) -> None:
    made = toy_bundles.write_bundle(tmp_path / "bundle", wire="uint8")
    settings = json.loads(mlserver_settings(made))
    assert (settings["name"], settings["implementation"]) == (made.name, "sfumato.deploy.mlserver_runtime.Tail")
    assert settings["inputs"] == [{"name": "z", "datatype": "UINT8", "shape": [-1, 1, 4, 4]}]
    assert settings["outputs"] == [{"name": "answer", "datatype": "FP32", "shape": [-1, 2]}]
    assert (settings["max_batch_size"], settings["max_batch_time"]) == (64, 0.002)
    assert settings["parameters"] == {"uri": "./1/model.onnx", "version": "1"}


@pytest.mark.parametrize("links", [True, False])
def test_the_repository_has_the_bytes_of_the_tail(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy_bundles.write_bundle(tmp_path / "bundle")
    if not links:

        def refuse(*_: object) -> None:
            raise OSError("this disk has no links")

        monkeypatch.setattr(repository.os, "link", refuse)
    written = write_repository(tmp_path / "bundle", made)
    base = f"repository/{made.name}"
    names = {f"{base}/1/model.onnx", f"{base}/config.pbtxt", f"{base}/model-settings.json", "repository/settings.json"}
    assert set(written) == names
    assert json.loads((tmp_path / "bundle" / "repository" / "settings.json").read_text()) == {"parallel_workers": 0}
    tail, model = tmp_path / "bundle" / "tail.onnx", tmp_path / "bundle" / base / "1" / "model.onnx"
    assert model.read_bytes() == tail.read_bytes()
    assert model.samefile(tail) == links
