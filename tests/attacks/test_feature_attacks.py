# SPDX-License-Identifier: Apache-2.0
"""What every attack on features keeps, a row each, and what each does to a toy whose answer is known."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato import registry
from sfumato.attacks.base import FeatureAttack, hold_out
from sfumato.attacks.features.likelihood import total_variation
from sfumato.attacks.features.regression import Fitting
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, ModelError
from sfumato.metrics import image
from sfumato.target import FeaturesView, LabelsView, LogitsView, Target, WeightsView
from sfumato.types import Reconstruction
from toys import attacked, error, linear_target, mean_error

QUICK = {"epochs": 2, "batch_size": 64}
ROWS: dict[str, dict[str, object]] = {
    "decoder": {"blocks": 1, "channels": 8, "fitting": QUICK},
    "decoder-reference": {"blocks": 0, "channels": 4},
    "mirror": {"fitting": QUICK},
    "gan": {"blocks": 0, "channels": 4, "fitting": QUICK, "epochs": 2, "batch_size": 64, "critic_channels": 4, "critic_steps": 3},
    "ensemble": {"residual": [[0, 4]], "fitting": QUICK},
    "averaging": {"releases": 3, "blocks": 0, "channels": 4, "fitting": QUICK},
    "averaging-near": {"releases": 3, "blocks": 0, "channels": 4, "fitting": QUICK},
    "likelihood": {"steps": 5, "pictures": 6},
    "decoder-white": {"blocks": 0, "channels": 4, "fitting": QUICK, "pictures": 6, "search": {"steps": 5}},
    "mirror-white": {"fitting": QUICK, "pictures": 6, "search": {"steps": 5}},
    "mean": {},
}


def made(name: str) -> FeatureAttack:
    attack = registry.create("attacks", name, ROWS[name])
    assert isinstance(attack, FeatureAttack)
    return attack


def test_every_attack_has_a_row() -> None:
    table = registry.TABLE["attacks"]
    assert set(ROWS) == {name for name, entry in table.items() if entry.path.startswith("sfumato.attacks.features.")}


@pytest.mark.parametrize("name", ROWS)
class TestEveryAttack:
    def test_returns_pictures_and_counts_its_cost(self, name: str, small_split: sf.Split, blobs: sf.Data) -> None:
        target, attack = Target(small_split, Compose(sf.Noise(sigma=0.1))), made(name)
        before = copy.deepcopy(target.state_dict())
        found = attacked(attack, target, blobs)
        for reconstruction in found.reconstructions["inference"]:
            assert reconstruction.x_hat.shape == (attack.limit or 8, 1, 8, 8)
            assert reconstruction.x_hat.min() >= 0
            assert reconstruction.x_hat.max() <= 1
        assert (found.queries > 0) == (name != "mean")
        assert found.seconds > 0
        assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())

    def test_the_same_seed_gives_the_same_bits(self, name: str, small_split: sf.Split, blobs: sf.Data) -> None:
        target, attack = Target(small_split, Compose(sf.Noise(sigma=0.1))), made(name)
        first, second = (attacked(attack, target, blobs).reconstructions["inference"] for _ in range(2))
        assert all(torch.equal(a.x_hat, b.x_hat) for a, b in zip(first, second, strict=True))

    def test_leaves_gradients_and_modes_as_they_are(self, name: str, small_split: sf.Split, blobs: sf.Data) -> None:
        target = Target(small_split, Compose())
        target.eval()
        attacked(made(name), target, blobs)
        assert not target.training
        assert all(parameter.grad is None for parameter in target.parameters())


def test_the_likelihood_attack_inverts_a_linear_head_exactly(blobs: sf.Data) -> None:
    attack = sf.Likelihood(steps=1500, learning_rate=0.02, smoothness=0.0)
    assert error(attack, linear_target(), blobs) < 1e-5


def test_the_decoder_inverts_a_linear_head(blobs: sf.Data) -> None:
    attack = sf.Decoder(blocks=0, channels=16, fitting=Fitting(epochs=60, batch_size=32, learning_rate=1e-2, patience=0))
    assert error(attack, linear_target(), blobs) < 0.25 * mean_error(blobs)


def test_the_mirror_inverts_a_convolution(blobs: sf.Data) -> None:
    target = Target(sf.Split(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten()), Compose())
    fitting = Fitting(epochs=60, batch_size=32, learning_rate=5e-2, weight_decay=0.0, patience=0)
    assert error(sf.Mirror(fitting=fitting), target, blobs) < 0.15 * mean_error(blobs)


def test_features_that_say_nothing_leave_the_decoder_at_the_mean_picture(blobs: sf.Data) -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] * 0

    target = Target(sf.Split(Nothing(), nn.Linear(4, 2)), Compose())
    attack = sf.Decoder(blocks=0, channels=8, fitting=Fitting(epochs=30, batch_size=32, patience=0))
    assert error(attack, target, blobs) > 0.9 * mean_error(blobs)


@pytest.mark.parametrize(
    "attack",
    [
        sf.Decoder(blocks=0, channels=16, fitting=Fitting(epochs=20, batch_size=32, patience=0)),
        sf.Mirror(fitting=Fitting(epochs=20, batch_size=32, patience=0)),
        sf.Likelihood(steps=200, learning_rate=0.02),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_an_undefended_target_leaks_more_than_a_defended_one(
    attack: FeatureAttack, small_split: sf.Split, blobs: sf.Data
) -> None:
    settings = sf.Train(epochs=3, batch_size=32)
    plain = sf.harden(small_split, blobs, train=settings)
    hardened = sf.harden(small_split, blobs, defenses=[sf.Bottleneck(channels=1), sf.Noise(sigma=0.5)], train=settings)
    assert error(attack, hardened, blobs) > 1.3 * error(attack, plain, blobs)


def test_the_adversary_sees_the_noise_and_asks_again_at_every_epoch(small_split: sf.Split, blobs: sf.Data) -> None:
    count = len(blobs.part("auxiliary"))
    attack = sf.Decoder(blocks=0, channels=4, fitting=Fitting(epochs=3, patience=0))
    assert attacked(attack, Target(small_split, Compose()), blobs).queries == count
    assert attacked(attack, Target(small_split, Compose(sf.Noise(sigma=0.1))), blobs).queries == 3 * count


def test_recordings_of_a_noisy_target_are_drawn_anew_and_those_of_another_kept(small_split: sf.Split, blobs: sf.Data) -> None:
    for defense, same in ((Compose(), True), (Compose(sf.Noise(sigma=0.1)), False)):
        target = Target(small_split, defense)
        view = target.view("features", torch.Generator().manual_seed(0))
        assert isinstance(view, FeaturesView)
        recording, index = view.record(blobs.part("auxiliary")), torch.arange(5)
        assert torch.equal(recording.draw(index), recording.draw(index)) == same
        x = blobs.part("auxiliary").read(index) / 255
        assert (recording.draw(index) - view.features(x)).abs().max() < (1e-6 if same else 1.0)


def test_a_recording_too_large_to_keep_says_the_same(
    small_split: sf.Split, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = torch.arange(5)
    drawn = []
    for kept in (4 << 30, 1):
        monkeypatch.setattr("sfumato.target.KEPT", kept)
        view = Target(small_split, Compose()).view("features", torch.Generator())
        assert isinstance(view, FeaturesView)
        drawn.append(view.record(blobs.part("auxiliary")).draw(index))
    assert torch.allclose(drawn[0], drawn[1], atol=1e-6)


def test_a_view_has_the_methods_of_its_level_only(small_split: sf.Split) -> None:
    target = Target(small_split, Compose())
    methods = ("labels", "logits", "features", "head")
    kinds = {"labels": LabelsView, "logits": LogitsView, "features": FeaturesView, "weights": WeightsView}
    for level, (access, kind) in enumerate(kinds.items(), start=1):
        view = target.view(access, torch.Generator())
        assert type(view) is kind
        assert [hasattr(view, method) for method in methods] == [place < level for place in range(4)]


def test_views_answer_through_the_defense_and_count(small_split: sf.Split) -> None:
    class Rounded(sf.Defense):
        name = "rounded"

        def release(self, logits: Tensor) -> Tensor:
            return logits.round()

    view = Target(small_split, Compose(Rounded())).view("logits", torch.Generator())
    assert isinstance(view, LogitsView)
    logits = view.logits(torch.rand(3, 1, 8, 8))
    assert torch.equal(logits, logits.round())
    assert view.labels(torch.rand(2, 1, 8, 8)).dtype == torch.int64
    assert view.queries == 5


class Diverging(Fitting):
    """A schedule that learns and then throws the network away."""

    def rate(self, epoch: float) -> float:
        return 1e-2 if epoch < self.epochs - 1 else 30.0


def test_best_is_the_best_epoch_and_last_the_last(small_split: sf.Split, blobs: sf.Data) -> None:
    attack = sf.Decoder(blocks=0, channels=8, fitting=Diverging(epochs=10, batch_size=32, patience=0))
    found = attacked(attack, Target(small_split, Compose()), blobs).reconstructions["inference"]
    x = blobs.part("test").read(torch.arange(8)) / 255
    errors = {made.selection: image.mse(made.x_hat, x).mean().item() for made in found}
    assert errors["best"] < 0.5 * errors["last"]


def test_the_blind_adversary_answers_with_the_mean_of_its_pictures(small_split: sf.Split, blobs: sf.Data) -> None:
    found = attacked(made("mean"), Target(small_split, Compose()), blobs).reconstructions["inference"][0].x_hat
    fitted, _ = hold_out(blobs.part("auxiliary"))
    expected = fitted.read(torch.arange(len(fitted))).double().mean(0) / 255
    assert torch.allclose(found.double(), expected.expand(8, -1, -1, -1), atol=1e-6)


def test_what_is_held_out_is_not_trained_on(blobs: sf.Data) -> None:
    auxiliary = blobs.part("auxiliary")
    fitted, held_out = hold_out(auxiliary)
    every = torch.arange(len(auxiliary))
    known = {bytes(row.numpy()) for row in auxiliary.read(every)}
    parts = [{bytes(row.numpy()) for row in part.read(torch.arange(len(part)))} for part in (fitted, held_out)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == known
    assert len(held_out) == round(0.1 * len(auxiliary))


def test_what_is_scored_chooses_nothing(small_split: sf.Split, blobs: sf.Data) -> None:
    attack = sf.Decoder(blocks=0, channels=8, fitting=Fitting(epochs=4, batch_size=64, patience=0))
    target, z = Target(small_split, Compose()).eval(), torch.rand(8, 4, 8, 8)
    alone = attack(target, blobs.part("auxiliary"), {"inference": z})
    beside = attack(target, blobs.part("auxiliary"), {"train": torch.zeros_like(z), "inference": z})
    for a, b in zip(alone.reconstructions["inference"], beside.reconstructions["inference"], strict=True):
        assert torch.equal(a.x_hat, b.x_hat)


def test_smoothness_makes_the_reconstruction_smooth(small_split: sf.Split, blobs: sf.Data) -> None:
    target = Target(small_split, Compose())
    variation = []
    for smoothness in (0.0, 10.0):
        found = attacked(sf.Likelihood(steps=60, learning_rate=0.05, smoothness=smoothness), target, blobs)
        variation.append(total_variation(found.reconstructions["inference"][0].x_hat).mean().item())
    assert variation[1] < 0.5 * variation[0]


def test_the_likelihood_of_a_picture_does_not_depend_on_the_others(small_split: sf.Split, blobs: sf.Data) -> None:
    target, attack = Target(small_split, Compose()).eval(), sf.Likelihood(steps=60)
    with torch.no_grad():
        z = target.features(blobs.part("test").read(torch.arange(6)) / 255)
    together, alone = (
        attack(target, blobs.part("auxiliary"), {"inference": some}).reconstructions["inference"][0].x_hat for some in (z, z[:1])
    )
    assert (together[:1] - alone).abs().max() < 0.02


@pytest.mark.parametrize(("value", "message"), [(5.0, r"in \[0, 1\], found 5 to 5"), (float("nan"), "found 8 of 8 that are not")])
def test_what_is_no_picture_is_refused(value: float, message: str, small_split: sf.Split, blobs: sf.Data) -> None:
    class Constant(FeatureAttack):
        access = "features"

        def reconstruct(self, adversary: object, z: Tensor) -> tuple[Reconstruction, ...]:
            return (Reconstruction(torch.full((len(z), 1, 8, 8), value)),)

    with pytest.raises(ModelError, match=message):
        attacked(Constant(), Target(small_split, Compose()), blobs)


def test_a_plateau_ends_the_training_of_a_decoder(small_split: sf.Split, blobs: sf.Data) -> None:
    told: list[tuple[int, int]] = []
    attack = sf.Decoder(blocks=0, channels=4, fitting=Fitting(epochs=50, patience=1, learning_rate=1e-9))
    target = Target(small_split, Compose())
    attack(
        target,
        blobs.part("auxiliary"),
        {"inference": torch.rand(2, 4, 8, 8)},
        watch=lambda done, total: told.append((done, total)),
    )
    assert 10 < len(told) < 20
    assert told[-1] == (50, 50)


def test_reconstructions_of_another_shape_are_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    class Wrong(FeatureAttack):
        access = "features"

        def reconstruct(self, adversary: object, z: Tensor) -> tuple[Reconstruction, ...]:
            return (Reconstruction(torch.zeros(1)),)

    with pytest.raises(ModelError, match=r"Wrong must return pictures of shape \(8, 1, 8, 8\), found \(1,\)"):
        attacked(Wrong(), Target(small_split, Compose()), blobs)


def test_total_variation_is_the_mean_length_of_the_gradient() -> None:
    x = torch.rand(1, 1, 3, 3)
    p = x[0, 0].double().numpy()
    slow = sum(((p[i + 1, j] - p[i, j]) ** 2 + (p[i, j + 1] - p[i, j]) ** 2 + 1e-8) ** 0.5 for i in range(2) for j in range(2))
    assert total_variation(x).item() == pytest.approx(slow / 4, rel=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [{"epochs": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"patience": -1}],
    ids=lambda a: next(iter(a)),
)
def test_fitting_refuses_what_makes_no_sense(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Fitting(**arguments)


def test_the_reference_recipe_is_that_of_the_release() -> None:
    fitting = Fitting.reference()
    assert (fitting.epochs, fitting.batch_size, fitting.weight_decay) == (50, 256, 1e-4)
    assert (fitting.rate(0.0), fitting.rate(25.0), fitting.rate(50.0)) == pytest.approx((1e-3, 5.05e-4, 1e-5))
