# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sfumato as sf
from sfumato.attacks.base import Adversary, FeatureAttack, hold_out
from sfumato.attacks.features.regression import Fitting
from sfumato.audit import facts, sample
from sfumato.data.base import REGION, Pictures
from sfumato.data.base import Reading as Reader
from sfumato.data.synthetic import Street
from sfumato.errors import ConfigError, UnknownNameError
from sfumato.target import Target
from sfumato.types import Reconstruction

QUICK = sf.Decoder(blocks=0, channels=4, fitting=Fitting(epochs=2))


class Blind(FeatureAttack):
    """Answers with gray whatever it sees: its error is known."""

    access = "features"

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        return (Reconstruction(torch.full((len(z), *adversary.image_shape), 0.5, device=z.device)),)


def test_every_attack_is_scored_on_both_parts_with_every_seed(small_split: sf.Split, blobs: sf.Data) -> None:
    made = sf.audit(small_split, blobs, attacks={"quick": QUICK, "white": sf.Likelihood(steps=2, pictures=5)}, seeds=[3, 4])
    found = [(r.name, r.part, r.selection, r.seed) for r in made.attacks]
    quick = [("quick", part, selection) for part in ("train", "inference") for selection in ("best", "last")]
    white = [("white", part, "only") for part in ("train", "inference")]
    assert sorted(found) == sorted((*row, seed) for row in quick + white for seed in (3, 4))
    assert {r.pictures for r in made.attacks if r.name == "white"} == {5}
    third, fourth = ({r.mse.value for r in made.attacks if r.name == "quick" and r.seed == seed} for seed in (3, 4))
    assert not third & fourth


def test_the_numbers_are_those_of_the_pictures(small_split: sf.Split, blobs: sf.Data) -> None:
    made = sf.audit(small_split, blobs, attacks=[Blind()])
    for result, part in zip(made.attacks, (hold_out(blobs.part("auxiliary"))[0], blobs.part("inference")), strict=True):
        x = part.read(torch.arange(len(part))) / 255
        error = (x - 0.5).square().mean().item()
        assert result.mse.value == pytest.approx(error, rel=1e-5)
        assert result.psnr.value == pytest.approx(-10 * torch.tensor(error).log10().item(), rel=1e-4)
        assert result.mse.low < error < result.mse.high
        assert result.queries == 0


def test_the_exhibits_are_the_pictures_and_what_was_made_of_them(small_split: sf.Split, blobs: sf.Data) -> None:
    made = sf.audit(small_split, blobs, attacks=[Blind()], pictures=7)
    sent, gray = ([e for e in made.exhibits if (e.attack == "blind") == blind] for blind in (False, True))
    assert [(e.part, len(e.pixels)) for e in sent] == [("train", 7), ("inference", 7)]
    assert all((e.pixels == 128).all() for e in gray)
    known = {bytes(p.numpy()) for p in blobs.part("inference").read(torch.arange(len(blobs.part("inference"))))}
    assert all(bytes(p.numpy()) in known for p in sent[1].pixels)


class Reading(FeatureAttack):
    """Reads the picture from features that are the picture: an exact inverse."""

    access = "features"

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        return (Reconstruction(z.clamp(0, 1)),)


def test_each_reconstruction_is_scored_against_its_own_picture(blobs: sf.Data) -> None:
    plain = sf.Split(torch.nn.Identity(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)))
    made = sf.audit(plain, blobs, attacks=[Reading()], pictures=20)
    assert [result.mse.value for result in made.attacks] == [0, 0]
    by_part = {part: [e.pixels for e in made.exhibits if e.part == part] for part in ("train", "inference")}
    assert all(torch.equal(*pixels) for pixels in by_part.values())


def test_the_victims_features_are_those_that_the_defense_lets_out(blobs: sf.Data) -> None:
    class Black(sf.Defense):
        name = "black"

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return z * 0

    plain = sf.Split(torch.nn.Identity(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)))
    made = sf.audit(Target(plain, sf.Compose(Black())), blobs, attacks=[Reading()])
    x = blobs.part("inference").read(torch.arange(len(blobs.part("inference")))) / 255
    assert made.attacks[1].mse.value == pytest.approx(x.square().mean().item(), rel=1e-5)


def test_an_audit_leaves_the_mode_of_its_target(small_split: sf.Split, blobs: sf.Data) -> None:
    small_split.train()
    sf.audit(small_split, blobs, attacks=[Blind()])
    assert all(module.training for module in small_split.modules())


def tagged(blobs: sf.Data) -> sf.Data:
    """The same pictures, whose private region is their left half, or nothing of them, and whose class is a tag too."""
    return replace(blobs, parts={name: _tagged(part) for name, part in blobs.parts.items()})


def _tagged(part: Pictures) -> Pictures:
    sides = (torch.zeros(len(part)), torch.zeros(len(part)), torch.full((len(part),), 8), 4 * (torch.arange(len(part)) % 3 > 0))
    return part.relabeled(part.labels, {"side": part.labels, **dict(zip(REGION, sides, strict=True))})


def test_the_error_is_told_inside_and_outside_the_private_region(small_split: sf.Split, blobs: sf.Data) -> None:
    data = tagged(blobs)
    made = sf.audit(small_split, data, attacks=[Blind()])
    part = data.part("inference")
    errors = (part.read(torch.arange(len(part))) / 255 - 0.5).square()
    private = part.tags["right"] > 0
    outside = torch.where(private, errors[..., 4:].mean((1, 2, 3)), errors.mean((1, 2, 3)))
    (found,) = [result.regions for result in made.attacks if result.part == "inference"]
    assert found["inside"].value == pytest.approx(errors[private][..., :4].mean().item(), rel=1e-5)
    assert found["outside"].value == pytest.approx(outside.mean().item(), rel=1e-5)
    assert found["inside"].low < found["inside"].value < found["inside"].high
    assert sf.audit(small_split, blobs, attacks=[Blind()], pictures=4).attacks[0].regions == {}


def test_a_side_that_no_picture_has_is_not_told(small_split: sf.Split, blobs: sf.Data) -> None:
    data = tagged(blobs)
    whole = {
        name: part.relabeled(part.labels, {**part.tags, "right": torch.full((len(part),), 8)})
        for name, part in data.parts.items()
    }
    made = sf.audit(small_split, replace(data, parts=whole), attacks=[Blind()], pictures=4)
    assert list(made.attacks[0].regions) == ["inside"]
    assert made.attacks[0].regions["inside"].value == pytest.approx(made.attacks[0].mse.value)


def test_a_recognizer_is_asked_about_every_reconstruction(blobs: sf.Data) -> None:
    plain = sf.Split(torch.nn.Identity(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)))
    read, blind, few = Reading(), Blind(), sf.Likelihood(steps=1, pictures=5)
    recognizer = sf.Recognizer(attribute="side", epochs=5)
    attacks = {"read": read, "blind": blind, "few": few}
    made = sf.audit(plain, tagged(blobs), attacks=attacks, recognizer=recognizer, pictures=30)
    told = {result.name: result.recognized for result in made.attacks if result.part == "inference"}
    assert all(found is not None and found.of == "side" for found in told.values())
    assert told["read"].accuracy.value == told["read"].on_real.value == 1  # type: ignore[union-attr]
    sides = sample(tagged(blobs), 30, 0)["inference"].tags["side"]
    assert told["blind"].chance == sides.bincount().max().item() / 30  # type: ignore[union-attr]
    assert told["blind"].accuracy.value in (sides.bincount().double() / 30).tolist()  # type: ignore[union-attr]
    assert told["few"].chance == sides[:5].bincount().max().item() / 5  # type: ignore[union-attr]


def test_a_recognizer_moves_no_other_number(small_split: sf.Split, blobs: sf.Data) -> None:
    asked = sf.audit(small_split, blobs, attacks=[Blind()], recognizer=sf.Recognizer(epochs=1), pictures=8)
    alone = sf.audit(small_split, blobs, attacks=[Blind()], pictures=8)
    assert [replace(result, recognized=None, seconds=0.0) for result in asked.attacks] == [
        replace(result, seconds=0.0) for result in alone.attacks
    ]


def test_a_recognizer_that_has_nothing_to_name_stops_an_audit_before_its_attacks(small_split: sf.Split, blobs: sf.Data) -> None:
    class Never(Blind):
        def fit(self, adversary: Adversary) -> None:
            pytest.fail("attacked")

    with pytest.raises(ConfigError, match="the pictures have no tag 'driver'; known: label"):
        sf.audit(small_split, blobs, attacks=[Never()], recognizer=sf.Recognizer(attribute="driver"))


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_must_be_different_numbers(seeds: list[int], small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="seeds must be one or more different numbers"):
        sf.audit(small_split, blobs, attacks=[Blind()], seeds=seeds)


def test_the_accuracy_is_that_of_the_target_as_deployed(small_split: sf.Split, blobs: sf.Data) -> None:
    class Wrong(sf.Defense):
        name = "wrong"

        def release(self, logits: Tensor) -> Tensor:
            return -logits

    trained = sf.harden(small_split, blobs, train=sf.Train(epochs=5, batch_size=32))
    assert sf.audit(trained, blobs, attacks=[Blind()]).accuracy.value == 1
    turned = Target(trained.split, sf.Compose(Wrong()))
    assert sf.audit(turned, blobs, attacks=[Blind()]).accuracy.value == 0


def test_the_seed_decides_every_number(small_split: sf.Split, blobs: sf.Data) -> None:
    target = sf.harden(small_split, blobs, defenses=[sf.Noise(sigma=0.2)], epochs=1)
    first, second = (sf.audit(target, blobs, attacks=[QUICK], seed=1) for _ in range(2))
    assert [r.mse for r in first.attacks] == [r.mse for r in second.attacks]
    assert first.accuracy == second.accuracy


def test_an_attack_that_is_added_does_not_change_the_others(small_split: sf.Split, blobs: sf.Data) -> None:
    alone = sf.audit(small_split, blobs, attacks=[QUICK])
    beside = sf.audit(small_split, blobs, attacks=[sf.Likelihood(steps=2), QUICK])
    assert [r.mse for r in alone.attacks] == [r.mse for r in beside.attacks if r.name == "decoder"]


def test_the_strongest_attack_is_the_one_with_the_lowest_error(small_split: sf.Split, blobs: sf.Data) -> None:
    made = sf.audit(small_split, blobs, attacks=[Blind(), sf.Likelihood(steps=300, learning_rate=0.02)])
    strongest = made.strongest()
    assert strongest is not None
    assert strongest.name == "likelihood"


def test_it_says_what_was_not_tested(small_split: sf.Split, blobs: sf.Data) -> None:
    said = " ".join(sf.audit(small_split, blobs, attacks=[QUICK]).untested)
    assert "'mirror'" in said
    assert "'likelihood'" in said
    assert "'decoder'" not in said
    assert "membership" in said
    assert "model inversion" in said
    assert "one seed" in said
    assert "one seed" not in " ".join(sf.audit(small_split, blobs, attacks=[Blind()], seeds=[0, 1]).untested)


def test_the_facts_of_a_target(small_split: sf.Split, blobs: sf.Data) -> None:
    target = sf.harden(small_split, blobs, defenses=[sf.Bottleneck(channels=2), sf.Noise(sigma=0.1)], epochs=1)
    found = facts(target, blobs)
    assert found.feature_shape == (2, 8, 8)
    assert found.bytes_per_picture == {"float32": 512, "float16": 256, "uint8": 128}
    assert found.head_parameters == (9 * 6 + 6) + (54 * 4 + 4) + (36 * 2 + 2)
    assert found.head_memory == 4 * found.head_parameters
    assert found.head_macs == 64 * (9 * 6 + 54 * 4 + 36 * 2)
    assert found.defenses == ("Bottleneck(channels=2, sigmoid=True)", "Noise(sigma=0.1, distribution='gaussian')")


def test_attacks_by_name_come_from_the_registry(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(UnknownNameError, match=r"no attack named 'decodr' \(did you mean 'decoder'\?\)"):
        sf.audit(small_split, blobs, attacks=["decodr"])


@pytest.mark.parametrize(
    ("attacks", "pictures", "message"),
    [
        ([], 5, "at least one attack"),
        ([QUICK, QUICK], 5, "two attacks named 'decoder'"),
        ([QUICK], 0, "pictures must be at least 1"),
    ],
)
def test_an_audit_of_nothing_is_refused(
    attacks: list[FeatureAttack], pictures: int, message: str, small_split: sf.Split, blobs: sf.Data
) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.audit(small_split, blobs, attacks=attacks, pictures=pictures)


def test_a_target_with_gaussian_noise_is_certified_and_another_says_that_it_is_not(small_split: sf.Split, blobs: sf.Data) -> None:
    unbounded = (
        "every other adversary: certificates are known only for features with Gaussian noise added and nothing else done to them"
    )
    for defenses, names in (([sf.Noise(sigma=0.1)], ["entropy", "fisher"]), ([sf.Dropout(p=0.1)], []), ([], [])):
        made = sf.audit(Target(small_split, sf.Compose(*defenses)), blobs, attacks=[QUICK], pictures=8)
        assert [certificate.name for certificate in made.certificates] == names
        assert (unbounded in made.untested) == (not names)


def test_the_entropy_of_the_pictures_turns_bits_into_a_floor(small_split: sf.Split, blobs: sf.Data) -> None:
    target = Target(small_split, sf.Compose(sf.Noise(sigma=0.1)))
    for given, floored in ((None, False), (-250.0, True), ("estimate", True)):
        made = sf.audit(target, blobs, attacks=[QUICK], pictures=8, entropy_of_x=given)  # type: ignore[arg-type]
        assert (made.certificates[0].floor is not None) == floored


def test_a_certificate_is_refuted_by_attacks_that_see_one_release_only(blobs: sf.Data) -> None:
    """The floor for one release of an identity head is its noise; a decoder knows pictures, and 64 releases average it away."""
    head = sf.Split(torch.nn.Identity(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)))
    target = Target(head, sf.Compose(sf.Noise(sigma=0.2)))
    fitting = Fitting(epochs=20, batch_size=32, patience=0)
    once = sf.Decoder(blocks=0, channels=8, fitting=fitting)
    often = sf.Averaging(releases=64, blocks=0, channels=8, fitting=fitting)
    made = sf.audit(target, blobs, attacks=[once, often], pictures=40)
    fisher, strongest, single = made.certificates[1], made.strongest(), made.strongest(once=True)
    assert fisher.floor == pytest.approx(0.04, rel=1e-3)
    assert strongest is not None
    assert single is not None
    assert (strongest.releases, single.releases) == (64, 1)
    assert strongest.mse.high < single.mse.low < fisher.floor
    assert made.beaten(fisher) is single
    assert made.beaten(made.certificates[0]) is None
    averaged = sf.audit(target, blobs, attacks=[often], pictures=40)
    assert averaged.beaten(averaged.certificates[1]) is None


@pytest.mark.gpu
def test_everything_runs_on_cuda(small_split: sf.Split, blobs: sf.Data) -> None:
    settings = sf.Train(epochs=2, batch_size=32, augment=sf.Augment(crop=1))
    target = sf.harden(
        small_split.to("cuda"),
        blobs,
        defenses=[
            sf.Bottleneck(channels=2),
            sf.CEM(),
            sf.DistCorr(weight=0.1),
            sf.Noise(sigma=0.1),
            sf.ResSFL(pretrain=1, blocks=0, channels=4),
            sf.NoiseARL(sigma=0.1, blocks=0, channels=4),
        ],
        train=settings,
    )
    quick = Fitting(epochs=2)
    gan = sf.Gan(blocks=0, channels=4, critic_channels=4, critic_steps=2, batch_size=32, epochs=2, fitting=quick)
    averaging = sf.Averaging(releases=4, blocks=0, channels=4, fitting=quick)
    made = sf.audit(target, blobs, attacks=[QUICK, sf.Mirror(fitting=quick), sf.Likelihood(steps=3), gan, averaging])
    assert [certificate.name for certificate in made.certificates] == ["entropy", "fisher"]
    assert target.device.type == "cuda"
    assert made.accuracy.value > 0.5


@pytest.mark.parametrize("cut", ["layer2", "layer4"])
def test_a_head_of_residual_stages_is_attacked_by_its_pictures_alone_and_with_its_weights(cut: str) -> None:
    data = Street(identities=4, test_identities=2, size=64).load(Reader())
    model = sf.build_model("resnet18", classes=4, shape=data.shape, options={"width": 0.1})
    attacks = [QUICK, sf.Mirror(fitting=Fitting(epochs=1)), sf.Likelihood(steps=2, pictures=2)]
    whole = sf.partition(data)
    target = sf.split(model, at=cut, example=torch.zeros(2, *data.shape))
    made = sf.audit(target, whole, attacks=attacks, recognizer=sf.Recognizer(attribute="driver", epochs=1), pictures=4)
    assert {result.name for result in made.attacks} == {"decoder", "mirror", "likelihood"}
    for result in made.attacks:
        assert set(result.regions) == {"inside", "outside"}
        assert result.recognized is not None
        assert result.recognized.of == "driver"
