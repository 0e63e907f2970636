# SPDX-License-Identifier: Apache-2.0
"""A tail that is not what its manifest says is refused before anybody is answered."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from odd_tails import failing_bundle
from onnx import TensorProto, helper
from toy_bundles import answers, rehashed, rewrite, write_bundle

from sfumato.deploy.bundle import open_bundle
from sfumato.deploy.manifest import TensorFacts
from sfumato.deploy.serving import tails
from sfumato.deploy.serving.tails import load_tail
from sfumato.deploy.sessions import session_of
from sfumato.errors import BundleError, ConfigError


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_tail_answers(tmp_path: Path, threads: int) -> None:
    write_bundle(tmp_path)
    z = np.random.default_rng(0).random((5, 1, 4, 4), np.float32)
    np.testing.assert_allclose(load_tail(open_bundle(tmp_path, "tail"), threads)(z), answers(z), rtol=1e-5)


def test_the_largest_batch_is_run_before_anybody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    class Noting:
        def __init__(self, *given: object, **named: object) -> None:
            self._session = session_of(*given, **named)  # type: ignore[arg-type]

        def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
            ran.append(len(given["z"]))
            return self._session.run(names, given)

    monkeypatch.setattr(tails, "session_of", Noting)
    write_bundle(tmp_path)
    load_tail(open_bundle(tmp_path, "tail"), 1, most=7)
    assert ran == [2, 7]


def test_a_batch_that_does_not_fit_is_said(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with pytest.raises(ConfigError, match=r"--batch 1125899906842624: expected .* runs on so many pictures"):
        load_tail(open_bundle(tmp_path, "tail"), 1, most=1 << 50)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sent": TensorFacts("y", "float32", (1, 4, 4))}, "found one that fails on it"),
        ({"sent": TensorFacts("z", "float32", (1, 5, 4))}, r"takes z \(1, 5, 4\) of float32, found one that fails on it"),
        ({"answer": TensorFacts("logits", "float32", (2,))}, "found one that fails on it"),
        ({"answer": TensorFacts("answer", "float32", (3,))}, r"to answer \(2, 3\) of float32, found \(2, 2\)"),
    ],
)
def test_a_tail_of_another_manifest_is_refused(tmp_path: Path, changed, said: str) -> None:
    rewrite(tmp_path, replace(write_bundle(tmp_path), **changed))
    with pytest.raises(BundleError, match=said):
        load_tail(open_bundle(tmp_path, "tail"), 1)


def test_a_tail_of_another_format_is_refused(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "b")
    write_bundle(tmp_path / "other", wire="uint8")
    (tmp_path / "b" / "tail.onnx").write_bytes((tmp_path / "other" / "tail.onnx").read_bytes())
    rehashed(tmp_path / "b", manifest)
    with pytest.raises(BundleError, match="of float32, found one that fails on it"):
        load_tail(open_bundle(tmp_path / "b", "tail"), 1)


def test_a_tail_that_answers_in_other_numbers_is_refused(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    model = onnx.load_from_string((tmp_path / "tail.onnx").read_bytes())
    model.graph.node[-1].output[0] = "sums"
    model.graph.node.append(helper.make_node("Cast", ["sums"], ["answer"], to=TensorProto.DOUBLE))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    (tmp_path / "tail.onnx").write_bytes(model.SerializeToString())
    rehashed(tmp_path, manifest)
    with pytest.raises(BundleError, match=r"of float32, found \(2, 2\) of float64"):
        load_tail(open_bundle(tmp_path, "tail"), 1)


def test_what_no_runtime_can_load_is_refused(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    (tmp_path / "tail.onnx").write_bytes(b"")
    rehashed(tmp_path, manifest)
    with pytest.raises(BundleError, match="expected a tail in .* fails on it"):
        load_tail(open_bundle(tmp_path, "tail"), 1)


@pytest.mark.parametrize(("asked", "given"), [(0, 3), (2, 2)])
def test_no_number_of_threads_is_that_of_the_cores_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, given: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    write_bundle(tmp_path)
    session = session_of(open_bundle(tmp_path, "tail").model, threads=asked)
    assert session.get_session_options().intra_op_num_threads == given


def test_the_runtime_writes_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failing_bundle(tmp_path)
    run = load_tail(open_bundle(tmp_path, "tail"), 1)
    with pytest.raises(Exception, match="Gather"):  # ONNX Runtime's, and it would be on the standard error too
        run(np.full((1, 1, 4, 4), 1e6, np.float32))
    assert capfd.readouterr() == ("", "")
