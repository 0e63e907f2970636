# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from sfumato.deploy.exporting.calibration import Wire, calibrate
from sfumato.deploy.manifest import WireFormat
from sfumato.errors import ExportError


@pytest.mark.parametrize("shape", [(64, 3), (64, 3, 4, 4), (64, 3, 7)])
def test_each_channel_has_a_range_of_its_own(shape: tuple[int, ...]) -> None:
    widths = torch.tensor([1.0, 10.0, 100.0]).view(-1, *(1 for _ in shape[2:]))
    z = torch.rand(shape) * widths + widths
    wire = calibrate(z)
    assert wire.pack(z).dtype == torch.uint8
    assert ((wire(z) - z).abs() <= wire.half_step(z) * 1.01 + (wire.clipped(z) - z).abs()).all()
    assert torch.allclose(255 * wire.scale, widths.flatten(), rtol=0.15)


def test_a_rare_extreme_is_clipped_only_where_that_costs_less() -> None:
    z = torch.rand(50_000, 2)
    z[0] = torch.tensor([1.1, 3.0])  # clipping one number of 50,000 costs 2e-7 or 8e-5; a wider step costs 3e-7 or 1e-5
    width = 255 * calibrate(z).scale
    assert (width - torch.tensor([1.0, 3.0])).abs().max() < 0.01


@pytest.mark.parametrize("value", [0.0, -3.25, 1e30, 1e-42])
def test_a_constant_channel_is_kept_exactly(value: float) -> None:
    z = torch.cat([torch.full((8, 1), value), torch.rand(8, 1)], 1)
    wire = calibrate(z)
    assert torch.equal(wire(z)[:, 0], z[:, 0])
    assert (wire.scale > 0).all()


def test_what_is_out_of_range_saturates() -> None:
    wire = Wire("uint8", torch.tensor([-1.0]), torch.tensor([0.01]))
    assert wire.pack(torch.tensor([[-9.0], [9.0]])).flatten().tolist() == [0, 255]
    half = Wire("float16")
    assert half(torch.tensor([[1e6], [-1e6]])).flatten().tolist() == [65504.0, -65504.0]


@pytest.mark.parametrize("wire", ["float32", "float16"])
def test_half_a_step_bounds_the_rounding_of_floats(wire: WireFormat) -> None:
    z, made = torch.randn(10_000, 1) * 10 ** torch.empty(10_000, 1).uniform_(-9, 4), Wire(wire)
    clipped = made.clipped(z)
    assert ((made(z) - clipped).abs() <= made.half_step(clipped)).all()
    assert made.pack(z).dtype == (torch.float32 if wire == "float32" else torch.float16)


def test_half_a_step_is_what_rounding_to_codes_reaches() -> None:
    wire = Wire("uint8", torch.tensor([-1.0, 2.0]), torch.tensor([0.01, 0.1]))
    z = torch.rand(5000, 2) * torch.tensor([2.5, 25.0]) + wire.low
    assert ((wire(z) - z).abs() / wire.half_step(z)).amax(0).tolist() == pytest.approx([1, 1], rel=0.01)


def test_what_was_packed_is_no_memory_of_the_callers() -> None:
    z = torch.rand(2, 3)
    before = z.clone()
    Wire("float32")(z).zero_()
    assert torch.equal(z, before)


def test_ranges_go_with_uint8() -> None:
    with pytest.raises(ExportError, match="got uint8; use `calibrate`"):
        Wire("uint8")
    with pytest.raises(ExportError, match="got float16"):
        Wire("float16", torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize("z", [torch.tensor([[1.0], [torch.nan]]), torch.rand(4)])
def test_features_that_cannot_be_calibrated_are_refused(z: torch.Tensor) -> None:
    with pytest.raises(ExportError, match="expected finite features"):
        calibrate(z)
