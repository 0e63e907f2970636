# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from narrowing import Narrowing
from sfumato.data.game import play, require_disjoint
from sfumato.data.partition import partition
from sfumato.defenses.mcmia import MCMIA
from sfumato.defenses.minmax import MinMax
from sfumato.defenses.posteriors import answers
from sfumato.errors import ConfigError
from sfumato.files import read_tensors
from sfumato.models.inference import InferenceNetwork
from sfumato.seeds import ambient
from sfumato.split import Split, whole
from sfumato.train import assemble, fit
from sfumato.types import Step
from steps import step_of


def constant(member: int, other: int, data: sf.Data) -> sf.Data:
    """The data with one picture for all members and another for all others, so that it does not matter who is drawn."""
    train = data.part("train")
    return data.with_parts(private=train.subset(torch.full((9,), member)), reference=train.subset(torch.full((7,), other)))


def compared(data: sf.Data) -> sf.Data:
    return partition(data, reference=0.2)


def playing(defense: MinMax, split: Split, data: sf.Data) -> Step:
    """A step of a run whose adversary has played; from larger weights, so that it learns at once."""
    with ambient(0, "network"):
        network = InferenceNetwork(2, inputs=defense.inputs, deviation=None)
    defense.adversary._build = lambda *_: copy.deepcopy(network)
    with ambient(0, "play"):
        defense.begin(data)
        made = step_of(split, defense)
        defense.before_step(made)
    return made


def slow_h(network: InferenceNetwork, logits: Tensor, y: Tensor) -> np.ndarray:
    with torch.no_grad():
        logit = network(logits, torch.eye(logits.shape[1])[y]).double().numpy()
    return 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize("inputs", ["log_softmax", "sorted", "logits"])
@pytest.mark.parametrize("gain", ["log", "linear"])
def test_the_penalty_is_the_gain_on_the_batch_of_members(gain: str, inputs: str, small_split: sf.Split, blobs: sf.Data) -> None:
    defense = MinMax(2.5, gain=gain, inputs=inputs, warmup=0, learning_rate=0.01, batch_size=4, attack_steps=8)
    step = playing(defense, small_split, constant(0, 1, blobs))
    h = slow_h(defense.adversary._network, step.logits, step.y)
    assert np.abs(h - 0.5).max() > 1e-3, "an adversary that has learned nothing yet tests nothing"
    expected = np.log(h).mean() if gain == "log" else h.mean() - 0.5
    assert defense.penalty(step).item() == pytest.approx(2.5 * expected, abs=1e-6)


def test_the_model_gets_the_gradient_of_the_gain_and_the_adversary_none(small_split: sf.Split, blobs: sf.Data) -> None:
    defense = MinMax(2.5, warmup=0, learning_rate=0.01, attack_steps=8, batch_size=4)
    step = playing(defense, small_split, constant(0, 1, blobs))
    network = defense.adversary._network
    (found,) = torch.autograd.grad(defense.penalty(step), [step.logits], retain_graph=True)
    assert all(parameter.grad is None for parameter in network.parameters())

    def gain(shift: float) -> float:
        logits, label = step.logits.detach().double().clone(), torch.eye(2).double()[step.y]
        logits[3, 1] += shift
        return F.logsigmoid(copy.deepcopy(network).double()(logits, label)).mean().item()

    assert found[3, 1].item() == pytest.approx(2.5 * (gain(1e-5) - gain(-1e-5)) / 2e-5, rel=1e-3)


@pytest.mark.parametrize("clip", [math.inf, 1e-9])
def test_the_adversary_makes_steps_of_adam_up_its_gain_on_members_and_others(
    clip: float, small_split: sf.Split, blobs: sf.Data
) -> None:
    data = constant(0, 1, blobs)
    defense = MinMax(warmup=0, attack_steps=3, learning_rate=0.01, batch_size=5, clip=clip)
    playing(defense, small_split, data)
    with ambient(0, "network"):
        network = InferenceNetwork(2, deviation=None)
    start = copy.deepcopy(network.state_dict())

    x = data.part("train").read(torch.tensor([0] * 5 + [1] * 5)) / 255
    with torch.no_grad():
        logits = copy.deepcopy(small_split).eval()(x)
    label = torch.eye(2)[data.part("train").labels[[0] * 5 + [1] * 5]]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        h = network(logits, label).sigmoid()
        (-(h[:5].log().mean() + (1 - h[5:]).log().mean()) / 2).backward()  # minus Eq. (11)
        length = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in network.parameters()))
        for parameter in network.parameters():
            parameter.grad *= min(1.0, clip / length)
        optimizer.step()
    for name, value in network.state_dict().items():
        wrong = (defense.memory()[f"network.{name}"] - value).abs().mean()  # where Adam divides rounding by rounding it is large
        assert wrong < 0.01 * (value - start[name]).abs().mean(), name


def test_the_adversary_sees_a_model_that_is_deployed_and_leaves_no_trace_on_it(blobs: sf.Data) -> None:
    model = whole(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 2))).train()
    before, seen = copy.deepcopy(model.state_dict()), []
    model.tail[3].register_forward_hook(lambda module, given, out: seen.append((module.training, torch.is_grad_enabled())))
    defense = MinMax(warmup=0, attack_steps=2, batch_size=4)
    defense.begin(compared(blobs))
    step = step_of(model, defense)
    state = copy.deepcopy(model.state_dict())
    defense.before_step(step)
    assert seen == [(True, True), (False, False), (False, False)]
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(before["tail.1.running_mean"], state["tail.1.running_mean"]), "the step of the loop does count"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_adversary_sees_what_other_defenses_protect(small_split: sf.Split, blobs: sf.Data) -> None:
    class Silence(sf.Defense):
        name = "silence"

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return z * 0

    defense = MinMax(warmup=0)
    x = torch.rand(4, 1, 8, 8)
    plain = answers(small_split, defense._protect, x)
    sf.Compose(Silence(), defense).join(sf.Compose(Silence(), defense))
    silent = answers(small_split, defense._protect, x)
    assert not torch.equal(plain[0], plain[1])
    assert torch.equal(silent[0], silent[1])


class Watcher(sf.Defense):
    """Notes at each step how often the adversary has learned, and whether there is a gain."""

    name = "watcher"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, bool]] = []
        self.watched: tuple[MinMax, ...] = ()

    def join(self, whole: sf.Defense) -> None:
        self.watched = tuple(part for part in whole if isinstance(part, MinMax))

    def after_step(self, step: Step) -> None:
        (defense,) = self.watched
        learned = defense.memory().get("optimizer.0.step", torch.tensor(0.0))
        gain = None if step.epoch < defense.warmup else defense.penalty(step)
        self.seen.append((step.epoch, int(learned), gain is not None))


def test_it_warms_up_then_the_adversary_plays_alone_then_both(small_split: sf.Split, blobs: sf.Data) -> None:
    data = compared(blobs)
    target = assemble(small_split, data, [MinMax(warmup=1, passes=2, attack_steps=3, batch_size=50), Watcher()], seed=0)
    minmax, watcher = target.defense
    fit(target, data, sf.Train(epochs=3, batch_size=51), seed=0)
    assert len(data.part("private")) == 154
    alone = 2 * 4  # two passes of ceil(154 / 50) batches
    assert watcher.seen == [
        *((0, 0, False) for _ in range(3)),
        *((1 + place // 3, alone + 3 * (place + 1), True) for place in range(6)),
    ]  # 154 pictures are batches of 51, 51 and 52


def test_a_fine_tuning_begins_with_an_adversary_of_its_own(small_split: sf.Split, blobs: sf.Data) -> None:
    data = compared(blobs)
    target = assemble(small_split, data, [Narrowing(), MinMax(warmup=1, passes=1, batch_size=77), Watcher()], seed=0)
    fit(target, data, sf.Train(epochs=2, finetune=1, batch_size=77), seed=0)
    assert list(target.defense)[2].seen == [
        (0, 0, False), (0, 0, False), (1, 3, True), (1, 4, True), (2, 3, True), (2, 4, True),
    ]  # fmt: skip


def test_nothing_of_the_game_is_deployed(small_split: sf.Split, blobs: sf.Data) -> None:
    hardened = sf.harden(small_split, compared(blobs), defenses=[MinMax(warmup=0, passes=0)], epochs=1)
    (defense,) = hardened.defense
    assert defense._sides == ()
    assert defense.memory() == {}
    assert not [name for name in hardened.state_dict() if name.startswith("defense")]


def test_a_run_that_resumes_goes_on_to_the_same_bits(small_split: sf.Split, blobs: sf.Data, tmp_path: Path) -> None:
    data, settings = compared(blobs), sf.Train(epochs=3, batch_size=77)

    def run(path: Path, last: int | None = None) -> dict[str, Tensor]:
        def stop(done: int, total: int) -> None:
            if done == last:
                raise KeyboardInterrupt

        target = assemble(small_split, data, [MinMax(warmup=1, passes=1, batch_size=32)], seed=5)
        fit(target, data, settings, seed=5, checkpoint=path, watch=stop)
        return target.state_dict()

    expected = run(tmp_path / "whole")
    for epochs in (1, 2):
        path = tmp_path / f"{epochs}"
        with pytest.raises(KeyboardInterrupt):
            run(path, last=2 * epochs + 1)
        assert any(name.startswith("memory.minmax.network") for name in read_tensors(path)[0]) == (epochs == 2)
        found = run(path)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_members_others_and_who_is_asked_about_are_three_disjoint_sets(small_split: sf.Split, blobs: sf.Data) -> None:
    data = play(compared(blobs), members=50)
    target = assemble(small_split, data, [MinMax()], seed=0)
    target.defense.begin(data)
    members, others = next(iter(target.defense))._sides
    assert (len(members), len(others), len(data.part("nonmembers"))) == (50, 38, 50)
    for asked in (data.part("nonmembers"), data.part("test")):
        require_disjoint(members, asked)
        require_disjoint(others, asked)
    require_disjoint(members, others)


@pytest.mark.parametrize("structured", [False, True])
def test_pruning_and_the_game_go_together_and_the_gain_stays_on_in_retraining(
    structured: bool, small_split: sf.Split, blobs: sf.Data
) -> None:
    data = compared(blobs)
    pruning = MCMIA(4.0, structured=structured, pretrain=0.25, admm=0.5, every=1)
    target = assemble(small_split, data, [pruning, MinMax(warmup=1, passes=1, batch_size=32), Watcher()], seed=0)
    fit(target, data, sf.Train(epochs=4, finetune=1, batch_size=77), seed=0)
    seen = list(target.defense)[2].seen
    assert [gain for epoch, _, gain in seen] == [epoch > 0 for epoch, _, _ in seen]
    weights = [module.weight for module in target.split.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    left, all_of_them = sum(int(weight.count_nonzero()) for weight in weights), 54 + 216 + 512
    assert left <= (all_of_them / 2 if structured else all_of_them / 4 + 3)
    assert sum(weight.numel() for weight in weights) == (left if structured else all_of_them)


def test_it_makes_members_harder_to_tell_from_others() -> None:
    """A net that learns 100 noisy pictures by heart; over five seeds the AUC of the loss falls by 0.13 to 0.28."""
    stream = torch.Generator().manual_seed(3)
    y = torch.arange(600) % 4
    x = 0.12 * torch.rand(4, 1, 8, 8, generator=stream)[y] + 0.88 * torch.rand(600, 1, 8, 8, generator=stream)
    data = play(partition(sf.load_data((x, y)), reference=0.4), members=100)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    settings = sf.Train(epochs=25, batch_size=17, optimizer=sf.Optimizer(name="adam", learning_rate=4e-3, weight_decay=0.0))
    told = []
    for defenses in ([], [MinMax(3.0, batch_size=34)]):
        hardened = sf.harden(whole(net), data, defenses=defenses, train=settings)
        losses = []
        for name in ("private", "nonmembers"):
            part = data.part(name)
            with torch.no_grad():
                logits = hardened(part.read(torch.arange(len(part))) / 255)
            losses.append(F.cross_entropy(logits, part.labels, reduction="none"))
        told.append((losses[0][:, None] < losses[1][None]).float().mean().item())
    assert told[0] > 0.7
    assert told[1] < told[0] - 0.08


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, "gamma must be > 0 and finite and clip > 0, got 0.0 and 1.0; 3.0 and 1.0 are the defaults"),
        ({"gamma": math.inf}, "gamma must be > 0 and finite"),
        ({"clip": 0.0}, "clip > 0, got 3.0 and 0.0"),
        ({"gain": "squared"}, "gain must be one of log, linear, got 'squared'"),
        ({"inputs": "softmax"}, "inputs must be one of log_softmax, sorted, logits, got 'softmax'"),
        (
            {"attack_steps": 0},
            "attack_steps and batch_size must be at least 1, warmup and passes at least 0, got 0, 128, 1 and 5",
        ),
        ({"warmup": -1}, "warmup and passes at least 0, got 1, 128, -1 and 5"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0 and finite, got 0.0"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MinMax(**arguments)


def test_data_without_others_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match=r"minmax needs pictures that the target is not trained on, a part `reference`"):
        sf.harden(small_split, blobs, defenses=[MinMax()])


def test_a_run_that_ends_before_the_game_begins_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="minmax plays from epoch 2 on, but the run has 2; lower warmup"):
        sf.harden(small_split, compared(blobs), defenses=[MinMax(warmup=2)], epochs=2)
