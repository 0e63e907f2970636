# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import example_audits
import sfumato as sf
from example_reid import street, street_split
from nets import small_net
from sfumato.data.resident import ResidentPictures
from sfumato.deploy.exporting import formats
from sfumato.deploy.exporting.calibration import Wire
from sfumato.deploy.exporting.formats import (
    UNAUDITED,
    UNCUT,
    WIRES,
    Rounded,
    format_table,
    measure_format,
    on_wire,
    wire_for,
)
from sfumato.deploy.manifest import Leak, WireFormat
from sfumato.errors import ExportError
from sfumato.split import whole
from sfumato.target import Target
from sfumato.types import Audit
from sfumato.verdict import ONLY_BLIND

COARSE = Wire("uint8", torch.zeros(1), torch.full((1,), 0.5))


def target(*defenses: sf.Defense) -> Target:
    return Target(sf.split(small_net(), at="2").eval(), sf.Compose(*defenses))


def test_adversaries_see_rounded_features_and_differentiate_through_them() -> None:
    sending = on_wire(target(sf.Noise(sigma=0.1)), COARSE)
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(sending.features(x) % 0.5, torch.zeros(4, 4, 8, 8))
    x.requires_grad_()
    z = sending.features(x)
    assert torch.equal(z.detach() % 0.5, torch.zeros(4, 4, 8, 8))
    z.sum().backward()
    assert x.grad is not None
    wanted = torch.autograd.grad(target().split.head(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, wanted)
    assert not sending.protection.gaussian  # certificates of Gaussian noise do not hold
    assert sending.protection.noise_std == 0.1


def test_a_wire_that_rounds_nothing_is_the_target_itself() -> None:
    given = target()
    assert on_wire(given, Wire("float32")) is given


def test_a_sticky_target_stays_sticky() -> None:
    given = target(sf.Noise(sigma=0.1))
    given.sticky = True
    assert on_wire(given, COARSE).sticky


def test_rounding_describes_itself() -> None:
    assert repr(Rounded(COARSE)) == "Rounded(uint8)"


def test_ranges_come_from_private_pictures_and_no_others() -> None:
    def lit(light: int) -> ResidentPictures:
        return ResidentPictures(torch.randint(0, light, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 2)

    parts = {"train": lit(120), "private": lit(60), "test": lit(256), "auxiliary": lit(250), "inference": lit(250)}
    data = sf.Data("lit", ("a", "b"), parts)
    made = wire_for("uint8", Target(whole(small_net()), sf.Compose(Protected())), data, seed=0)
    assert (made.low + 255 * made.scale).item() == pytest.approx(1 + 60 / 255, rel=0.05)


@pytest.mark.parametrize(("most", "numbers", "taken"), [(512, 1 << 23, 96), (80, 1 << 23, 80), (512, 1, 64), (512, 80 * 256, 80)])
def test_ranges_come_from_as_many_pictures_as_can_be_sorted(
    most: int, numbers: int, taken: int, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_PICTURES", most)
    monkeypatch.setattr(formats, "_NUMBERS", numbers)
    assert len(formats._features(target(), blobs.part("private").subset(torch.arange(96)), 0)) == taken


class Protected(sf.Defense):
    name = "protected"

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return z + 1


@pytest.mark.parametrize("wire", WIRES)
def test_ranges_fit_what_is_sent(wire: WireFormat, blobs: sf.Data) -> None:
    given = target(sf.Noise(sigma=0.05))
    made = wire_for(wire, given, blobs, seed=0)
    x = blobs.part("private").read(torch.arange(64)).float() / 255
    with torch.no_grad():
        z = given.features(x, torch.Generator().manual_seed(5))
        assert made.wire == wire
        assert (made(z) - z).abs().mean() < 0.02


def test_a_format_is_measured_where_nothing_is_attacked(blobs: sf.Data) -> None:
    coarse, fine = (measure_format(target(), blobs, wire, seed=0) for wire in (COARSE, Wire("float32")))
    assert (coarse.bytes_per_picture, fine.bytes_per_picture) == (256, 1024)
    assert coarse.leak == UNAUDITED
    assert coarse.facts.leak is None
    assert set(coarse.facts.utility) == {"accuracy"}


def test_a_model_that_is_not_cut_is_said_to_send_the_picture(blobs: sf.Data) -> None:
    found = measure_format(Target(whole(small_net()).eval(), sf.Compose()), blobs, Wire("float32"), seed=0)
    assert (found.leak, found.bytes_per_picture) == (UNCUT, 256)


def test_what_an_attack_found_is_told(blobs: sf.Data) -> None:
    asked: list[tuple[Target, Wire]] = []

    def audited(sending: Target, wire: Wire) -> Audit:
        asked.append((sending, wire))
        return example_audits.audit(mse=0.02, accuracy=0.9)

    found = measure_format(target(), blobs, COARSE, seed=0, audited=audited)
    assert isinstance(list(asked[0][0].defense)[-1], Rounded)
    assert asked[0][1] is COARSE
    assert found.strongest is not None
    measured = found.strongest
    wanted = {"mse": measured.mse.value, "psnr": measured.psnr.value, "ssim": measured.ssim.value}
    assert found.facts.leak == Leak(measured.name, "inference", wanted)
    assert found.facts.utility == {"accuracy": 0.9}
    assert "The strongest attack" in found.leak
    heads, rows = format_table([found], "uint8")
    assert heads == ["uint8 (exported)"]
    assert [row.label for row in rows] == ["Accuracy", "Bytes of one z", "Strongest attack", "MSE", "PSNR", "SSIM"]
    assert rows[1].cells == ("256",)
    assert rows[3].cells[0].startswith("0.0200")


@pytest.mark.parametrize("sticky", [True, False])
@pytest.mark.parametrize("defenses", [(), (sf.Noise(sigma=0.1),)], ids=["exact", "noisy"])
def test_what_holds_for_sticky_devices_alone_says_so(sticky: bool, defenses: tuple[sf.Defense, ...], blobs: sf.Data) -> None:
    audit = example_audits.audit(mse=0.02)
    audit = replace(audit, target=replace(audit.target, sticky=sticky))
    found = measure_format(target(*defenses), blobs, COARSE, seed=0, audited=lambda *_: audit)
    assert ("run them with --sticky" in found.leak) == (sticky and bool(defenses))


def test_a_blind_attack_alone_tells_nothing(blobs: sf.Data) -> None:
    for defenses, bare in (((), "No defense protects what this head sends. "), ((sf.Noise(sigma=0.1),), "")):
        audit = sf.audit(target(*defenses), blobs, attacks=["mean"], pictures=4)
        audit = replace(audit, target=replace(audit.target, sticky=True))
        found = measure_format(target(*defenses), blobs, Wire("float32"), seed=0, audited=lambda sending, wire, one=audit: one)
        assert found.leak.startswith(f"{bare}{ONLY_BLIND} The target is right on")
        assert "--sticky" not in found.leak


@pytest.mark.parametrize("defenses", [(), (sf.Noise(sigma=0.1),)])
def test_a_head_without_a_defense_says_so_in_every_format(defenses: tuple[sf.Defense, ...], blobs: sf.Data) -> None:
    audit = sf.audit(target(*defenses), blobs, attacks=[sf.Likelihood(steps=2)], pictures=4)
    for wire in (Wire("float32"), COARSE):
        found = measure_format(target(*defenses), blobs, wire, seed=0, audited=lambda sending, wire: audit)
        assert found.leak.startswith("No defense protects") == (not defenses)


def test_reidentification_is_measured_by_its_ranks() -> None:
    found = measure_format(Target(street_split().eval(), sf.Compose()), street(), Wire("float16"), seed=0)
    assert list(found.utility) == ["rank-1", "rank-5", "rank-10", "mAP"]
    assert format_table([found], "float32")[1][0].label == "Rank-1"
    assert format_table([found], "float32")[1][2].cells == ("not audited",)


def test_a_protection_that_is_no_defense_is_refused() -> None:
    with pytest.raises(ExportError, match="expected a target with a defense of Sfumato"):
        on_wire(Target(target().split, torch.nn.Identity()), COARSE)
