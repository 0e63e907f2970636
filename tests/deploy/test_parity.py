# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato as sf
from nets import small_net
from sfumato import registry
from sfumato.deploy.exporting import parity
from sfumato.deploy.exporting.calibration import Wire, calibrate
from sfumato.deploy.exporting.halves import Halves, halve, head_file, tail_file
from sfumato.deploy.exporting.parity import Exported, Runtime, check_parity
from sfumato.deploy.exporting.welch import NoiseTest
from sfumato.deploy.manifest import WireFormat
from sfumato.errors import ExportError
from sfumato.target import Target

SHAPE = (1, 8, 8)


def pictures(count: int = 64) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(3))


def target(*defenses: sf.Defense) -> Target:
    return Target(sf.split(small_net(), at="2").eval(), sf.Compose(*defenses))


@cache
def made(wire: WireFormat = "uint8", *, sigma: float = 0.3) -> tuple[Halves, Exported]:
    """A noisy target with both of its files, correct."""
    defended = target(*([sf.Noise(sigma=sigma)] if sigma else []))
    code = calibrate(defended.features(pictures()).detach()) if wire == "uint8" else Wire(wire)
    halves = halve(defended, code, SHAPE)
    return halves, files_of(halves)


def files_of(halves: Halves) -> Exported:
    return Exported(head_file(halves), tail_file(halves))


def changed(halves: Halves, *, defense: sf.Defense | None = None, wire: Wire | None = None) -> Halves:
    """Other halves, as a wrong export would have them."""
    wrong = copy.deepcopy(halves)
    if defense is not None:
        wrong.head.target.defense = sf.Compose(defense)
    if wire is not None:
        wrong.head.wire = wire
    return wrong


@pytest.mark.parametrize("wire", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_a_right_export_passes(wire: WireFormat, sigma: float) -> None:
    halves, files = made(wire, sigma=sigma)
    found = check_parity(halves, files, pictures())
    assert found.pictures == 64
    assert max(found.features, found.answers) < 1e-5
    assert (found.draws, found.noise_p) == ((0, 1.0) if sigma == 0 else (20, found.noise_p))
    assert found.noise_p > 1e-3


def wider(wire: Wire) -> Wire:
    return Wire("uint8", wire.low, 1.05 * wire.scale)


def swapped(halves: Halves) -> Halves:
    wrong = copy.deepcopy(halves)
    conv = next(module for module in wrong.head.modules() if isinstance(module, torch.nn.Conv2d) and module.out_channels == 4)
    with torch.no_grad():
        for tensor in (conv.weight, conv.bias):
            assert tensor is not None
            tensor[[0, 1]] = tensor[[1, 0]].clone()
    return wrong


WRONG: dict[str, Callable[[Halves], Halves]] = {
    "sigma 5 % off": lambda halves: changed(halves, defense=sf.Noise(sigma=0.315)),
    "another scale": lambda halves: changed(halves, wire=wider(halves.head.wire)),
    "two channels swapped": swapped,
}


@pytest.mark.parametrize("what", WRONG)
def test_a_head_that_computes_something_else_is_refused(what: str) -> None:
    halves, files = made()
    with pytest.raises(ExportError, match="expected the exported head to send what PyTorch does.*found a difference of"):
        check_parity(halves, replace(files, head=head_file(WRONG[what](halves))), pictures())


def test_a_head_without_its_protection_is_refused() -> None:
    halves, files = made("float32")
    bare = copy.deepcopy(halves)
    bare.head.target.defense = sf.Compose()
    # the file takes the draw, and adds none of it
    bare.head.forward = lambda x, draws=(): bare.head.target.features(x) + 0 * draws[0]  # type: ignore[method-assign]
    with pytest.raises(ExportError, match="send what PyTorch does"):
        check_parity(halves, replace(files, head=head_file(bare)), pictures())


@pytest.mark.parametrize(("what", "of"), [("scale", "spread"), ("shift", "mean"), ("shape", "mean absolute deviation")])
def test_a_device_that_draws_otherwise_is_refused(what: str, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's own draws are tested, not only what is made of draws that are given."""
    halves, files = made()
    right = parity.fill

    def wrong(*arguments: object) -> dict[str, np.ndarray]:
        drawn = right(*arguments)["draw_0"]  # type: ignore[arg-type]
        other = np.random.default_rng(0).laplace(scale=2**-0.5, size=drawn.shape)
        return {"draw_0": {"scale": 1.05 * drawn, "shift": drawn + 0.05, "shape": other}[what].astype(np.float32)}

    monkeypatch.setattr(parity, "fill", wrong)
    with pytest.raises(ExportError, match=f"expected the noise of PyTorch, found another.*the {of} of"):
        check_parity(halves, files, pictures())


def test_a_tail_that_answers_something_else_is_refused() -> None:
    halves, files = made("float32")
    wrong = copy.deepcopy(halves)
    with torch.no_grad():
        next(module for module in wrong.tail.modules() if isinstance(module, torch.nn.Linear)).bias[0] += 1e-3
    with pytest.raises(ExportError, match="expected the exported tail to answer as PyTorch does.*found a difference of 0.00"):
        check_parity(halves, replace(files, tail=tail_file(wrong)), pictures())


def test_an_answer_that_jumps_counts_where_it_is_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    rounding = registry.create("defenses", "rounding", {"digits": 1})
    assert isinstance(rounding, sf.Defense)
    halves = halve(target(rounding), Wire("float32"), SHAPE)
    files = files_of(halves)
    assert check_parity(halves, files, pictures()).answers < 1e-5
    monkeypatch.setattr(parity, "_NUDGE", 10.0)
    with pytest.raises(ExportError, match="found 0 of 64: too few to compare"):
        check_parity(halves, files, pictures())


def scaled(halves: Halves, factor: float, *, shift: float = 0.0) -> Halves:
    """Halves whose features are so many times larger, their first channel moved by a share of their size."""
    other = copy.deepcopy(halves)
    conv = [module for module in other.head.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        conv.weight *= factor
        conv.bias *= factor  # type: ignore[operator]
        conv.bias[0] += shift * factor  # type: ignore[index]
    return other


@pytest.mark.parametrize("factor", [1e-8, 1e-4, 1.0, 1e4, 1e20])
def test_what_counts_as_equal_goes_with_the_size_of_features(factor: float) -> None:
    halves, files = made("float32", sigma=0.0)
    right, wrong = scaled(halves, factor), scaled(halves, factor, shift=2e-4)
    found = check_parity(right, replace(files, head=head_file(right)), pictures())
    assert found.features < 1e-5
    with pytest.raises(ExportError, match="send what PyTorch does.*in channel 0"):
        check_parity(right, replace(files, head=head_file(wrong)), pictures())


def test_answers_that_mostly_jump_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    halves, files = made("float32", sigma=0.0)
    for share, refused in ((0.4, True), (0.6, False)):
        steady = torch.arange(64) < share * 64
        monkeypatch.setattr(parity, "_steady", lambda *_, steady=steady: steady)
        with pytest.raises(ExportError, match="too few to compare") if refused else nullcontext():
            check_parity(halves, files, pictures())


def test_a_file_that_does_not_run_is_refused() -> None:
    halves, files = made("float32", sigma=0.0)
    with pytest.raises(ExportError, match="expected a file that ONNX Runtime runs, found that"):
        Runtime(b"no file")
    with pytest.raises(ExportError, match="expected a file that ONNX Runtime runs, found that"):
        check_parity(halves, files, torch.rand(8, 2, 8, 8))


def test_a_head_that_mixes_the_pictures_of_a_batch_is_refused() -> None:
    split = sf.Split(Centered(), torch.nn.Flatten())
    halves = halve(Target(split, sf.Compose()), Wire("float32"), SHAPE)
    with pytest.raises(ExportError, match="send what PyTorch does"):
        check_parity(halves, files_of(halves), pictures())


class Centered(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_noise_of_large_maps_is_compared_on_few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    halves, _ = made("float32")
    monkeypatch.setattr(parity, "_by_device", lambda draws, head, x, count: seen.append((len(x), count)) or torch.zeros(count, 1))
    monkeypatch.setattr(parity, "_by_torch", lambda halves, x, count, seed: torch.zeros(count, 1))
    monkeypatch.setattr(parity, "compare_noise", lambda mine, theirs: NoiseTest(1.0, ""))
    for side in (2, 8, 32, 128):
        large = replace(halves, feature_shape=(4, side, side))
        parity._compare_noise(large, Runtime, pictures(), 0)  # type: ignore[arg-type]
    assert seen == [(32, 64), (32, 20), (10, 4), (8, 4)]


def test_fewer_pictures_than_a_batch_are_enough() -> None:
    halves, files = made()
    assert check_parity(halves, files, pictures(3)).pictures == 3


def test_the_runtime_uses_one_thread() -> None:
    assert Runtime(made()[1].head)._session.get_session_options().intra_op_num_threads == 1
