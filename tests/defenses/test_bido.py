# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from resumed import straight_and_resumed
from sfumato.analysis.kernels import gaussian_kernels, hsic
from sfumato.data.base import Data
from sfumato.defenses.bido import BiDO, LabelKernel, Measure
from sfumato.defenses.mid import MID
from sfumato.defenses.minmax import MinMax
from sfumato.defenses.tl_dmi import TLDMI
from sfumato.defenses.trap_mid import TrapMID
from sfumato.errors import ConfigError, ConflictError, ModelError, TrainingError, UnknownNameError
from sfumato.models.vgg import vgg16_face
from sfumato.target import Target
from sfumato.train import assemble, fit
from sfumato.types import Epoch, Step
from steps import step_of

MEASURES: tuple[Measure, ...] = ("hsic", "coco", "hsic_plain")


def begun(defense: BiDO, split: sf.Split, data: Data) -> Epoch:
    """The first epoch of a run, as the loop begins it."""
    epoch = Epoch(number=0, total=1, model=split, batches=lambda: iter(()))
    with torch.no_grad():
        defense.prepare(split, data)
        defense.begin(data)
        defense.begin_epoch(epoch)
    return epoch


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def slow(step: Step, hidden: Sequence[Tensor], defense: BiDO) -> float:
    """The sum over layers, as the release computes it: kernel by kernel, in NumPy."""
    m, sigma = len(step.x), defense.sigma
    h = np.eye(m) - np.ones((m, m)) / m

    def kernel(samples: Tensor, linear: bool = False) -> np.ndarray:
        flat = samples.detach().flatten(1).double().numpy()
        if linear:
            return flat @ flat.T
        squares = ((flat[:, None] - flat[None]) ** 2).sum(2)
        return np.exp(-squares / (2 * sigma**2 * flat.shape[1]))

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        if defense.measure == "hsic":
            r, s = (k @ h @ np.linalg.inv(k @ h + 1e-5 * m * np.eye(m)) for k in (a, b))
            return float((r * s.T).sum())
        if defense.measure == "coco":
            return float(np.linalg.norm(h @ a @ h @ h @ b @ h) ** 0.5 / m)
        return float(np.trace(a @ h @ b @ h) / (m - 1) ** 2)

    x, y = kernel(step.x), kernel(F.one_hot(step.y, step.logits.shape[1]), defense.label_kernel == "linear")
    return sum(defense.lambda_x * measure(x, kernel(z)) - defense.lambda_y * measure(kernel(z), y) for z in hidden)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("label_kernel", ["linear", "gaussian"])
def test_the_penalty_is_the_sum_over_layers(
    measure: Measure, label_kernel: LabelKernel, small_split: sf.Split, blobs: sf.Data
) -> None:
    defense = BiDO(2.0, 3.0, measure=measure, layers=("0", "3"), sigma=0.5, label_kernel=label_kernel)
    begun(defense, small_split, blobs)
    step = step_of(small_split, defense)
    with torch.no_grad():
        first = (
            small_split.head[0](step.x)
            if isinstance(small_split.head, nn.Sequential)
            else small_split.head.get_submodule("0")(step.x)
        )
        second = small_split.tail.get_submodule("3")(step.z)
    penalty = defense.penalty(step)
    assert penalty is not None
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(slow(step, [first, second], defense), rel=2e-4)


def test_its_gradient_reaches_the_watched_layers_alone(small_split: sf.Split, blobs: sf.Data) -> None:
    defense = BiDO(layers=("1",))
    begun(defense, small_split, blobs)
    step = step_of(small_split, defense)
    penalty = defense.penalty(step)
    assert penalty is not None
    penalty.backward()
    moved = {name.split(".")[1] for name, p in small_split.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"0"}


@pytest.mark.parametrize("cut", ["", "c3", "c4"])
def test_by_default_it_watches_what_is_published_for_vgg16(cut: str) -> None:
    data = sf.load_data((torch.rand(30, 3, 16, 16), torch.arange(30) % 3))
    model = vgg16_face(3, (3, 16, 16), width=0.125)
    split = sf.split(model, at=cut) if cut else sf.whole(model)
    defense = BiDO()
    begun(defense, split, data)
    seen: dict[str, Tensor] = {}
    for name in ("c2.3", "c4.3", "c7.3", "c10.3", "norm"):
        model.get_submodule(name).register_forward_hook(lambda _, __, given, name=name: seen.update({name: given}))
    split.tail(split.head(torch.rand(8, 3, 16, 16)))
    assert defense._watched is not None
    kept = list(defense._watched.kept.values())
    assert [tuple(z.shape[1:]) for z in kept] == [(8, 8, 8), (16, 4, 4), (32, 2, 2), (64, 1, 1), (64,)]
    assert all(torch.equal(z, given) for z, given in zip(kept, seen.values(), strict=True))


@pytest.mark.parametrize("measure", MEASURES)
def test_the_usual_weights_are_the_papers(measure: Measure) -> None:
    defense = BiDO(measure=measure)
    expected = {"hsic": (0.05, 0.5), "coco": (5.0, 50.0), "hsic_plain": (2e5, 1e3)}
    assert (defense.lambda_x, defense.lambda_y) == expected[measure]
    assert BiDO(0.1, measure=measure).lambda_y == expected[measure][1]


class TestFrozen:
    @pytest.mark.parametrize("by_hand", [True, False])
    def test_layers_without_gradient_are_left_out(self, by_hand: bool, small_split: sf.Split, blobs: sf.Data) -> None:
        if by_hand:
            small_split.head.get_submodule("0").requires_grad_(False)
        else:
            TLDMI(freeze="1").prepare(small_split, blobs)
        found = []
        for layers in (("1", "3"), ("3",)):
            defense = BiDO(layers=layers)
            epoch = begun(defense, small_split, blobs)
            penalty = defense.penalty(step_of(small_split, defense))
            assert penalty is not None
            found.append(penalty.item())
            defense.end_epoch(epoch)
        assert found[0] == found[1] != 0

    def test_a_run_with_tl_dmi_changes_no_frozen_bit(self, small_split: sf.Split, blobs: sf.Data) -> None:
        target = sf.harden(small_split, blobs, defenses=[TLDMI(freeze="1"), BiDO()], epochs=1)
        before, after = small_split.state_dict(), target.split.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if not name.startswith("head.0")}

    def test_nothing_left_to_watch_is_an_error_that_leaves_no_hook(self, small_split: sf.Split, blobs: sf.Data) -> None:
        defense = BiDO(layers=("0", "1"))
        begun(defense, small_split, blobs)
        small_split.head.get_submodule("0").requires_grad_(False)
        with pytest.raises(ConfigError, match=r"everything is frozen up to all of its own \(0, 1\); name layers behind"):
            defense.penalty(step_of(small_split, defense))
        assert not hooks(small_split)


class TestHooks:
    def test_they_are_there_only_while_an_epoch_runs(self, small_split: sf.Split, blobs: sf.Data) -> None:
        defense = BiDO()
        epoch = begun(defense, small_split, blobs)
        assert hooks(small_split) == 2  # one stage, and the embedding
        defense.begin_epoch(epoch)  # the last epoch failed
        assert hooks(small_split) == 2
        defense.end_epoch(epoch)
        assert not hooks(small_split)

    def test_nothing_stays_in_what_was_trained_or_on_the_model_it_came_from(self, small_split: sf.Split, blobs: sf.Data) -> None:
        target = sf.harden(small_split, blobs, defenses=[BiDO()], epochs=1)
        assert not hooks(target)
        assert not hooks(small_split)
        assert set(target.split.state_dict()) == set(small_split.state_dict())
        assert target.state_dict().keys() == sf.harden(small_split, blobs, epochs=1).state_dict().keys()

    def test_a_target_copied_in_the_middle_of_an_epoch_may_be_trained(self, small_split: sf.Split, blobs: sf.Data) -> None:
        copies: list[Target] = []
        target = assemble(small_split, blobs, [BiDO()], seed=0)
        settings = sf.Train(epochs=1, batch_size=64)
        fit(target, blobs, settings, seed=0, watch=lambda *_: copies.append(copy.deepcopy(target)))
        assert all(isinstance(module, BiDO) is False or module._watched is None for module in copies[0].modules())
        fit(copies[0], blobs, settings, seed=0)
        fit(target, blobs, settings, seed=0)
        assert not hooks(target)

    def test_an_epoch_that_failed_does_not_stop_the_next(self, small_split: sf.Split, blobs: sf.Data) -> None:
        target = assemble(small_split, blobs, [BiDO(1e30)], seed=0)
        with pytest.raises(TrainingError, match="the loss is|a weight is not finite"):
            fit(target, blobs, sf.Train(epochs=2), seed=0)
        again = assemble(small_split, blobs, [BiDO()], seed=0)
        target.split.load_state_dict(again.split.state_dict())
        (defense,) = (module for module in target.modules() if isinstance(module, BiDO))
        defense.lambda_x = 0.05
        fit(target, blobs, sf.Train(epochs=1), seed=0)
        fit(again, blobs, sf.Train(epochs=1), seed=0)
        assert not hooks(target)
        assert all(torch.equal(value, again.split.state_dict()[name]) for name, value in target.split.state_dict().items())


def test_a_run_that_resumes_comes_to_the_same_bits(small_split: sf.Split, blobs: sf.Data, tmp_path: Path) -> None:
    straight, resumed = straight_and_resumed(BiDO, small_split, blobs, tmp_path)
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


class TestBatches:
    def test_of_two_pictures_nothing_can_be_said(self, small_split: sf.Split, blobs: sf.Data) -> None:
        defense = BiDO()
        begun(defense, small_split, blobs)
        with pytest.raises(ConfigError, match=r"takes at least 3 pictures .* got 2; the papers have batch_size = 64"):
            defense.penalty(step_of(small_split, defense, 2))
        assert not hooks(small_split)
        with pytest.raises(ConfigError, match="batch_size = 64"):
            sf.harden(small_split, blobs, defenses=[BiDO()], train=sf.Train(epochs=1, batch_size=2))

    @pytest.mark.parametrize("measure", MEASURES)
    def test_of_three_something_can_be(self, measure: Measure, small_split: sf.Split, blobs: sf.Data) -> None:
        defense = BiDO(measure=measure)
        begun(defense, small_split, blobs)
        penalty = defense.penalty(step_of(small_split, defense, 3))
        assert penalty is not None
        penalty.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in small_split.parameters())

    def test_what_is_left_of_an_epoch_is_trained_without(self, small_split: sf.Split, blobs: sf.Data) -> None:
        some = blobs.with_parts(private=blobs.part("private").subset(torch.arange(34)))
        sf.harden(small_split, some, defenses=[BiDO()], train=sf.Train(epochs=2, batch_size=16))  # 16, 16, 2
        defense = BiDO()
        begun(defense, small_split, blobs)
        assert defense.penalty(step_of(small_split, defense, 8)) is not None
        defense.after_step(step_of(small_split, defense, 8))
        assert defense.penalty(step_of(small_split, defense, 2)) is None

    @pytest.mark.parametrize("measure", MEASURES)
    def test_one_class_by_chance_does_no_harm(self, measure: Measure, small_split: sf.Split, blobs: sf.Data) -> None:
        defense = BiDO(measure=measure)
        begun(defense, small_split, blobs)
        step = step_of(small_split, defense)
        penalty = defense.penalty(dataclasses.replace(step, y=torch.zeros_like(step.y)))
        assert penalty is not None
        penalty.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in small_split.parameters())


def reached(split: sf.Split, data: Data, *defenses: sf.Defense) -> tuple[float, float]:
    """HSIC of pictures and the output of the second convolution, and the accuracy."""
    x, y = data.part("test").read(torch.arange(40)) / 255, data.part("test").labels[:40]
    target = sf.harden(split, data, defenses=defenses, train=sf.Train(epochs=8, batch_size=32))
    with torch.no_grad():
        z = target.split.tail.get_submodule("3")(target.split.head(x))
    value = hsic(*gaussian_kernels([x, z], 5.0)).item()
    return value, (target(x).argmax(1) == y).float().mean().item()


@pytest.mark.parametrize(("measure", "weights"), [("hsic", (0.2, 0.2)), ("coco", (100.0, 3.0)), ("hsic_plain", (1e5, 200.0))])
def test_what_a_layer_tells_of_the_picture_falls_and_the_classes_stay(
    measure: Measure, weights: tuple[float, float], small_split: sf.Split, blobs: sf.Data
) -> None:
    plain, _ = reached(small_split, blobs)
    value, right = reached(small_split, blobs, BiDO(*weights, measure=measure, layers=("3",)))
    assert value < 0.2 * plain
    assert right > 0.9


def test_without_the_term_for_labels_as_much_weight_on_pictures_leaves_nothing(small_split: sf.Split, blobs: sf.Data) -> None:
    value, right = reached(small_split, blobs, BiDO(0.2, 0.0, layers=("3",)))
    assert value == pytest.approx(0, abs=1e-12)
    assert right < 0.6


@pytest.mark.parametrize(
    "others",
    [(TrapMID(),), (MID(),), (sf.Bottleneck(2), sf.Noise(0.1)), (MinMax(warmup=0, passes=0),)],
    ids=lambda parts: parts[0].name,
)
@pytest.mark.parametrize("first", [True, False])
def test_it_works_with_others(others: tuple[sf.Defense, ...], first: bool, small_split: sf.Split, blobs: sf.Data) -> None:
    parted = blobs.with_parts(reference=blobs.part("test"))
    defenses = [BiDO(), *others] if first else [*others, BiDO()]
    assert not hooks(sf.harden(small_split, parted, defenses=defenses, epochs=2).split)


def test_the_pass_of_the_loop_counts_not_that_of_another_defense(small_split: sf.Split, blobs: sf.Data) -> None:
    defense = BiDO()
    begun(defense, small_split, blobs)
    step = step_of(small_split, defense)
    expected = defense.penalty(step)
    small_split(torch.rand(5, 1, 8, 8))
    found = defense.penalty(step)
    assert expected is not None
    assert found is not None
    assert found.item() == expected.item()


def test_differential_privacy_is_refused_with_it(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConflictError, match="looks at pictures otherwise"):
        assemble(small_split, blobs, [sf.DPSGD(), BiDO()], seed=0)


def test_mixed_precision_trains(small_split: sf.Split, blobs: sf.Data) -> None:
    settings = sf.Train(epochs=1, precision="bfloat16")
    target = sf.harden(small_split, blobs, defenses=[BiDO(), MID()], train=settings)
    assert all(parameter.isfinite().all() for parameter in target.parameters())


def test_layers_that_are_not_there_are_refused_before_anything_is_trained(small_split: sf.Split, blobs: sf.Data) -> None:
    split = sf.whole(vgg16_face(2, (1, 8, 8), width=0.0625))
    with pytest.raises(
        UnknownNameError, match=r"no layer 'c22' \(did you mean 'c2.2'\?\); layers: normalize, c1, c2, .*classifier"
    ):
        assemble(split, blobs, [BiDO(layers=("c1", "c22"))], seed=0)


class _Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class _Paired(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair, self.last = _Pair(), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.pair(x.flatten(1))[0])
        return logits


def test_a_layer_that_gives_no_tensor_is_refused(blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="'pair' does not; name the one before or after"):
        BiDO(layers=("pair",)).prepare(sf.whole(_Paired()), blobs)


def test_a_model_without_an_embedding_needs_layers(blobs: sf.Data) -> None:
    split = sf.whole(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ModelError, match="must be a torch.nn.Linear"):
        BiDO().prepare(split, blobs)
    begun(BiDO(layers=("0",)), split, blobs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_x": -1.0}, "lambda_x and lambda_y must be >= 0 .* got -1.0 and 0.5; 0.05 and 0.5 are the usual ones"),
        ({"lambda_x": 0.0, "lambda_y": 0.0}, r"for no defense use Compose\(\)"),
        ({"lambda_y": math.inf, "measure": "coco"}, "got 5.0 and inf; 5.0 and 50.0 are the usual ones"),
        ({"measure": "hsci"}, r"measure must be one of hsic, coco, hsic_plain, got 'hsci' \(did you mean 'hsic'\?\)"),
        ({"label_kernel": "rbf"}, "label_kernel must be one of linear, gaussian, got 'rbf'"),
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"layers": ("c1", "c1")}, "layers must name each layer once, got c1, c1"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BiDO(**arguments)


def test_data_with_a_loss_of_its_own_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="bido needs a data set for classification"):
        BiDO().prepare(small_split, dataclasses.replace(blobs, task="reidentification"))
