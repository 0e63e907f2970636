# SPDX-License-Identifier: Apache-2.0
"""MLServer, in a process of its own, answers the same messages from the same bundles."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from running_server import good_request
from toy_bundles import OFFSET, SCALE, answers, write_bundle
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as stubs

from sfumato.deploy import protocol
from sfumato.deploy.manifest import Manifest
from sfumato.deploy.repository import write_repository

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mlserver") is None, reason="mlserver is not installed")
WIRES = ("float32", "float16", "uint8")
PATIENCE = 60.0


@dataclass(frozen=True)
class House:
    stub: stubs.GRPCInferenceServiceStub
    manifests: dict[str, Manifest]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("mlserver")
    repository = folder / "repository"
    manifests = {}
    for wire in WIRES:
        manifests[wire] = write_bundle(folder / wire, wire=wire, run=wire)
        write_repository(folder / wire, manifests[wire])
        shutil.copytree(folder / wire / "repository", repository, dirs_exist_ok=True)
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    settings = {"host": "127.0.0.1", "debug": "false", **ports}  # beside those that the export wrote
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        **{f"MLSERVER_{name.upper()}": str(one) for name, one in settings.items()},
    }
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(repository)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder) as process,
        grpc.insecure_channel(f"127.0.0.1:{ports['grpc_port']}") as channel,
    ):
        try:
            stub = stubs.GRPCInferenceServiceStub(channel)
            wait_until_ready(stub, process, folder / "log")
            yield House(stub, manifests)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(stub: stubs.GRPCInferenceServiceStub, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            if stub.ServerReady(messages.ServerReadyRequest(), timeout=5).ready:
                return
        except grpc.RpcError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-3000:])


def ask(house: House, wire: str, pictures: int, seed: int) -> None:
    manifest = house.manifests[wire]
    request, z = good_request(manifest, pictures, seed)
    answer = protocol.answer_of(house.stub.ModelInfer(request, timeout=PATIENCE), manifest.answer)
    real = z.astype(np.float32) * SCALE + OFFSET if wire == "uint8" else z.astype(np.float32)
    np.testing.assert_allclose(answer, answers(real), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wire", WIRES)
def test_answers_are_right_in_every_format(house: House, wire: str) -> None:
    ask(house, wire, 1, 0)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for one in [pool.submit(ask, house, wire, 1 + seed % 3, seed) for seed in range(30)]:
            one.result(PATIENCE)


@pytest.mark.parametrize("wire", WIRES)
def test_the_model_says_what_it_takes(house: House, wire: str) -> None:
    manifest = house.manifests[wire]
    told = house.stub.ModelMetadata(messages.ModelMetadataRequest(name=manifest.name), timeout=PATIENCE)
    assert [(one.name, one.datatype, list(one.shape)) for one in (*told.inputs, *told.outputs)] == [
        ("z", protocol.TYPES[wire], [-1, 1, 4, 4]),
        ("answer", "FP32", [-1, 2]),
    ]


@pytest.mark.parametrize("what", ["shape", "bytes", "type", "name", "NaN", "model", "claims more than it sends"])
def test_a_wrong_request_is_refused(house: House, what: str) -> None:
    manifest = house.manifests["float32"]
    request, z = good_request(manifest)
    if what == "shape":
        request.inputs[0].shape[:] = [1, 1, 2, 8]
    elif what == "bytes":
        request.raw_input_contents[0] = b"\0" * 60
    elif what == "type":
        request.inputs[0].datatype = "INT32"
    elif what == "name":
        request.inputs[0].name = "y"
    elif what == "NaN":
        request.raw_input_contents[0] = np.full_like(z, np.nan).tobytes()
    elif what == "model":
        request.model_name = "another"
    else:
        del request.raw_input_contents[:]
        request.inputs[0].contents.fp32_contents.extend(z.ravel().tolist())
        request.inputs[0].shape[0] = 2
    with pytest.raises(grpc.RpcError) as refused:
        house.stub.ModelInfer(request, timeout=PATIENCE)
    assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL)
    ask(house, "float32", 2, 1)


def test_nobody_gets_the_answers_of_others(house: House) -> None:
    """A request that claims two pictures and one that sends two cannot be batched around a third one."""
    manifest = house.manifests["float32"]
    outcomes = []

    def attack(claimed: int, sent: int) -> None:
        request, z = good_request(manifest, sent)
        del request.raw_input_contents[:]
        request.inputs[0].contents.fp32_contents.extend(z.ravel().tolist())
        request.inputs[0].shape[0] = claimed
        try:
            house.stub.ModelInfer(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            outcomes.append(error.code())

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        tries = [pool.submit(attack, *sizes) for sizes in [(2, 1), (1, 2)] * 10]
        tries += [pool.submit(ask, house, "float32", 1, seed) for seed in range(10)]
        for one in tries:
            one.result(PATIENCE)
    assert outcomes == [grpc.StatusCode.INVALID_ARGUMENT] * 20


def test_the_runtime_is_made_only_when_it_is_asked_for() -> None:
    """Both sides register the same messages: one process may import this package whole, and must not import MLServer by it."""
    code = "import sys, sfumato.deploy.mlserver_runtime as made; print('mlserver' in sys.modules); made.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip() == "False"
    assert "has no attribute 'nothing'" in done.stderr
