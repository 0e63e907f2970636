# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from resumed import straight_and_resumed
from sfumato.defenses.mid import MID
from sfumato.defenses.tl_dmi import TLDMI
from sfumato.defenses.trap_mid import TrapMID
from sfumato.errors import ConfigError, ModelError
from sfumato.models.embedding import captured, last_linear
from sfumato.models.variational import Answers, GaussianLinear, VariationalBottleneck
from sfumato.target import FeaturesView, Target, WeightsView
from sfumato.train import assemble, restore
from steps import step_of

ANSWERS: tuple[Answers, ...] = ("mean", "sample", "expectation")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prepared(split: sf.Split, data: sf.Data, **arguments: object) -> tuple[MID, VariationalBottleneck]:
    """The defense and its bottleneck in a model, as training finds them."""
    defense = MID(**arguments)
    defense.prepare(split, data)
    return defense, layer_of(split)


def layer_of(model: nn.Module) -> VariationalBottleneck:
    (layer,) = [module for module in model.modules() if isinstance(module, VariationalBottleneck)]
    return layer


def white(target: Target, seed: int = 0) -> WeightsView:
    view = target.view("weights", stream(seed))
    assert isinstance(view, WeightsView)
    return view


def slow_divergence(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    rows = zip(mean.astype(float), std.astype(float), strict=True)
    return np.array([sum(-0.5 * (1 + 2 * math.log(s) - m**2 - s**2) for m, s in zip(*row, strict=True)) for row in rows])


def test_the_penalty_is_the_weighted_mean_of_the_training_pass(small_split: sf.Split, blobs: sf.Data) -> None:
    defense, layer = prepared(small_split, blobs, weight=0.3)
    seen: list[Tensor] = []
    layer.gaussian.register_forward_hook(lambda _, __, given: seen.append(given.detach()))
    step = step_of(small_split, defense)
    small_split(step.x * 0)  # another defense's pass
    mean, raw = seen[0].chunk(2, 1)
    expected = slow_divergence(mean.numpy(), np.log1p(np.exp(raw.numpy().astype(float) - 5))).mean()
    penalty = defense.penalty(step)
    assert penalty.item() == pytest.approx(0.3 * expected, rel=1e-4)
    penalty.backward()
    assert layer.gaussian.weight.grad is not None
    small_split(step.x * 0)
    defense.after_step(step)
    assert defense.shared.seen is None


def test_the_bottleneck_takes_the_place_of_the_last_linear_layer(small_split: sf.Split, blobs: sf.Data) -> None:
    _, layer = prepared(small_split, blobs)
    assert layer.gaussian.in_features == 256
    assert layer.gaussian.out_features == 256  # twice half of it
    assert [name for name, module in small_split.named_modules() if module is layer] == ["tail.6"]
    whole = sf.whole(nn.Linear(64, 2))
    whole.tail = nn.Sequential(nn.Flatten(), whole.tail)
    assert prepared(whole, blobs, width=3)[1].classifier.in_features == 3


@pytest.mark.parametrize("answers", ANSWERS)
class TestEveryAnswer:
    def target(self, small_split: sf.Split, blobs: sf.Data, answers: Answers) -> Target:
        return sf.harden(small_split, blobs, defenses=[MID(answers=answers, width=5)], epochs=1)

    def test_the_embedding_of_a_picture_is_its_mean_at_every_look(
        self, answers: Answers, small_split: sf.Split, blobs: sf.Data
    ) -> None:
        target, x = self.target(small_split, blobs, answers), torch.rand(4, 1, 8, 8, requires_grad=True)
        last = last_linear(target.split, x.detach())
        assert isinstance(last, GaussianLinear)
        first, second = white(target, 0).classify(x), white(target, 1).classify(x)
        assert first.embedding.shape == (4, 5)
        assert torch.equal(first.embedding, second.embedding)
        assert torch.equal(first.logits, second.logits) == (answers == "mean")
        first.logits[:, 0].sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0

    def test_answers_are_those_of_the_stream(self, answers: Answers, small_split: sf.Split, blobs: sf.Data) -> None:
        target, x = self.target(small_split, blobs, answers), torch.rand(4, 1, 8, 8)
        first, again, other = (target(x, stream(seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert torch.equal(first, other) == (answers == "mean")

    def test_the_weights_of_one_answer_serve_the_others(self, answers: Answers, small_split: sf.Split, blobs: sf.Data) -> None:
        trained = sf.harden(small_split, blobs, defenses=[MID(answers="mean")], epochs=2)
        again = assemble(small_split, blobs, [MID(answers=answers)], seed=3)
        restore(again, trained.state_dict(), source="a test")
        assert not any("shared" in name or "mid" in name for name in trained.state_dict())
        x = blobs.part("test").read(torch.arange(20)) / 255
        same = trained(x, stream()).softmax(1) - again(x, stream()).softmax(1)
        assert same.abs().max() < 0.2


def test_features_are_left_alone_and_known_to_be_the_same_at_every_look(small_split: sf.Split, blobs: sf.Data) -> None:
    target = sf.harden(small_split, blobs, defenses=[MID()], epochs=1)
    view = target.view("features", stream())
    assert isinstance(view, FeaturesView)
    assert view.deterministic
    assert target.protection.gaussian
    assert not target.protection.noise_std


def test_more_draws_are_nearer_to_the_expectation(small_split: sf.Split, blobs: sf.Data) -> None:
    x = torch.rand(6, 1, 8, 8)

    def spread(draws: int) -> float:
        target = assemble(small_split, blobs, [MID(answers="expectation", draws=draws)], seed=0)
        layer_of(target).gaussian.bias.data[128:] = 6.0
        return torch.stack([target(x, stream(seed)).exp() for seed in range(30)]).std(0).mean().item()

    assert spread(32) < 0.5 * spread(2)


def test_a_larger_weight_leaves_fewer_nats_and_training_learns_all_the_same(small_split: sf.Split, blobs: sf.Data) -> None:
    x, y = blobs.part("test").read(torch.arange(40)) / 255, blobs.part("test").labels[:40]
    settings = sf.Train(epochs=8, batch_size=16)
    nats = []
    for weight in (0.0, 0.1):
        target = sf.harden(small_split, blobs, defenses=[MID(weight, width=8, answers="mean")], train=settings)
        with captured(layer_of(target).gaussian) as given:
            assert (target(x).argmax(1) == y).float().mean() > 0.9
        nats.append(layer_of(target).distribution(given[0]).divergence.mean().item())
    assert nats[1] < 0.2 * nats[0]


def test_a_run_that_resumes_comes_to_the_same_bits(small_split: sf.Split, blobs: sf.Data, tmp_path: Path) -> None:
    straight, resumed = straight_and_resumed(MID, small_split, blobs, tmp_path)
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


@pytest.mark.parametrize("other", [TrapMID(), TLDMI(freeze="0")], ids=["trap_mid", "tl_dmi"])
def test_it_works_with_others_of_its_surface(other: sf.Defense, small_split: sf.Split, blobs: sf.Data) -> None:
    target = sf.harden(small_split, blobs, defenses=[other, MID(width=4)], epochs=1)
    assert last_linear(target.split, torch.zeros(1, 1, 8, 8)).in_features == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "weight must be >= 0 and finite, got -1.0"),
        ({"weight": math.nan}, "weight must be >= 0"),
        ({"width": 0}, "draws and width must be at least 1, got 8 and 0"),
        ({"draws": 0}, "draws and width must be at least 1"),
        ({"answers": "men"}, r"answers must be one of mean, sample, expectation, got 'men' \(did you mean 'mean'\?\)"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MID(**arguments)


def test_a_model_that_ends_in_no_linear_layer_is_refused(blobs: sf.Data) -> None:
    split = sf.whole(nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.ReLU()))
    with pytest.raises(ModelError, match=r"must be a torch.nn.Linear .* end the model in nn.Flatten and nn.Linear"):
        MID().prepare(split, blobs)
