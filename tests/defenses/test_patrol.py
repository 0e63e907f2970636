# SPDX-License-Identifier: Apache-2.0
"""PATROL in the training loop: its updates, its terms, what it leaves, and what goes on after an interruption."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato import registry
from sfumato.analysis.lipschitz import chain, local_constants
from sfumato.data.base import Data, Reading
from sfumato.defenses.masks import Sparsity
from sfumato.defenses.surrogate import Inversion
from sfumato.errors import ConfigError
from sfumato.recipe import parse_recipe
from sfumato.seeds import ambient
from sfumato.settings import Optimizer, Train
from sfumato.split import Split, cost
from sfumato.store import Store
from sfumato.targets import train_recipe
from sfumato.train import assemble, fit
from sfumato.types import Epoch, Step
from sfumato.workplace import Workplace
from steps import step_of

QUICK = Train(epochs=2, batch_size=48, optimizer=Optimizer(learning_rate=0.01))
PHASES = ("adversarial", "lipschitz", "mask")


class Spy(sf.Defense):
    """Notes the updates that another part makes, and what its masks are after each."""

    name = "spy"

    def __init__(self) -> None:
        super().__init__()
        self.phases_seen: list[str] = []
        self.masks: list[Tensor] = []
        self.closed: list[Tensor] = []

    def join(self, whole: sf.Defense) -> None:
        self.patrol = [part for part in whole if isinstance(part, sf.PATROL)]  # type: ignore[attr-defined]

    def after_step(self, step: Step) -> None:
        self.phases_seen.append(step.phase)
        self.masks.append(self._values())

    def end_epoch(self, epoch: Epoch) -> None:
        self.closed.append(self._values() == 0)

    def _values(self) -> Tensor:
        masks = self.patrol[0].masks
        return torch.zeros(0) if masks is None else torch.cat([mask.detach().clone() for mask in masks.values])


def spied(split: Split, data: Data, settings: Train = QUICK, **given: object) -> Spy:
    target = assemble(split, data, [sf.PATROL(**given), Spy()], seed=0)  # type: ignore[arg-type]
    fit(target, data, settings, seed=0)
    spy = target.defense.parts["spy"]
    assert isinstance(spy, Spy)
    return spy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, PHASES),
        ({"fused": True}, ("main",)),
        ({"prune": False}, PHASES[:2]),
        ({"adversarial": False}, PHASES[1:]),
        ({"lipschitz": False}, ("adversarial", "mask")),
        ({"adversarial": False, "lipschitz": False}, ("mask",)),
        ({"prune": False, "adversarial": False, "lipschitz": False}, ("main",)),
    ],
    ids=str,
)
def test_each_batch_gets_the_updates_of_algorithm_1_in_their_order(
    given: dict[str, bool], expected: tuple[str, ...], small_split: Split, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    step = torch.optim.SGD.step

    def counted(self: torch.optim.SGD, closure: None = None) -> None:
        made.append(len(self.param_groups[0]["params"]))
        step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    spy = spied(small_split, blobs, **given)
    assert spy.phases_seen == [*expected] * (2 * 4)
    assert made == [6] * len(spy.phases_seen)  # three layers with weight and bias, and no mask


def test_only_fista_moves_the_masks_and_only_in_their_own_update(small_split: Split, blobs: Data) -> None:
    spy = spied(small_split, blobs)
    moved = [not torch.equal(a, b) for a, b in zip(spy.masks[:12], spy.masks[1:12], strict=False)]
    assert moved == [phase == "mask" for phase in spy.phases_seen[1:12]]


def test_without_a_step_of_fista_that_counts_masks_stay(small_split: Split, blobs: Data) -> None:
    """The optimizer of the loop has its weight decay, and it must not reach them."""
    spy = spied(small_split, blobs, keep=None, sparsity=Sparsity(rate=1e-30))
    assert all(torch.equal(masks, torch.ones(10)) for masks in spy.masks)


@pytest.mark.parametrize("fused", [False, True])
def test_what_closes_at_the_end_of_an_epoch_stays_closed(fused: bool, small_split: Split, blobs: Data) -> None:
    spy = spied(small_split, blobs, replace(QUICK, epochs=6), fused=fused)
    assert 0 < spy.closed[0].sum() < spy.closed[-1].sum() < 10
    assert all(bool((after | ~before).all()) for before, after in zip(spy.closed, spy.closed[1:], strict=False))


def met(split: Split, data: Data, **given: object) -> tuple[sf.PATROL, Step]:
    """A defense at its first batch, made by hand."""
    target = assemble(split, data, [sf.PATROL(**given)], seed=0)  # type: ignore[arg-type]
    (patrol,) = target.defense
    assert isinstance(patrol, sf.PATROL)
    x = data.part("train").read(torch.arange(64)) / 255

    def batches() -> object:
        return iter([(x, target.split.head(x), torch.zeros(64))])

    with torch.no_grad(), ambient(0, "test"):
        patrol.begin_epoch(Epoch(number=0, total=3, model=target.split, batches=batches))  # type: ignore[arg-type]
    step = step_of(target.split, patrol)
    patrol.before_step(step)
    return patrol, step


def by_hand(patrol: sf.PATROL, step: Step, alpha: tuple[float, ...]) -> tuple[float, float]:
    """-beta L_adv of Eq. 9 and L_lip of Eq. 6."""
    with torch.no_grad():
        x_hat = copy.deepcopy(patrol.surrogate._network).eval()(step.z).double().numpy()
        stream = step.generator.clone_state()
        constants = local_constants(chain(step.model.eval().head), step.x, generator=stream)  # type: ignore[operator, union-attr]
    distances = [np.linalg.norm(a - b) for a, b in zip(x_hat, step.x.double().numpy(), strict=True)]
    return -patrol.beta * float(np.mean(distances)), sum(a * k for a, k in zip(alpha, constants.tolist(), strict=True))


@pytest.mark.parametrize("given", [{}, {"adversarial": False}, {"lipschitz": False}, {"prune": False}], ids=str)
def test_each_switch_takes_its_term_and_no_other(given: dict[str, bool], small_split: Split, blobs: Data) -> None:
    patrol, step = met(small_split.eval(), blobs, beta=0.3, alpha=(2.0, 0.7), **given)
    whole, _ = met(small_split.eval(), blobs, beta=0.3, alpha=(2.0, 0.7))
    adversarial, lipschitz = by_hand(whole, step, (2.0, 0.7))
    adversarial, lipschitz = adversarial * patrol.adversarial, lipschitz * patrol.lipschitz
    terms = {"adversarial": adversarial, "lipschitz": lipschitz, "mask": 0.0, "main": adversarial + lipschitz}
    for phase, expected in terms.items():
        penalty = patrol.penalty(replace(step, phase=phase, generator=step.generator.clone_state()))
        assert (0.0 if penalty is None else penalty.item()) == pytest.approx(expected, rel=1e-4), phase


def test_the_last_weight_is_that_of_all_blocks_that_follow(small_split: Split, blobs: Data) -> None:
    patrol, step = met(small_split.eval(), blobs, adversarial=False, alpha=(0.5,))
    penalty = patrol.penalty(replace(step, phase="lipschitz", generator=step.generator.clone_state()))
    assert penalty is not None
    with torch.no_grad():
        constants = local_constants(chain(small_split.head), step.x, generator=step.generator)
    assert len(constants) == 2
    assert penalty.item() == pytest.approx(0.5 * constants.sum().item(), rel=1e-4)


@pytest.mark.parametrize("phase", ["adversarial", "lipschitz"])
def test_the_terms_pull_the_head_and_nothing_of_the_surrogate(phase: str, small_split: Split, blobs: Data) -> None:
    patrol, step = met(small_split, blobs)
    penalty = patrol.penalty(replace(step, phase=phase))
    assert penalty is not None
    penalty.backward()
    assert all(parameter.grad is None for parameter in patrol.surrogate._network.parameters())
    model = step.model
    assert isinstance(model, Split)
    head = [module for module in model.head.modules() if isinstance(module, nn.Conv2d)]
    assert all(layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0 for layer in head)
    assert all(parameter.grad is None for parameter in model.tail.parameters())


def test_fused_masks_follow_the_task_and_not_the_lipschitz_loss(small_split: Split, blobs: Data) -> None:
    patrol, step = met(small_split, blobs, fused=True, adversarial=False)
    assert patrol.masks is not None
    penalty = patrol.penalty(step)
    assert penalty is not None
    penalty.backward()
    assert all(mask.grad is None for mask in patrol.masks.values)
    step.logits.square().mean().backward()
    assert all(mask.grad is not None and mask.grad.abs().sum() > 0 for mask in patrol.masks.values)


def test_the_surrogate_trains_before_every_so_many_epochs(small_split: Split, blobs: Data) -> None:
    target = assemble(small_split, blobs, [sf.PATROL(inversion=Inversion(period=2, epochs=3, batch_size=256))], seed=0)
    (patrol,) = target.defense
    seen: list[float] = []
    fit(
        target, blobs, replace(QUICK, epochs=4, finetune=1), seed=0,
        watch=lambda done, total: seen.append(patrol.memory()["surrogate.optimizer.0.step"].item()),
    )  # fmt: skip
    assert seen == [3] * 8 + [6] * 8 + [3] * 4  # 192 pictures are one batch; fine-tuning has another head, hence a new one


@pytest.mark.parametrize("given", [{}, {"fused": True}, {"keep": sf.Keep(memory=200)}, {"keep": sf.Keep(macs=0.5)}], ids=str)
def test_the_finished_head_fits_and_holds_nothing_of_the_defense(
    given: dict[str, object], small_split: Split, blobs: Data
) -> None:
    first, second = (sf.harden(small_split, blobs, defenses=[sf.PATROL(**given)], train=QUICK) for _ in range(2))  # type: ignore[arg-type]
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert set(first.state_dict()) == {f"split.{name}" for name in small_split.state_dict()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in first.modules())
    assert first.defense.memory() == {}  # type: ignore[union-attr]
    x = torch.rand(1, 1, 8, 8)
    whole, kept = cost(small_split.head, x), cost(first.split.head, x)
    limit = given.get("keep", sf.Keep(parameters=1 / 3))
    assert isinstance(limit, sf.Keep)
    measures = {"parameters": whole.parameters / 3, "memory": 200, "macs": whole.macs / 2}
    measure = next(name for name in measures if getattr(limit, name) is not None)
    assert 0.4 * measures[measure] < getattr(kept, measure) <= measures[measure]
    copy.deepcopy(first)


def test_pruning_off_removes_nothing(small_split: Split, blobs: Data) -> None:
    hardened = sf.harden(small_split, blobs, defenses=[sf.PATROL(prune=False)], train=QUICK)
    assert all(value.shape == small_split.state_dict()[name].shape for name, value in hardened.split.state_dict().items())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


def residual() -> Split:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *(Block() for _ in range(3)), nn.Flatten(), nn.Linear(256, 2))
    return sf.split(net, at="3")


def test_blocks_go_as_a_whole(blobs: Data) -> None:
    hardened = sf.harden(residual(), blobs, defenses=[sf.PATROL(sf.Keep(parameters=0.6), unit="block")], train=QUICK)
    left = {name.split(".")[2] for name in hardened.state_dict() if name.endswith("conv.weight")}
    assert len(left) == 1  # of a head of 40 and 3 x 156 parameters
    assert sum(value.numel() for name, value in hardened.state_dict().items() if name == "split.head.0.weight") == 36


@pytest.mark.parametrize("unit", ["channel", "block"])
def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(unit: str, blobs: Data, tmp_path: Path) -> None:
    settings = replace(QUICK, epochs=2, finetune=2)

    def run(path: Path, last: int | None = None) -> dict[str, Tensor]:
        def stop(done: int, total: int) -> None:
            if done == last:
                raise KeyboardInterrupt

        patrol = sf.PATROL(sf.Keep(parameters=0.6), unit=unit, inversion=Inversion(period=2))  # type: ignore[arg-type]
        target = assemble(residual(), blobs, [patrol, sf.Noise(sigma=0.1)], seed=3)
        fit(target, blobs, settings, seed=3, checkpoint=path, watch=stop)
        return target.state_dict()

    whole = run(tmp_path / "whole")
    for epoch in range(1, 4):
        path = tmp_path / f"{epoch}"
        with pytest.raises(KeyboardInterrupt):
            run(path, last=4 * epoch + 2)
        again = run(path)
        assert again.keys() == whole.keys()
        assert all(torch.equal(value, again[name]) for name, value in whole.items()), epoch


@pytest.mark.parametrize("unit", ["channel", "block"])
def test_a_finished_run_is_found_with_its_shapes(unit: str, blobs: Data, tmp_path: Path) -> None:
    recipe = parse_recipe(
        f"""
        data = {{ name = "digits" }}
        model = {{ name = "resnet20", cut = "layer2", width = 0.5 }}
        train = {{ epochs = 1, finetune = 1 }}
        [[defenses]]
        name = "patrol"
        unit = "{unit}"
        keep = {{ memory = "12kB" }}
        sparsity = {{ l1 = 2.0 }}
        inversion.period = 5
        """
    )
    news: list[tuple[str, int, int]] = []
    workplace = Workplace(
        store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"), watch=lambda *what: news.append(what)
    )
    first, _ = train_recipe(recipe, blobs, workplace)
    trained = len(news)
    second, stage = train_recipe(recipe, blobs, workplace)
    assert stage.done
    assert len(news) <= trained + 1
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(first(x), second(x))
    assert cost(second.split.head, x[:1]).memory <= 12_000


WITH = {
    "noise": [sf.Noise(sigma=0.1)],
    "cem": [sf.Noise(sigma=0.1), sf.CEM(weight=1.0)],
    "bottleneck": [sf.Bottleneck(channels=2)],
    "dropout": [sf.Dropout(p=0.2)],
    "distcorr": [sf.DistCorr(weight=0.1)],
    "ressfl": [sf.ResSFL(pretrain=1, blocks=0, channels=4)],
    "noise_arl": [sf.NoiseARL(sigma=0.1, blocks=0, channels=4)],
    "app": [sf.APP(blocks=0, channels=4)],
}


@pytest.mark.parametrize("name", WITH)
@pytest.mark.parametrize("last", [True, False], ids=["patrol last", "patrol first"])
def test_it_composes_with_the_others_fine_tuning_included(name: str, last: bool, small_split: Split, blobs: Data) -> None:
    patrol = sf.PATROL(sf.Keep(parameters=0.5), alpha=(0.01,))
    defenses = [*WITH[name], patrol] if last else [patrol, *WITH[name]]
    hardened = sf.harden(small_split, blobs, defenses=defenses, train=replace(QUICK, finetune=2))
    assert all(bool(value.isfinite().all()) for value in hardened.state_dict().values())
    assert hardened.defense.memory() == {}  # type: ignore[union-attr]
    convolutions = [module for module in hardened.split.head.modules() if isinstance(module, nn.Conv2d)]
    assert sum(layer.weight.numel() for layer in convolutions[:2]) <= 0.5 * 280
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hardened.modules())


def test_the_letter_of_the_paper_prunes_half_of_the_channels_at_random(blobs: Data) -> None:
    patrol = registry.create("defenses", "patrol-paper", {})
    assert isinstance(patrol, sf.PATROL)
    assert (patrol.sparsity.l1, patrol.sparsity.l2, patrol.sparsity.rate, patrol.keep) == (1.0, 10.0, 1e-6, None)
    model = sf.build_model("vgg11", classes=2, shape=(1, 8, 8), options={"width": 0.25})
    settings = Train(epochs=1, batch_size=64, optimizer=Optimizer(name="adam", learning_rate=3e-4))
    hardened = sf.harden(sf.split(model, at="c5"), blobs, defenses=[patrol], train=settings)
    before, after = (
        [module.out_channels for module in head.modules() if isinstance(module, nn.Conv2d)]
        for head in (sf.split(model, at="c5").head, hardened.split.head)
    )
    assert sum(after) / sum(before) == pytest.approx(0.5, abs=0.08)


def test_the_channel_that_carries_the_label_is_the_one_that_stays() -> None:
    """Of eight pictures in one only the sixth says what it is; each channel of the head is one of them."""
    stream = torch.Generator().manual_seed(0)
    y = torch.arange(320) % 2
    x = torch.rand(320, 8, 8, 8, generator=stream)
    x[:, 5] = 0.5 * x[:, 5] + 0.5 * y[:, None, None]
    data = sf.load_data((x, y))
    head, classifier = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(8, 2)
    head.weight.data = torch.eye(8).view(8, 8, 1, 1)
    classifier.weight.data = torch.linspace(-0.3, 0.3, 16).view(2, 8)
    net = nn.Sequential(head, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
    settings = Train(epochs=10, batch_size=32, optimizer=Optimizer(learning_rate=0.1))
    patrol = sf.PATROL(sf.Keep(parameters=1 / 8), adversarial=False, lipschitz=False)
    hardened = sf.harden(sf.split(net, at="1"), data, defenses=[patrol], train=settings)
    (layer,) = (module for module in hardened.split.head.modules() if isinstance(module, nn.Conv2d))
    assert layer.weight.shape == (1, 8, 1, 1)
    assert layer.weight.flatten().abs().argmax() == 5
    pictures = data.part("test")
    right = hardened(pictures.read(torch.arange(len(pictures))) / 255).argmax(1) == pictures.labels
    assert right.float().mean() > 0.95


def test_what_the_budget_saves_is_known_before_training(small_split: Split, blobs: Data) -> None:
    whole = cost(small_split.head, torch.rand(1, 1, 8, 8))
    target = assemble(small_split, blobs, [sf.PATROL(sf.Keep(parameters=0.25, macs="5k"))], seed=0)
    assert target.defense.saving.parameters == pytest.approx(0.75 * whole.parameters)
    assert target.defense.saving.macs == whole.macs - 5000
    assert assemble(small_split, blobs, [sf.PATROL(None)], seed=0).defense.saving.parameters == 0


def test_a_budget_that_no_pruning_reaches_is_refused_before_training(small_split: Split, blobs: Data) -> None:
    steps: list[int] = []
    with pytest.raises(ConfigError, match="keep asks for a head of at most 10 parameters, but the smallest"):
        sf.harden(small_split, blobs, defenses=[sf.PATROL(sf.Keep(parameters=10))], watch=lambda done, total: steps.append(done))
    assert steps == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": -1.0}, "beta must be >= 0 and finite, got -1.0; 0.0004 is the paper's"),
        ({"beta": math.inf}, "beta must be >= 0"),
        ({"alpha": ()}, "alpha must be one or more numbers >= 0"),
        ({"alpha": (1.0, -0.1)}, "alpha must be one or more numbers >= 0"),
        ({"unit": "chanel"}, "did you mean 'channel'"),
        ({"supremum": "maximum"}, "supremum"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.PATROL(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"keep": "6kB"}, {"alpha": 0.3}])
def test_arguments_of_another_type_are_refused_at_once(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        sf.PATROL(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"period": 0}, {"epochs": 0}, {"batch_size": 0}])
def test_a_surrogate_that_never_trains_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="period, epochs and batch_size must be at least 1"):
        Inversion(**given)


@pytest.mark.gpu
@pytest.mark.parametrize("unit", ["channel", "block"])
def test_it_runs_and_resumes_on_cuda(unit: str, blobs: Data, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    for epochs in (2, 4):
        target = assemble(residual().to("cuda"), blobs, [sf.PATROL(sf.Keep(parameters=0.6), unit=unit)], seed=0)  # type: ignore[arg-type]
        fit(target, blobs, replace(QUICK, epochs=epochs), seed=0, checkpoint=path, definition="the same")
    assert target.device.type == "cuda"
    assert all(bool(value.isfinite().all()) for value in target.state_dict().values())
