# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest
import torch
from torch import nn

import sfumato as sf
from sfumato.batched import Network, batches_well, fit_together
from sfumato.data.game import Game, play
from sfumato.errors import ConfigError, TrainingError
from sfumato.target import Target
from sfumato.train import assemble, fit

SETTINGS = {
    "sgd": sf.Train(epochs=3, batch_size=32, optimizer=sf.Optimizer(learning_rate=0.02)),
    # batch norm over maps of one pixel multiplies rounding at every step
    "slow": sf.Train(epochs=3, batch_size=32, optimizer=sf.Optimizer(learning_rate=1e-3)),
    "adam": sf.Train(epochs=3, batch_size=32, optimizer=sf.Optimizer(name="adam", learning_rate=1e-3)),
}


def built(model: str, seed: int, data: sf.Data, device: str = "cpu") -> Target:
    options = {"width": 0.25} | ({"dropout": 0.0} if model == "vgg11" else {})
    net = sf.build_model(model, classes=2, shape=data.shape, options=options, seed=seed)
    return assemble(sf.whole(net.to(device)), data, [], seed=seed)


def members(game: Game, model: str, count: int = 4, device: str = "cpu") -> list[Network]:
    rows = [keep.nonzero()[:, 0] for keep in game.keep(count)]
    return [Network(built(model, seed, game.data, device), one, seed) for seed, one in enumerate(rows)]


@pytest.mark.parametrize(
    ("model", "optimizer"), [("lenet5", "sgd"), ("lenet5", "adam"), ("cnn4", "adam"), ("vgg11", "slow"), ("resnet20", "adam")]
)
def test_networks_trained_together_are_those_trained_one_by_one(blobs: sf.Data, model: str, optimizer: str) -> None:
    game, settings = Game(play(blobs, members=48)), SETTINGS[optimizer]
    together = members(game, model)
    history = fit_together(together, game.pool, settings)
    for place, (member, keep) in enumerate(zip(together, game.keep(4), strict=True)):
        alone = built(model, member.seed, blobs)
        facts = fit(alone, game.trained_on(keep), settings, seed=member.seed)
        assert [epoch.loss for epoch in history[place]] == pytest.approx([epoch.loss for epoch in facts], rel=1e-3)
        assert [epoch.accuracy for epoch in history[place]] == pytest.approx([epoch.accuracy for epoch in facts], abs=0.05)
        x = game.pool.read(torch.arange(96)) / 255
        with torch.no_grad():
            answers, expected, untrained = (net(x) for net in (member.target, alone, built(model, member.seed, blobs)))
        assert (answers - expected).norm() < 0.01 * (untrained - expected).norm()
        assert not member.target.training


def test_a_network_does_not_depend_on_the_others(blobs: sf.Data) -> None:
    game = Game(play(blobs, members=48))
    few, many = members(game, "lenet5", 2), members(game, "lenet5", 6)
    for group in (few, many):
        fit_together(group, game.pool, SETTINGS["sgd"])
    for a, b in zip(few, many[:2], strict=True):
        for name, value in a.target.state_dict().items():
            assert torch.allclose(value, b.target.state_dict()[name], atol=1e-5), name


def test_augmentation_is_that_of_each_network_by_itself(blobs: sf.Data) -> None:
    game = Game(play(blobs, members=48))
    settings = sf.Train(epochs=2, batch_size=32, augment=sf.Augment(crop=1, flip=True, rotation=5.0))
    together = members(game, "lenet5", 2)
    fit_together(together, game.pool, settings)
    for network, keep in zip(together, game.keep(2), strict=True):
        alone = built("lenet5", network.seed, blobs)
        fit(alone, game.trained_on(keep), settings, seed=network.seed)
        for name, value in alone.state_dict().items():
            assert torch.allclose(network.target.state_dict()[name], value, atol=1e-5), name


class Tied(nn.Module):
    """Two layers that are one, and a buffer that no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = self.first
        self.last = nn.Linear(64, 2)
        self.register_buffer("scale", torch.full((), 2.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(torch.relu(self.first(x.flatten(1) * self.scale))))


def test_tied_weights_and_passing_buffers_train_together_too(blobs: sf.Data) -> None:
    game, settings = Game(play(blobs, members=48)), SETTINGS["adam"]
    nets = [sf.whole(Tied()) for _ in range(2)]
    alone = [assemble(net, blobs, [], seed=0) for net in nets]
    rows = [keep.nonzero()[:, 0] for keep in game.keep(2)]
    pairs = zip(nets, rows, strict=True)
    together = [Network(assemble(net, blobs, [], seed=0), one, place) for place, (net, one) in enumerate(pairs)]
    fit_together(together, game.pool, settings)
    for place, (network, target, keep) in enumerate(zip(together, alone, game.keep(2), strict=True)):
        fit(target, game.trained_on(keep), settings, seed=place)
        for name, value in target.state_dict().items():
            assert torch.allclose(network.target.state_dict()[name], value, atol=1e-4), name


def test_a_stop_is_where_each_stops_by_itself(blobs: sf.Data) -> None:
    game, settings = Game(play(blobs, members=48)), sf.Train(epochs=3, stop=1, batch_size=32)
    (network, _), (alone, _) = (members(game, "lenet5", 2) for _ in range(2))
    (history,) = fit_together([network], game.pool, settings)
    assert len(history) == len(fit(alone.target, game.trained_on(game.keep(2)[0]), settings, seed=alone.seed)) == 1
    for name, value in alone.target.state_dict().items():
        assert torch.allclose(network.target.state_dict()[name], value, atol=1e-5), name


def test_what_cannot_train_together_is_refused(blobs: sf.Data) -> None:
    game = Game(play(blobs, members=48))
    group = members(game, "lenet5", 2)
    with pytest.raises(ConfigError, match="finetune = 2"):
        fit_together(group, game.pool, sf.Train(finetune=2))
    with pytest.raises(ConfigError, match="precision = 'bfloat16'"):
        fit_together(group, game.pool, sf.Train(precision="bfloat16"))
    with pytest.raises(ConfigError, match=r"as many pictures each, got \[20, 48\]"):
        fit_together([group[0], Network(group[1].target, torch.arange(20), 0)], game.pool, sf.Train())
    noisy = assemble(sf.whole(sf.build_model("lenet5", classes=2, shape=(1, 8, 8))), blobs, [sf.Noise(sigma=0.1)], seed=0)
    assert not batches_well(noisy, sf.Train())
    dropped = assemble(sf.whole(nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 2))), blobs, [], seed=0)
    with pytest.raises(ConfigError, match="dropout, which would draw otherwise in company"):
        fit_together([Network(dropped, torch.arange(48), 0)], game.pool, sf.Train())
    with pytest.raises(ConfigError, match="the defense Compose"):
        fit_together([Network(noisy, torch.arange(48), 0)], game.pool, sf.Train())


def test_a_loss_that_is_not_finite_names_the_network(blobs: sf.Data) -> None:
    group = members(Game(play(blobs, members=48)), "lenet5", 2)
    with torch.no_grad():
        group[1].target.split.tail.classifier.weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match="the loss of network 1 is"):
        fit_together(group, play(blobs, members=48).part("base"), SETTINGS["sgd"])


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_64_networks_train_four_times_faster_together_on_a_gpu() -> None:
    stream = torch.Generator().manual_seed(0)
    data = sf.load_data((torch.rand(5000, 3, 32, 32, generator=stream), torch.arange(5000) % 10))
    game, settings = Game(play(data, members=2000)), sf.Train(epochs=2, batch_size=64)
    rows = [keep.nonzero()[:, 0] for keep in game.keep(64)]
    seconds = {}
    for name in ("loop", "together", "loop", "together"):  # the first round warms up
        nets = [sf.whole(sf.build_model("cnn4", classes=10, shape=(3, 32, 32), seed=seed).cuda()) for seed in range(64)]
        group = [
            Network(assemble(net, data, [], seed=seed), one, seed) for seed, (net, one) in enumerate(zip(nets, rows, strict=True))
        ]
        torch.cuda.synchronize()
        start = time.perf_counter()
        if name == "together":
            fit_together(group, game.pool, settings)
        else:
            for member, keep in zip(group, game.keep(64), strict=True):
                fit(member.target, game.trained_on(keep), settings, seed=member.seed)
        torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - start
    assert seconds["loop"] > 4 * seconds["together"], seconds
