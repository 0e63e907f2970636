# SPDX-License-Identifier: Apache-2.0
"""Several releases of each picture, from the recording to the audit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Fitting
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, ModelError
from sfumato.target import FeaturesView, Target
from sfumato.types import Reconstruction
from toys import attacked, error

QUICK = Fitting(epochs=2, batch_size=64)


def test_a_recording_averages_fresh_releases_and_counts_each(small_split: sf.Split, blobs: sf.Data) -> None:
    pictures, index = blobs.part("auxiliary"), torch.arange(40)
    view = Target(small_split, Compose(sf.Noise(sigma=0.3))).view("features", torch.Generator().manual_seed(0))
    assert isinstance(view, FeaturesView)
    clean = Target(small_split, Compose()).features(pictures.read(index) / 255)
    for releases in (1, 9):
        view.queries = 0
        noise = view.record(pictures, releases).draw(index) - clean
        assert noise.std().item() == pytest.approx(0.3 / releases**0.5, rel=0.03)
        assert view.queries == releases * 40


def test_it_averages_the_noise_away(blobs: sf.Data) -> None:
    network = {"blocks": 0, "channels": 8, "fitting": Fitting(epochs=20, batch_size=32, learning_rate=2e-2, patience=0)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Conv2d(1, 4, 3, padding=1)
    plain, noisy = (Target(sf.Split(head, nn.Flatten()), Compose(*parts)) for parts in ((), (sf.Noise(sigma=0.3),)))
    clean, single = (error(sf.Decoder(**network), target, blobs) for target in (plain, noisy))
    averaged = error(sf.Averaging(**network, releases=64), noisy, blobs)
    assert averaged < 1.5 * clean
    assert averaged < 0.6 * single


def test_against_a_target_without_chance_it_is_the_decoder(small_split: sf.Split, blobs: sf.Data) -> None:
    target = Target(small_split, Compose())
    same = type("Decoder", (sf.Averaging,), {})  # streams go by the name of the class
    found, expected = (attacked(kind(blocks=0, channels=4, fitting=QUICK), target, blobs) for kind in (same, sf.Decoder))
    assert found.queries == expected.queries
    for a, b in zip(found.reconstructions["inference"], expected.reconstructions["inference"], strict=True):
        assert torch.allclose(a.x_hat, b.x_hat, atol=1e-5)


class Looking(FeatureAttack):
    """Keeps what it is shown."""

    access = "features"
    seen: list[Tensor]

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        self.seen.append(z)
        return (Reconstruction(torch.zeros(len(z), *adversary.image_shape)),)


class LookingOften(Looking):
    """Keeps what it is shown of five releases."""

    @property
    def releases(self) -> int:
        return 5


def test_an_audit_shows_each_attack_as_many_releases_as_it_asks_for(small_split: sf.Split, blobs: sf.Data) -> None:
    once, often = type("Once", (Looking,), {"seen": []}), type("Often", (LookingOften,), {"seen": []})
    target = Target(small_split, Compose(sf.Noise(sigma=0.1)))
    sf.audit(target, blobs, attacks=[once(), often()], pictures=7)
    for single, several in zip(once.seen, often.seen, strict=True):
        assert single.shape == (7, 4, 8, 8)
        assert several.shape == (7, 5, 4, 8, 8)
        assert torch.equal(single, several[:, 0])
        assert several.std(1).mean().item() == pytest.approx(0.1, rel=0.1)


def test_repeated_releases_are_untested_until_they_are_tested(small_split: sf.Split, blobs: sf.Data) -> None:
    averaging = sf.Averaging(releases=2, blocks=0, channels=4, fitting=QUICK)
    noisy, plain = Target(small_split, Compose(sf.Noise(sigma=0.1))), Target(small_split, Compose())
    once = sf.Likelihood(steps=1)
    for target, attacks, said in ((noisy, [once], True), (noisy, [once, averaging], False), (plain, [once], False)):
        untested = sf.audit(target, blobs, attacks=attacks, pictures=5).untested
        assert ("repeated releases" in " ".join(untested)) == said


def test_a_single_release_and_too_many_gray_levels_are_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="releases must be at least 2, got 1; for a single one use the attack 'decoder'"):
        sf.Averaging(releases=1)
    with pytest.raises(ConfigError, match="gray_levels must be from 0 to 255, got 256"):
        sf.Averaging(gray_levels=256)
    attack = sf.Averaging(releases=3, blocks=0, channels=4, fitting=QUICK)
    with pytest.raises(ModelError, match=r"expected 3 releases of each picture, \(N, 3, \.\.\.\).*found \(2, 4, 8, 8\)"):
        attack(Target(small_split, Compose()), blobs.part("auxiliary"), {"inference": torch.zeros(2, 4, 8, 8)})
