# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from nets import small_net
from sfumato.data.resident import ResidentPictures
from sfumato.data.streamed import Spool, StreamedPictures
from sfumato.data.views import MOST, view
from sfumato.errors import ConfigError, ModelError, StorageError, WeightsError
from sfumato.reference import answer, oracle, reference_seed
from sfumato.target import Target


def training(data: sf.Data, seed: int) -> Target:
    net = sf.build_model("lenet5", classes=2, shape=(1, 8, 8), seed=seed)
    return sf.harden(sf.whole(net), data, epochs=1, seed=seed)


@pytest.fixture(scope="module")
def game(blobs: sf.Data) -> sf.Game:
    return sf.Game(sf.play(blobs, members=20))


class Named(sf.Defense):
    """A defense that answers with rounded logits."""

    name = "named"

    def release(self, logits: Tensor) -> Tensor:
        return logits.round(decimals=1)


def test_answers_are_those_of_the_deployed_target_in_eval_mode(game: sf.Game) -> None:
    target = Target(sf.whole(small_net()), sf.Compose(Named())).train()
    x = game.pool.read(torch.arange(40)) / 255
    found = answer(target, game.pool, views=3)
    assert target.training
    target.eval()
    with torch.no_grad():
        for number in range(3):
            assert torch.allclose(found.logits[:, number], target(view(x, number)), atol=1e-6)
    assert found.logits.shape == (40, 3, 2)
    assert found.sensitivity is None


def test_an_answer_does_not_depend_on_who_else_is_asked_about(game: sf.Game) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).train()
    whole = answer(Target(sf.whole(net), sf.Compose()), game.pool)
    few = answer(Target(sf.whole(net), sf.Compose()), game.pool.subset(torch.tensor([7, 3])))
    assert torch.allclose(whole.logits[[7, 3]], few.logits, atol=1e-6)


def test_sensitivity_is_the_slope_of_the_posteriors(game: sf.Game) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    target = Target(sf.whole(net), sf.Compose())
    found = answer(target, game.pool, sensitivity=True).sensitivity
    assert found is not None
    weights = (net[1].weight[1] - net[1].weight[0]).detach().double().numpy()
    with torch.no_grad():
        p = target(game.pool.read(torch.arange(40)) / 255).softmax(1).double().numpy()
    # posteriors of two classes move by p (1 - p) w.e, whose mean size over e ~ N(0, s^2 I) is p (1 - p) |w| s sqrt(2 / pi)
    expected = p * (1 - p) * np.linalg.norm(weights) * np.sqrt(2 / np.pi)
    assert found.mean().item() == pytest.approx(expected.mean(), rel=0.1)
    assert torch.allclose(found[:, 0], found[:, 1], atol=1e-3)


def test_the_perturbations_are_those_of_every_model(game: sf.Game) -> None:
    target = Target(sf.whole(small_net()), sf.Compose())
    first, second = (answer(target, game.pool, sensitivity=True).sensitivity for _ in range(2))
    assert torch.equal(first, second)


def test_asking_more_does_not_change_what_a_noisy_target_answered(game: sf.Game) -> None:
    target = Target(sf.split(small_net(), at="2"), sf.Compose(sf.Noise(sigma=0.5)))
    many = game.pool.subset(torch.arange(40).repeat(10))  # more than a batch
    plain, moved = (answer(target, many, sensitivity=asked) for asked in (False, True))
    assert torch.equal(plain.logits, moved.logits)


def test_answers_that_are_not_finite_are_refused_by_the_name_of_the_model(game: sf.Game) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.constant_(net[1].bias, float("nan"))
    with pytest.raises(ModelError, match="mine must answer with finite logits, found 40 of 40"):
        answer(Target(sf.whole(net, name="mine"), sf.Compose()), game.pool)


def test_views_are_mirrored_and_moved() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(view(x, 0), x)
    assert torch.equal(view(x, 1), x.flip(-1))
    assert torch.equal(view(x, 2)[..., 1:], x[..., :-1])
    assert torch.equal(view(x, 6)[..., 1:, :], x[..., :-1, :])
    views = {tuple(view(x, number).flatten().tolist()) for number in range(MOST)}
    assert len(views) == MOST
    with pytest.raises(ConfigError, match="views must be 1 to 18"):
        view(x, MOST)
    with pytest.raises(ConfigError, match="rows of a table"):
        view(torch.zeros(2, 5, 1, 1), 1)


def test_an_oracle_answers_with_labels_of_changed_pictures(game: sf.Game) -> None:
    target = Target(sf.whole(small_net()), sf.Compose())
    asked = oracle(target, game.pool, classes=2)
    x = asked.read(torch.tensor([5, 1]))
    assert torch.equal(x, game.pool.read(torch.tensor([5, 1])) / 255)
    assert asked.labels(x).tolist() == target.eval()(x).argmax(1).tolist()


def test_the_box_of_an_oracle_is_that_of_pictures_or_of_a_tables_features(game: sf.Game) -> None:
    target = Target(sf.whole(small_net()), sf.Compose())
    assert oracle(target, game.pool, classes=2).box == (0.0, 1.0)
    rows = torch.tensor([[-3.0, 5.0], [2.0, 5.0]])[:, :, None, None]
    table = oracle(target, ResidentPictures(rows, torch.arange(2)), classes=2)
    assert [bound.flatten().tolist() for bound in table.box] == [[-3.0, 5.0], [2.0, 5.0]]


@pytest.mark.parametrize("workers", [1, 2])
def test_references_are_the_training_of_their_halves(game: sf.Game, workers: int) -> None:
    found = sf.train_references(training, game, count=2, views=2, seed=5, workers=workers)
    assert torch.equal(found.keep, game.keep(2))
    for place in range(2):
        alone = training(game.trained_on(found.keep[place]), reference_seed(5, place))
        assert torch.equal(found.answers[place].logits, answer(alone, game.pool, views=2, seed=5).logits)
    assert not torch.equal(found.answers[0].logits, found.answers[1].logits)


def test_a_game_of_streamed_pictures_is_played_as_one_in_memory(tmp_path: Path) -> None:
    x, y = torch.randint(0, 256, (80, 1, 8, 8), dtype=torch.uint8), torch.arange(80) % 2
    spool = Spool(64, 80, tmp_path)
    spool.append(x.flatten().numpy())
    pictures = [StreamedPictures(spool, y, (1, 8, 8), torch.arange(80)), ResidentPictures(x, y)]
    found = []
    for one in pictures:
        parts = {name: one for name in ("train", "test", "private")}
        game = sf.Game(sf.play(sf.Data("mine", ("0", "1"), parts), members=30))
        found.append((game.pool.fingerprint, sf.train_references(training, game, count=2, workers=1)))
    assert found[0][0] == found[1][0]
    for a, b in zip(found[0][1].answers, found[1][1].answers, strict=True):
        assert torch.allclose(a.logits, b.logits, atol=1e-6)


def test_references_are_kept_in_a_file_and_those_of_another_game_refused(game: sf.Game, blobs: sf.Data, tmp_path: Path) -> None:
    made = sf.train_references(training, game, count=2, sensitivity=True, workers=1)
    path = sf.save_references(made, game, tmp_path / "references.safetensors")
    again = sf.load_references(path, game)
    assert torch.equal(again.keep, made.keep)
    assert again.adaptive
    for a, b in zip(again.answers, made.answers, strict=True):
        assert torch.equal(a.logits, b.logits)
        assert torch.equal(a.sensitivity, b.sensitivity)
    for other in (sf.Game(sf.play(blobs, members=20, seed=1)), sf.Game(game.data, seed=1)):
        with pytest.raises(ConfigError, match="of another recipe"):
            sf.load_references(path, other)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:200])
    with pytest.raises(WeightsError, match="whole safetensors file"):
        sf.load_references(tmp_path / "cut.safetensors", game)
    with pytest.raises(StorageError):
        sf.save_references(made, game, path / "below a file")
