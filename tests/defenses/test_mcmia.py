# SPDX-License-Identifier: Apache-2.0
"""MCMIA in the training loop: when it does what, what stays zero, and what goes on after an interruption."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from nets import small_net
from sfumato import registry
from sfumato.data.base import Data
from sfumato.defenses.mcmia import MCMIA
from sfumato.errors import ConfigError, ModelError
from sfumato.files import read_tensors, write_tensors
from sfumato.pruning.sparse import compression
from sfumato.pruning.weights import single
from sfumato.recipe import parse_recipe
from sfumato.settings import Optimizer, Train
from sfumato.split import Split
from sfumato.train import assemble, fit, restore
from sfumato.types import Epoch, Step
from sfumato.utility import accuracy
from steps import step_of

QUICK = Train(epochs=6, batch_size=64, optimizer=Optimizer(learning_rate=0.02))
X = torch.rand(5, 1, 8, 8)


class Normed(nn.Module):
    """A residual block between convolutions with batch norm, and a hidden linear layer with one too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.hidden, self.last_norm, self.classifier = nn.Linear(8 * 16, 24), nn.BatchNorm1d(24), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.inner(self.conv(x)))
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        return self.classifier(torch.relu(self.last_norm(self.hidden(x))))


def normed(at: str | None = None) -> Split:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Normed()
    return sf.whole(net) if at is None else sf.split(net, at=at)


class Spy(sf.Defense):
    """Notes what the other part adds to the loss, and how many weights are zero, step by step."""

    name = "spy"

    def __init__(self) -> None:
        super().__init__()
        self.penalties: list[list[bool]] = []
        self.zeros: list[list[int]] = []

    def join(self, whole: sf.Defense) -> None:
        self.mcmia = [part for part in whole if isinstance(part, MCMIA)]  # type: ignore[attr-defined]

    def begin_epoch(self, epoch: Epoch) -> None:
        self.penalties.append([])
        self.zeros.append([])

    def before_step(self, step: Step) -> None:
        self.penalties[-1].append(self.mcmia[0].penalty(step) is not None)

    def after_step(self, step: Step) -> None:
        assert isinstance(step.model, Split)
        self.zeros[-1].append(zeros(step.model))


def zeros(model: Split) -> int:
    return sum(int((place.tensor == 0).sum()) for group in single(model) for place in group.weights)


def trained(split: Split, data: Data, settings: Train = QUICK, **given: object) -> tuple[sf.Target, MCMIA, Spy]:
    target = assemble(split, data, [MCMIA(**given), Spy()], seed=0)  # type: ignore[arg-type]
    fit(target, data, settings, seed=0)
    mcmia, spy = target.defense.parts.values()  # type: ignore[union-attr]
    assert isinstance(mcmia, MCMIA)
    assert isinstance(spy, Spy)
    return target, mcmia, spy


@pytest.mark.parametrize(
    ("given", "epochs", "drawn", "pruned"),
    [
        ({"pretrain": 0.25, "admm": 0.5}, 8, [2, 3, 4, 5], [6, 7]),
        ({"pretrain": 0.0, "admm": 1.0}, 3, [0, 1, 2], []),
        ({"pretrain": 0.25, "admm": 0.4}, 1, [0], []),
        ({"pretrain": 0.9, "admm": 0.05}, 2, [1], []),
        ({"pretrain": 0.2, "admm": 0.4, "stages": 2}, 10, [2, 3, 6, 7], [4, 5, 6, 7, 8, 9]),
        ({"pretrain": 0.25, "admm": 0.4, "stages": 4}, 2, [0, 1], [1]),
    ],
    ids=str,
)
def test_epochs_are_divided_into_their_shares(
    given: dict[str, float], epochs: int, drawn: list[int], pruned: list[int], small_split: Split, blobs: Data
) -> None:
    target, _, spy = trained(small_split, blobs, replace(QUICK, epochs=epochs), ratio=4.0, **given)
    assert [epoch for epoch, seen in enumerate(spy.penalties) if all(seen)] == drawn
    assert [epoch for epoch, seen in enumerate(spy.penalties) if any(seen)] == drawn
    assert [epoch for epoch, seen in enumerate(spy.zeros) if seen[-1] > 0] == pruned
    total = sum(group.size for group in single(small_split))
    assert total - zeros(target.split) == total // 4


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("at", [None, "norm", "hidden"])
def test_no_step_revives_a_weight(optimizer: str, at: str | None, blobs: Data) -> None:
    """Momentum, weight decay and batch norm would; fine-tuning has its own optimizer."""
    settings = replace(QUICK, finetune=2, optimizer=Optimizer(name=optimizer, learning_rate=0.01))  # type: ignore[arg-type]
    target, _, spy = trained(normed(at), blobs, settings, ratio=8.0, pretrain=0.2, admm=0.3)
    total = sum(group.size for group in single(target.split))
    expected = total - total // 8
    assert [set(seen) for seen in spy.zeros[3:]] == [{expected}] * 5
    assert all(max(seen) == 0 for seen in spy.zeros[:3])
    assert zeros(target.split) == expected
    # never biases or normalizations
    assert all(int((value == 0).sum()) == 0 for value in target.split.parameters() if value.dim() == 1)


def test_each_layer_keeps_its_own_share_wherever_the_model_is_cut(blobs: Data) -> None:
    for at in (None, "norm"):
        target, _, _ = trained(normed(at), blobs, ratio={"stem": 2, "conv": 8, "hidden": 16})
        left = [int(place.tensor.count_nonzero()) for group in single(target.split) for place in group.weights]
        assert left == [36, 72, 192, 48]


def test_stages_narrow_step_by_step(blobs: Data) -> None:
    settings = replace(QUICK, epochs=9)
    target, mcmia, spy = trained(normed(), blobs, settings, ratio=64.0, pretrain=0.0, admm=2 / 3, stages=3, every=1)
    total = sum(group.size for group in single(target.split))
    ends = [total - seen[-1] for seen in spy.zeros]
    assert ends[0] == ends[1] == total
    assert ends[2] == ends[3] == ends[4] > ends[5] > total // 64
    assert ends[8] == total // 64
    # of what is left a quarter goes on in each stage, but for layers that keep half
    assert ends[2] == pytest.approx(total / 4, rel=0.2)
    assert len(mcmia.residuals) == 6
    assert [found.rho for found in mcmia.residuals] == pytest.approx([mcmia.rho, 1.3 * mcmia.rho] * 3)


def test_weights_come_near_their_projection(small_split: Split, blobs: Data) -> None:
    _, mcmia, _ = trained(small_split, blobs, replace(QUICK, epochs=20), ratio=4.0, rho=0.3, pretrain=0.0, admm=1.0)
    first, last = mcmia.residuals[0], mcmia.residuals[-1]
    assert last.primal < first.primal / 3


def test_a_stage_makes_at_most_ten_updates_however_long_it_is(small_split: Split, blobs: Data) -> None:
    """Else rho grows to where gradient steps overshoot."""
    for epochs, updates in ((4, 4), (10, 10), (11, 6), (25, 9)):
        _, mcmia, _ = trained(small_split, blobs, replace(QUICK, epochs=epochs, batch_size=192), pretrain=0.0, admm=1.0)
        assert [found.rho for found in mcmia.residuals] == pytest.approx([mcmia.rho * 1.3**place for place in range(updates)])


def test_z_and_u_move_every_so_many_epochs_and_at_the_end(small_split: Split, blobs: Data) -> None:
    _, mcmia, _ = trained(small_split, blobs, replace(QUICK, epochs=9), every=3, pretrain=0.0, admm=7 / 9)
    assert [found.rho for found in mcmia.residuals] == pytest.approx([mcmia.rho * 1.3**place for place in range(3)])


def test_it_still_learns_the_task(blobs: Data) -> None:
    target, _, _ = trained(normed(), blobs, replace(QUICK, epochs=8), ratio=10.0)
    assert accuracy(target, blobs.part("test"), 0).value > 0.95


@pytest.mark.parametrize("structured", [False, True])
def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(structured: bool, blobs: Data, tmp_path: Path) -> None:
    """In ADMM, after the first pruning, in ADMM again, after the last, and in fine-tuning."""
    settings = replace(QUICK, epochs=6, finetune=2)

    def run(path: Path, last: int | None = None) -> tuple[dict[str, Tensor], MCMIA]:
        def stop(done: int, total: int) -> None:
            if done == last:
                raise KeyboardInterrupt

        defense = MCMIA(6.0, structured=structured, stages=2, every=1, pretrain=0.0, admm=2 / 3)
        target = assemble(normed("norm"), blobs, [defense, sf.Noise(sigma=0.1)], seed=3)
        fit(target, blobs, settings, seed=3, checkpoint=path, watch=stop)
        (mcmia, _) = target.defense.parts.values()  # type: ignore[union-attr]
        assert isinstance(mcmia, MCMIA)
        return target.state_dict(), mcmia

    whole, mcmia = run(tmp_path / "whole")
    assert len(mcmia.residuals) == 4
    for epoch in (1, 3, 4, 5, 7):
        path = tmp_path / f"{epoch}"
        with pytest.raises(KeyboardInterrupt):
            run(path, last=3 * epoch + 2)
        again, resumed = run(path)
        assert again.keys() == whole.keys()
        assert all(torch.equal(value, again[name]) for name, value in whole.items()), epoch
        assert resumed.residuals == (mcmia.residuals if epoch < 7 else ())


@pytest.mark.parametrize("at", [None, "norm", "last_norm"])
@pytest.mark.parametrize("finetune", [0, 1])
def test_channels_are_removed_and_nothing_else_changes(at: str | None, finetune: int, blobs: Data) -> None:
    """The last epochs train with the channels masked; what they answer, the smaller model answers."""
    settings = replace(QUICK, finetune=finetune)
    target = assemble(normed(at), blobs, [MCMIA(6.0, structured=True)], seed=0)
    fit(target, blobs, replace(settings, finetune=0), seed=0)
    (mcmia,) = target.defense  # type: ignore[misc]
    masked = assemble(normed(at), blobs, [MCMIA(6.0, structured=True)], seed=0)
    masked.defense.finish = lambda model: None  # type: ignore[method-assign, union-attr, assignment]
    fit(masked, blobs, replace(settings, finetune=0), seed=0)
    with torch.no_grad():
        assert (target(X) - masked(X)).abs().max() <= 1e-5 * masked(X).abs().max()
    found = compression(target.split, X[:1], before=normed(at))
    assert found.ratio >= 6
    assert found.kept == sum(group.size for group in single(target.split))
    assert found.macs_kept < found.macs_dense / 3
    assert found.bytes_stored < found.bytes_dense / 2
    assert mcmia.memory() == {}
    tuned = sf.harden(normed(at), blobs, defenses=[MCMIA(6.0, structured=True)], train=settings)
    assert {name: value.shape for name, value in tuned.state_dict().items()} == {
        name: value.shape for name, value in target.state_dict().items()
    }


def test_masked_channels_stay_masked_with_their_norms(blobs: Data) -> None:
    """A batch norm would give a channel of zeros its bias."""
    target = assemble(normed(), blobs, [MCMIA(6.0, structured=True, pretrain=0.0, admm=0.2)], seed=0)
    closed: list[list[tuple[int, ...]]] = []

    class Watching(sf.Defense):
        name = "watching"

        def after_step(self, step: Step) -> None:
            assert isinstance(step.model, Split)
            net = step.model.tail
            tensors = (net.stem.weight, net.stem.bias, net.norm.weight, net.norm.bias, net.conv.weight, net.inner.bias)
            closed.append([tuple((t.flatten(1) if t.dim() > 1 else t[:, None]).eq(0).all(1).tolist()) for t in tensors])

    target.defense.parts["watching"] = Watching()  # type: ignore[union-attr]
    fit(target, blobs, QUICK, seed=0)
    for seen in closed[3:-1]:
        assert len(set(seen)) == 1
        assert 0 < sum(seen[0]) < 8


@pytest.mark.parametrize("structured", [False, True])
def test_a_finished_run_is_loaded_and_is_small_on_disk(structured: bool, blobs: Data, tmp_path: Path) -> None:
    defense = MCMIA(16.0, structured=structured)
    target = sf.harden(normed("norm"), blobs, defenses=[defense], train=replace(QUICK, finetune=1))
    path = write_tensors(tmp_path / "w.safetensors", target.state_dict())
    dense = write_tensors(tmp_path / "d.safetensors", normed("norm").state_dict())
    assert path.stat().st_size < dense.stat().st_size / 2  # of 17 kB, 1.8 kB are norms, biases and names
    again = assemble(normed("norm"), blobs, [defense], seed=9)
    restore(again, read_tensors(path)[0], source=path)
    assert torch.equal(again(X), target(X))
    # what is trained on stays pruned
    tuned = sf.harden(again, blobs, train=replace(QUICK, epochs=1))
    assert zeros(tuned.split) == zeros(target.split)
    assert sum(value.numel() for value in tuned.parameters()) == sum(value.numel() for value in target.parameters())


def test_a_recipe_takes_a_number_an_array_or_a_table() -> None:
    for ratio in (15.78, 4, [1.25, 5, 20.0], {"c1*": 1.25, "f*": 20}):
        made = registry.create("defenses", "mcmia", {"ratio": ratio, "structured": False})
        assert isinstance(made, MCMIA)
        assert made.ratio == (tuple(ratio) if isinstance(ratio, list) else ratio)
        assert str(made.ratio) in made.describe()
    with pytest.raises(ConfigError, match="mcmia.ratio"):
        registry.create("defenses", "mcmia", {"ratio": "much"})


def test_a_recipe_takes_a_table_of_patterns() -> None:
    recipe = parse_recipe(
        """
        data = { name = "digits" }
        model = { name = "lenet5", cut = "c1" }
        [[defenses]]
        name = "mcmia"
        every = 1
        [defenses.ratio]
        "c*" = 1.25
        "f*" = 20
        """
    )
    (defense,) = recipe.defenses
    assert defense.describe() == MCMIA({"c*": 1.25, "f*": 20.0}, every=1).describe()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ratio": 0.5}, "ratio must be a number of at least 1"),
        ({"ratio": float("inf")}, "ratio must be"),
        ({"ratio": ()}, "ratio must be"),
        ({"ratio": {}}, "ratio must be"),
        ({"ratio": (2.0, 0.0)}, "ratio must be"),
        ({"ratio": {"c1": "2"}}, "ratio must be"),
        ({"ratio": "2"}, "ratio must be"),
        ({"pretrain": 1.0}, "pretrain must be"),
        ({"pretrain": -0.1}, "pretrain must be"),
        ({"admm": 0.0}, "admm above 0"),
        ({"pretrain": 0.7, "admm": 0.4}, "at most 1 together, got 0.7 and 0.4"),
        ({"rho": 0.0}, "rho must be > 0"),
        ({"growth": 0.9}, "growth at least 1"),
        ({"stages": 0}, "stages and every must be at least 1"),
        ({"every": 0}, "stages and every must be at least 1"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MCMIA(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ratio": 1000.0}, "so that one of them, such as"),
        ({"ratio": {"6": 10_000}}, "none of the 512 weights of '6'; it must be at most 512"),
        ({"ratio": (2.0,)}, "one number for each of"),
        ({"ratio": {"classifier": 2.0}}, "no layer fits 'classifier'"),
        ({"ratio": 1000.0, "structured": True}, "cannot be reached by removing channels"),
        ({"ratio": {"0": 100}, "structured": True}, "none of the 6 channels of '0'"),
    ],
    ids=str,
)
def test_ratios_that_do_not_fit_the_model_are_refused_before_training(
    given: dict[str, object], message: str, small_split: Split, blobs: Data
) -> None:
    with pytest.raises(ConfigError, match=message):
        assemble(small_split, blobs, [MCMIA(**given)], seed=0)  # type: ignore[arg-type]


def test_a_model_without_weights_is_refused(blobs: Data) -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.BatchNorm1d(2))
    with pytest.raises(ModelError, match="two dimensions or more"):
        assemble(sf.whole(net), blobs, [MCMIA()], seed=0)


WITH = {
    "noise": [sf.Noise(sigma=0.1)],
    "bottleneck": [sf.Bottleneck(channels=2)],
    "cem": [sf.Noise(sigma=0.1), sf.CEM(weight=1.0)],
    "ressfl": [sf.ResSFL(pretrain=1, blocks=0, channels=4)],
    "patrol": [sf.PATROL(sf.Keep(parameters=0.6), alpha=(0.01,))],
}


@pytest.mark.parametrize("name", WITH)
@pytest.mark.parametrize("last", [True, False], ids=["mcmia last", "mcmia first"])
def test_it_composes_with_the_others_fine_tuning_included(name: str, last: bool, blobs: Data) -> None:
    mcmia = MCMIA(4.0)
    defenses = [*WITH[name], mcmia] if last else [mcmia, *WITH[name]]
    split = sf.split(small_net(), at="2")
    hardened = sf.harden(split, blobs, defenses=defenses, train=replace(QUICK, epochs=4, finetune=1))
    assert all(bool(value.isfinite().all()) for value in hardened.state_dict().values())
    pruned = [group for group in single(hardened.split) if group.name == "6" or group.name.startswith("tail.6")]
    assert pruned or name == "bottleneck"
    assert zeros(hardened.split) > 0.5 * sum(group.size for group in single(split)) / (2 if name == "patrol" else 1)
    assert hardened.defense.memory() == {}  # type: ignore[union-attr]
    copy.deepcopy(hardened)


def test_the_penalty_does_not_depend_on_the_precision_of_the_step(small_split: Split, blobs: Data) -> None:
    target = assemble(small_split, blobs, [MCMIA(4.0, pretrain=0.0)], seed=0)
    (mcmia,) = target.defense  # type: ignore[misc]
    with torch.no_grad():
        mcmia.begin_epoch(Epoch(number=0, total=4, model=target.split, batches=lambda: iter(())))
    step = step_of(target.split, mcmia)
    exact = mcmia.penalty(step)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = mcmia.penalty(step)
    assert exact is not None
    assert rounded is not None
    assert torch.equal(exact, rounded)
    assert exact.requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("structured", [False, True])
def test_it_runs_and_resumes_on_cuda(structured: bool, blobs: Data, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    for epochs in (3, 6):
        target = assemble(normed().to("cuda"), blobs, [MCMIA(6.0, structured=structured)], seed=0)
        fit(target, blobs, replace(QUICK, epochs=epochs), seed=0, checkpoint=path, definition="the same")
    assert target.device.type == "cuda"
    assert compression(target.split, X[:1].cuda(), before=normed().to("cuda")).ratio >= 6
