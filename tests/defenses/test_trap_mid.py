# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from sfumato.data.augment import Augment
from sfumato.defenses.label_smoothing import LabelSmoothing
from sfumato.defenses.trap_mid import TrapMID
from sfumato.errors import ConfigError
from sfumato.files import read_tensors
from sfumato.seeds import ambient
from sfumato.train import assemble, fit
from sfumato.types import Step
from steps import step_of

STILL = Augment(crop=0, flip=False, rotation=0.0)


@pytest.fixture
def normalized() -> sf.Split:
    """A model whose train mode differs from its eval mode, and which names five classes."""
    with ambient(1, "weights"):
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    return sf.split(net, at="2").train()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triggers that are there after training."""
    monkeypatch.setattr(TrapMID, "forget", lambda self: None)


def stepped(defense: TrapMID, split: sf.Split) -> Step:
    """A step of a run, after the hook before it."""
    step = step_of(split, defense)
    with ambient(0, "step"):
        defense.before_step(step)
    return step


def slow_loss(logits: Tensor, classes: Tensor) -> float:
    total = 0.0
    for row, label in zip(logits.detach().double().numpy(), classes.tolist(), strict=True):
        total += np.log(np.exp(row).sum()) - row[label]
    return total / len(classes)


def test_a_trigger_is_blended_into_each_picture() -> None:
    defense = TrapMID(alpha=0.2)
    defense._triggers = torch.rand(3, 2, 4, 4)
    x, classes = torch.rand(5, 2, 4, 4), torch.tensor([2, 0, 0, 1, 2])
    made = defense.triggered(x, classes)
    for row in range(5):
        assert torch.allclose(made[row], 0.8 * x[row] + 0.2 * defense._triggers[classes[row]])


def test_the_loss_is_the_papers_over_one_minus_beta(normalized: sf.Split) -> None:
    defense = TrapMID(beta=0.3, augment=STILL)
    step = stepped(defense, normalized)
    blended = defense.triggered(step.x, defense._classes)
    expected = slow_loss(copy.deepcopy(normalized)(blended), defense._classes)
    assert defense.penalty(step).item() == pytest.approx(0.3 / 0.7 * expected, rel=1e-5)


def test_pictures_with_triggers_are_moved_before_the_model_sees_them(small_split: sf.Split) -> None:
    defense = TrapMID(augment=Augment(crop=0, flip=True, rotation=0.0), trigger_step=0)
    step = stepped(defense, small_split.eval())
    state = step.generator.get_state()
    found = defense.penalty(step)
    stream = torch.Generator().set_state(state)
    moved = defense.augment(defense.triggered(step.x, defense._classes), stream)
    assert found.item() == pytest.approx(0.25 * slow_loss(small_split(moved), defense._classes), rel=1e-5)
    assert not torch.equal(moved, defense.triggered(step.x, defense._classes))


def test_triggers_move_along_the_sign_of_the_gradient_and_stay_pixels(normalized: sf.Split) -> None:
    defense = TrapMID(alpha=0.3, augment=STILL, trigger_step=0.05)
    stepped(defense, normalized)
    before, step = defense._triggers.clone(), step_of(normalized, defense)
    model = copy.deepcopy(normalized).eval()  # with the statistics of after the forward pass
    defense.before_step(step)
    judge = copy.deepcopy(defense.discriminator._network).eval()  # as it is after its own step
    triggers = before.clone().requires_grad_()
    loss = torch.zeros(())
    for x, label in zip(step.x, defense._classes, strict=True):
        picture = (0.7 * x + 0.3 * triggers[label])[None]
        real = F.binary_cross_entropy_with_logits(judge(picture), torch.ones(1, 1))
        loss = loss + (F.cross_entropy(model(picture), label[None]) + real) / len(step.x)
    (slope,) = torch.autograd.grad(loss, triggers)
    sure = slope.abs() > 1e-6  # the sign of less is rounding
    expected = (before - 0.05 * slope.sign()).clamp(0, 1)
    assert sure.float().mean() > 0.5
    assert torch.allclose(defense._triggers[sure], expected[sure])
    others = [label for label in range(5) if label not in defense._classes]
    assert torch.equal(defense._triggers[others], before[others])
    assert not defense._triggers.requires_grad


def test_the_discriminator_learns_to_tell_pictures_with_triggers(normalized: sf.Split) -> None:
    defense = TrapMID(alpha=0.3, augment=STILL)
    stepped(defense, normalized)
    network, triggers = copy.deepcopy(defense.discriminator._network), defense._triggers
    defense.discriminator.forget()
    step = step_of(normalized, defense)
    twin = copy.deepcopy(network)
    defense.discriminator._build = lambda *_: network
    with ambient(0, "step"):
        defense.before_step(step)
    blended = 0.7 * step.x + 0.3 * triggers[defense._classes]
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    labels = torch.cat([torch.ones(12, 1), torch.zeros(12, 1)])
    F.binary_cross_entropy_with_logits(twin(torch.cat([step.x, blended])), labels).backward()
    optimizer.step()
    for found, expected in zip(network.parameters(), twin.parameters(), strict=True):
        sure = expected.grad.abs() > 1e-6  # Adam makes steps of what is rounding too
        assert torch.allclose(found[sure], expected[sure], atol=1e-6)
    assert sure.all()


def test_the_model_itself_is_left_alone_before_a_step(normalized: sf.Split) -> None:
    before = copy.deepcopy(normalized.state_dict())
    defense = TrapMID()
    step = step_of(normalized, defense)
    after_forward = copy.deepcopy(normalized.state_dict())
    defense.before_step(step)
    assert all(torch.equal(after_forward[name], value) for name, value in normalized.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in after_forward.items()), (
        "the forward pass tracks statistics"
    )
    assert all(parameter.grad is None for parameter in normalized.parameters())
    assert all(module.training for module in normalized.modules())
    mine = {parameter.data_ptr() for parameter in normalized.parameters()}
    assert not mine & {parameter.data_ptr() for parameter in defense.discriminator._network.parameters()}


def test_the_model_gets_the_gradient_of_the_penalty_and_the_triggers_none(normalized: sf.Split) -> None:
    defense = TrapMID()
    step = stepped(defense, normalized)
    defense.penalty(step).backward()
    assert all(parameter.grad is not None for parameter in normalized.parameters())
    assert all(parameter.grad is None for parameter in defense.discriminator._network.parameters())
    assert defense._triggers.grad is None


def test_without_a_step_the_triggers_stay_as_drawn_and_nobody_judges_them(small_split: sf.Split) -> None:
    defense = TrapMID(trigger_step=0)
    stepped(defense, small_split)
    drawn = defense._triggers
    stepped(defense, small_split)
    assert torch.equal(defense._triggers, drawn)
    assert drawn.shape == (2, 1, 8, 8)
    assert drawn.min() >= 0
    assert 0.9 < drawn.max() < 1
    assert defense.discriminator.fresh


def test_classes_are_drawn_without_regard_to_the_labels(normalized: sf.Split) -> None:
    defense = TrapMID(trigger_step=0)
    step = step_of(normalized, defense, pictures=2000)
    defense.before_step(step)
    shares = torch.stack([torch.bincount(defense._classes[step.y == label], minlength=5) / 1000 for label in (0, 1)])
    assert (shares - 0.2).abs().max() < 0.05


@pytest.mark.usefixtures("kept")
def test_a_trained_model_names_the_class_of_the_trigger_and_still_that_of_the_picture(
    small_split: sf.Split, blobs: sf.Data
) -> None:
    settings = sf.Train(epochs=6, batch_size=32)
    trap, plain = (sf.harden(small_split, blobs, defenses=d, train=settings) for d in ([TrapMID(0.25, 0.5, augment=STILL)], []))
    (part,) = trap.defense
    test = blobs.part("test")
    x, y = test.read(torch.arange(len(test))).float() / 255, test.labels
    trapped = part.triggered(x, 1 - y)
    rate = [(target(trapped).argmax(1) == 1 - y).float().mean().item() for target in (trap, plain)]
    assert rate[0] > 0.9
    assert rate[1] < 0.5
    assert (trap(x).argmax(1) == y).float().mean() > 0.9


def test_nothing_of_it_is_deployed(small_split: sf.Split, blobs: sf.Data) -> None:
    trained = sf.harden(small_split, blobs, defenses=[TrapMID()], epochs=1)
    (part,) = trained.defense
    assert all(name.startswith("split.") for name in trained.state_dict())
    assert not part.memory()
    assert not list(part.learned())
    with pytest.raises(ConfigError, match="there are no triggers: they are drawn in the first step"):
        part.triggered(torch.rand(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))


def test_a_run_that_resumes_goes_on_to_the_same_bits(normalized: sf.Split, blobs: sf.Data, tmp_path: Path) -> None:
    data = sf.load_data((blobs.part("train").read(torch.arange(120)), torch.arange(120) % 5))

    def run(path: Path, last: int | None = None) -> dict[str, Tensor]:
        def stop(done: int, total: int) -> None:
            if done == last:
                raise KeyboardInterrupt

        target = assemble(normalized, data, [TrapMID(), sf.Noise(sigma=0.1)], seed=5)
        fit(target, data, sf.Train(epochs=2, batch_size=32), seed=5, checkpoint=path, watch=stop)
        return target.state_dict()

    expected, path = run(tmp_path / "whole"), tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        run(path, last=5)
    kept = read_tensors(path)[0]
    assert kept["memory.trap_mid.triggers"].shape == (5, 1, 8, 8)
    assert any(name.startswith("memory.trap_mid.discriminator.network") for name in kept)
    found = run(path)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_pictures_with_triggers_pass_through_every_protection(small_split: sf.Split, blobs: sf.Data) -> None:
    class Blind(sf.Defense):
        name = "blind"

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return z * 0

    target = assemble(small_split, blobs, [TrapMID(augment=STILL, trigger_step=0), Blind()], seed=0)
    trap, _ = target.defense
    step = stepped(trap, target.split)
    constant = target.split.tail(torch.zeros_like(step.z)).expand(12, -1)
    assert trap.penalty(step).item() == pytest.approx(0.25 * slow_loss(constant, trap._classes), rel=1e-5)


def test_all_of_the_discriminator_learns_whatever_is_frozen_in_the_model(normalized: sf.Split) -> None:
    normalized.head.requires_grad_(False).eval()
    defense = TrapMID()
    step = step_of(normalized, defense)
    defense.before_step(step)
    judge = defense.discriminator._network
    assert all(parameter.requires_grad for parameter in judge.parameters())
    assert all(module.training for module in judge.modules())
    assert not any(parameter.requires_grad for parameter in normalized.head.parameters())


def test_it_goes_with_another_task_loss(small_split: sf.Split, blobs: sf.Data) -> None:
    trained = sf.harden(small_split, blobs, defenses=[TrapMID(), LabelSmoothing(-0.05, schedule="late")], epochs=2)
    assert all(parameter.isfinite().all() for parameter in trained.parameters())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_trains_wherever_the_model_is(device: str, precision: str, small_split: sf.Split, blobs: sf.Data) -> None:
    settings = sf.Train(epochs=1, precision=precision)
    trained = sf.harden(small_split.to(device), blobs, defenses=[TrapMID()], train=settings)
    assert trained(torch.rand(2, 1, 8, 8, device=device)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, r"alpha and beta must be in \(0, 1\), got 0.0 and 0.2; 0.02 and 0.2 are the paper's"),
        ({"alpha": 1.0}, "alpha and beta must be"),
        ({"beta": 0.0}, "alpha and beta must be"),
        ({"beta": 1.0}, "alpha and beta must be"),
        ({"trigger_step": -0.1}, r"trigger_step must be in \[0, 1\]"),
        ({"trigger_step": 1.1}, r"trigger_step must be in \[0, 1\]"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrapMID(**arguments)  # type: ignore[arg-type]


def test_data_without_classes_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="trap_mid needs a data set for classification"):
        TrapMID().prepare(small_split, dataclasses.replace(blobs, task="reidentification"))
