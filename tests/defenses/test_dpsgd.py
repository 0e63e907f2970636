# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from sfumato.data.partition import partition
from sfumato.defenses.accountant import Guarantee, needed, spent
from sfumato.defenses.dpsgd import DPSGD
from sfumato.defenses.label_smoothing import LabelSmoothing
from sfumato.defenses.minmax import MinMax
from sfumato.defenses.per_example import PerExample, private_optimizer
from sfumato.errors import ConfigError, ConflictError, ModelError
from sfumato.loop import Run
from sfumato.seeds import ambient, generator
from sfumato.split import Split, whole
from sfumato.task import Classification
from sfumato.train import assemble, fit, restore
from sfumato.types import Plan, Step

SETTINGS = sf.Train(epochs=2, batch_size=32)


class Blend(nn.Module):
    """Answers about a picture with something of the others of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.mean(0)


class Residual(nn.Module):
    """Adds in place, as many residual blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        out += x
        return out


def layers() -> Split:
    """Layers of every kind that the models of the library have, some of them working in place."""
    with ambient(0, "layers"):
        return whole(
            nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.GroupNorm(2, 8),
                nn.ReLU(inplace=True),
                nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4, bias=False),
                nn.ReLU6(inplace=True),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(32, 5),
                nn.LayerNorm(5),
            )
        )


def slow_gradient(model: nn.Module, x: Tensor, y: Tensor, clip: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The sum of the clipped gradients, a picture at a time, and their lengths before."""
    names = [name for name, _ in model.named_parameters()]
    total, lengths = {name: 0.0 for name in names}, []
    for picture, label in zip(x, y, strict=True):
        loss = F.cross_entropy(model(picture[None]), label[None])
        found = [grad.double().numpy() for grad in torch.autograd.grad(loss, list(model.parameters()))]
        lengths.append(np.sqrt(sum((grad**2).sum() for grad in found)))
        for name, grad in zip(names, found, strict=True):
            total[name] = total[name] + grad / max(1.0, lengths[-1] / clip)
    return total, np.array(lengths)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_goes_along_the_sum_of_the_clipped_gradients_of_single_pictures(layout: torch.memory_format) -> None:
    model, x = layers(), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x, y = x.contiguous(memory_format=layout), torch.arange(6) % 5
    before = copy.deepcopy(model)
    clip = float(np.median(slow_gradient(before, x, y, 1.0)[1]))
    expected, lengths = slow_gradient(before, x, y, clip)
    assert lengths.min() < clip < lengths.max(), "some are clipped, and some are not"
    model.to(memory_format=layout)
    optimizer = DPSGD(clip, noise_multiplier=1e-9).optimize(
        torch.optim.SGD(model.parameters(), lr=0.5), model, Plan(pictures=40, steps=5, epochs=1)
    )
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    weights = dict(before.named_parameters())
    for name, parameter in model.named_parameters():
        found = (
            (weights[name] - parameter).detach().double().numpy() / 0.5 * (40 / 5)
        )  # over the expected batch, not the 6 of this
        assert found == pytest.approx(expected[name], abs=1e-4), name


def test_the_noise_has_the_deviation_of_the_multiplier_times_the_clip() -> None:
    model = whole(nn.Sequential(nn.Flatten(), nn.Linear(64, 200)))

    def noise(seed: int) -> Tensor:
        net, steps = copy.deepcopy(model), torch.tensor(0)
        PerExample(net)
        sgd = torch.optim.SGD(net.parameters(), lr=1.0)
        optimizer = private_optimizer(sgd, clip=0.25, noise_multiplier=3.0, expected=10.0, steps=steps)
        with ambient(seed, "noise"):
            optimizer.zero_grad()
            optimizer.step()  # of a batch that nobody is in
        assert steps.item() == 1
        return (net.tail[1].weight - model.tail[1].weight).detach().flatten()

    first = noise(0)
    assert first.std().item() == pytest.approx(3.0 * 0.25 / 10.0, rel=0.03)
    assert abs(first.mean().item()) < 4 * 0.075 / math.sqrt(len(first))
    assert torch.equal(first, noise(0))
    assert not torch.equal(first, noise(1))


@pytest.mark.parametrize(
    ("pictures", "batch_size", "epochs", "epsilon", "sigma"),
    [
        (60_000, 256, 20, 6.28, 0.632),
        (60_000, 1024, 40, 6.28, 0.945),
        (10_000, 256, 40, 6.28, 1.068),
        (10_000, 256, 40, 1.0, 4.219),
        (60_000, 256, 20, 50.0, 0.356),
    ],
)
def test_the_noise_of_a_budget_is_that_of_the_accountant(
    pictures: int, batch_size: int, epochs: int, epsilon: float, sigma: float
) -> None:
    steps = math.ceil(pictures / batch_size)
    found = needed(epsilon, 1 / steps, steps * epochs, 1e-5)
    assert found == pytest.approx(sigma, rel=0.01)
    assert epsilon - 0.01 <= spent(found, 1 / steps, steps * epochs, 1e-5) <= epsilon


def test_a_run_knows_what_it_spent(small_split: Split, blobs: sf.Data) -> None:
    target = assemble(small_split, blobs, [DPSGD(epsilon=2.0)], seed=0)
    (defense,) = target.defense
    assert defense.guarantee is None
    assert defense.describe() == "DPSGD(clip=1.0, epsilon=2.0, delta=1e-05)"
    seen = []
    fit(target, blobs, SETTINGS, seed=0, watch=lambda done, total: seen.append(defense.guarantee.epsilon))
    reached = defense.guarantee
    assert (reached.steps, reached.delta) == (12, 1e-5)
    assert reached.rate == pytest.approx(1 / 6)
    assert reached.epsilon == pytest.approx(spent(reached.noise_multiplier, reached.rate, 12, 1e-5))
    assert 1.99 <= reached.epsilon <= 2.0001
    assert seen == sorted(seen)
    assert len(set(seen)) == 12
    shown = f"epsilon={math.ceil(reached.epsilon * 1000) / 1000}, noise_multiplier={reached.noise_multiplier:.4g}"
    assert defense.describe() == f"DPSGD(clip=1.0, {shown}, delta=1e-05)"


def test_fine_tuning_is_in_the_budget(small_split: Split, blobs: sf.Data) -> None:
    settings = sf.Train(epochs=1, finetune=2, batch_size=32)
    (defense,) = sf.harden(small_split, blobs, defenses=[DPSGD(epsilon=3.0)], train=settings).defense
    assert defense.guarantee.steps == 18
    assert 2.99 <= defense.guarantee.epsilon <= 3.0001


def test_what_was_spent_comes_back_with_the_weights(small_split: Split, blobs: sf.Data) -> None:
    trained = sf.harden(small_split, blobs, defenses=[DPSGD()], train=SETTINGS)
    again = assemble(small_split, blobs, [DPSGD()], seed=9)
    restore(again, trained.state_dict(), source="a test")
    (one,), (other,) = trained.defense, again.defense
    assert isinstance(one.guarantee, Guarantee)
    assert one.guarantee == other.guarantee
    assert one.describe() == other.describe()


def test_the_same_run_again_adds_to_what_is_spent_and_another_run_is_refused(small_split: Split, blobs: sf.Data) -> None:
    trained = sf.harden(small_split, blobs, defenses=[DPSGD(epsilon=3.0)], train=SETTINGS)
    (defense,) = sf.harden(trained, blobs, train=SETTINGS, seed=1).defense
    assert defense.guarantee.steps == 24
    assert 3.3 < defense.guarantee.epsilon < 6.0
    with pytest.raises(ConfigError, match="has a run of 12 steps behind it, and this one has another noise or another rate"):
        sf.harden(trained, blobs, train=sf.Train(epochs=5, batch_size=32))


def test_every_step_has_each_picture_with_the_same_probability_and_by_itself() -> None:
    plan = Plan(pictures=500, steps=8, epochs=1)
    drawn = [DPSGD().sample(plan, generator(0, "order", number)) for number in range(40)]
    inside = torch.zeros(40, 8, 500, dtype=torch.bool)
    for number, batches in enumerate(drawn):
        assert len(batches) == 8
        for place, batch in enumerate(batches):
            assert len(batch.unique()) == len(batch)
            inside[number, place, batch] = True
    sizes = inside.sum(-1).double()
    # 320 batches of binomial size: 500 pictures with probability 1/8 each
    assert sizes.mean().item() == pytest.approx(500 / 8, abs=4 * math.sqrt(500 / 8 * 7 / 8 / 320))
    assert sizes.var().item() == pytest.approx(500 / 8 * 7 / 8, rel=0.35)
    often = inside.double().mean((0, 1))
    assert (often - 1 / 8).abs().max() < 5 * math.sqrt(1 / 8 * 7 / 8 / 320)
    # shuffled batches would have each picture once in an epoch; drawn ones leave (7/8)^8 of them out
    assert (~inside.any(1)).double().mean().item() == pytest.approx((7 / 8) ** 8, abs=0.02)
    again = DPSGD().sample(plan, generator(0, "order", 3))
    assert all(torch.equal(a, b) for a, b in zip(again, drawn[3], strict=True))


def test_the_loop_takes_the_batches_that_were_drawn(small_split: Split, blobs: sf.Data) -> None:
    class Counted(sf.Noise):
        def __init__(self) -> None:
            super().__init__(sigma=0.0)
            self.seen: list[int] = []

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            self.seen.append(len(z))
            return z

    target = assemble(small_split, blobs, [DPSGD(), Counted()], seed=0)
    run = Run(target, blobs, SETTINGS, task=Classification(), seed=0)
    facts = run.epoch(0, None)
    _, counted = target.defense
    assert counted.seen == [len(batch) for batch in DPSGD().sample(run.plan, generator(0, "order", 0))]
    assert len(set(counted.seen)) > 1
    assert 0 <= facts.accuracy <= 1


def test_a_batch_that_nobody_is_in_is_a_step_of_noise(small_split: Split, blobs: sf.Data) -> None:
    few = blobs.with_parts(private=blobs.part("train").subset(torch.arange(4)))
    plan = Plan(pictures=4, steps=3, epochs=6)
    drawn = [batch for number in range(6) for batch in DPSGD().sample(plan, generator(0, "order", number))]
    assert any(not len(batch) for batch in drawn)
    settings = sf.Train(epochs=6, batch_size=1, augment=sf.Augment(crop=1, rotation=5.0))
    target = assemble(small_split, few, [DPSGD(noise_multiplier=1.0)], seed=0)
    history = fit(target, few, settings, seed=0)
    assert next(iter(target.defense)).guarantee.steps == 6 * 3  # a single picture that is left joins the batch before
    assert all(math.isfinite(epoch.loss) and 0 <= epoch.accuracy <= 1 for epoch in history)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_that_resumes_goes_on_to_the_same_bits(optimizer: str, small_split: Split, blobs: sf.Data, tmp_path: Path) -> None:
    settings = sf.Train(
        epochs=2,
        finetune=1,
        batch_size=32,
        optimizer=sf.Optimizer(name=optimizer, learning_rate=0.01),
        augment=sf.Augment(crop=1),
    )

    def run(path: Path, last: int | None = None) -> dict[str, Tensor]:
        def stop(done: int, total: int) -> None:
            if done == last:
                raise KeyboardInterrupt

        target = assemble(small_split, blobs, [DPSGD(), sf.Noise(sigma=0.1)], seed=5)
        fit(target, blobs, settings, seed=5, checkpoint=path, watch=stop)
        return target.state_dict()

    expected = run(tmp_path / "whole")
    assert expected["defense.parts.dpsgd.steps"] == 18
    for epochs in (1, 2):
        path = tmp_path / f"{epochs}"
        with pytest.raises(KeyboardInterrupt):
            run(path, last=6 * epochs + 3)
        found = run(path)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_run_leaves_nothing_on_the_model(small_split: Split, blobs: sf.Data) -> None:
    hardened = sf.harden(small_split, blobs, defenses=[DPSGD()], train=SETTINGS)
    assert list(hardened.split.state_dict()) == list(small_split.state_dict())
    for module in hardened.modules():
        assert not {**module._forward_hooks, **module._forward_pre_hooks, **module._backward_hooks}
    left = {"grad_sample", "summed_grad", "_forward_counter"}
    assert not any(left & set(vars(parameter)) for parameter in hardened.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_the_task_where_the_budget_lets_it(precision: str, small_split: Split, blobs: sf.Data) -> None:
    from sfumato.utility import accuracy

    settings = sf.Train(epochs=5, batch_size=32, precision=precision)
    reached = [
        accuracy(sf.harden(small_split, blobs, defenses=[DPSGD(epsilon=epsilon)], train=settings), blobs.part("test"), 0).value
        for epsilon in (10.0, 0.2)
    ]
    assert reached[0] > 0.9
    assert reached[1] < 0.8


def test_batch_normalization_is_refused_and_can_be_replaced(blobs: sf.Data) -> None:
    net = whole(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)), name="mine")
    with pytest.raises(
        ModelError, match=r"mine has 1 batch normalizations \(tail.1 is one\).*set replace_batchnorm = true under dp"
    ):
        sf.harden(net, blobs, defenses=[DPSGD()])
    hardened = sf.harden(net, blobs, defenses=[DPSGD(replace_batchnorm=True)], train=SETTINGS)
    assert isinstance(hardened.split.tail[1], nn.GroupNorm)
    (defense,) = hardened.defense
    assert defense.describe().endswith("replace_batchnorm=True)")
    again = assemble(net, blobs, [DPSGD(replace_batchnorm=True)], seed=1)
    restore(again, hardened.state_dict(), source="a test")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(x), hardened(x))


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_models_of_the_library_can_be_trained(name: str) -> None:
    data = sf.load_data((torch.rand(20, 3, 16, 16), torch.arange(20) % 2))
    model = sf.build_model(name, classes=2, shape=(3, 16, 16))
    defense = DPSGD(replace_batchnorm=True, noise_multiplier=1.0)
    hardened = sf.harden(whole(model), data, defenses=[defense], train=sf.Train(epochs=1, batch_size=8))
    assert next(iter(hardened.defense)).guarantee.steps == 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Blend(), "whose answer about a picture does not depend on the others of its batch, and that of mine does"),
        (Residual(), "mine gives no gradient of single pictures: .*such as `out \\+= x`"),
        (nn.InstanceNorm2d(1, affine=True, track_running_stats=True), "a layer of mine keeps numbers between batches"),
    ],
)
def test_a_model_whose_pictures_have_no_gradients_of_their_own_is_refused(layer: nn.Module, message: str, blobs: sf.Data) -> None:
    net = whole(nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 2)), name="mine")
    with pytest.raises(ModelError, match=message):
        sf.harden(net, blobs, defenses=[DPSGD()])


def test_a_layer_that_is_read_wrongly_is_found_before_training(blobs: sf.Data) -> None:
    """The hooks read a convolution's input as if channels came first."""

    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    net = whole(nn.Sequential(Last(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
    with pytest.raises(ModelError, match="single pictures do not add up to that of their batch in tail.1.weight"):
        sf.harden(net, blobs, defenses=[DPSGD()])


class Shift(sf.Defense):
    """Learns a weight of its own."""

    name = "shift"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return z + self.weight


class After(sf.Defense):
    """Does something after each step."""

    name = "after"

    def after_step(self, step: Step) -> None:
        pass


@pytest.mark.parametrize(
    "other", [MinMax(), sf.CEM(floor=0.1), sf.DistCorr(weight=0.5), sf.ResSFL(), After()], ids=lambda other: other.name
)
def test_a_defense_that_looks_at_pictures_otherwise_is_refused(other: sf.Defense, small_split: Split, blobs: sf.Data) -> None:
    data = partition(blobs, reference=0.2)
    with pytest.raises(ConflictError, match=rf"DPSGD\(.* and {type(other).__name__}\(.* looks at pictures otherwise.*keep one"):
        sf.harden(small_split, data, defenses=[other, DPSGD()])


@pytest.mark.parametrize(
    "other", [sf.Noise(sigma=0.1), sf.Bottleneck(channels=2), LabelSmoothing(0.1)], ids=lambda other: other.name
)
def test_a_defense_that_sees_each_picture_by_itself_goes_with_it(other: sf.Defense, small_split: Split, blobs: sf.Data) -> None:
    hardened = sf.harden(small_split, blobs, defenses=[other, DPSGD()], train=SETTINGS)
    assert hardened(torch.rand(2, 1, 8, 8)).isfinite().all()


def test_a_defense_with_weights_of_its_own_is_refused(small_split: Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="clips the gradients of the model's own weights, and another defense has some"):
        sf.harden(small_split, blobs, defenses=[Shift(), DPSGD()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": 0.0}, "clip must be > 0 and finite, got 0.0"),
        ({"epsilon": math.inf}, "epsilon must be > 0 and finite, got inf"),
        ({"noise_multiplier": 0.0}, "noise_multiplier must be > 0 and finite, got 0.0; to train without noise leave"),
        ({"delta": 1.0}, r"delta must be in \(0, 1\), got 1.0"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "give epsilon or noise_multiplier, not both, got 1.0 and 1.0"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DPSGD(**arguments)


def test_a_delta_that_lets_a_picture_out_is_refused(small_split: Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="delta must be under 1 / 192, one in as many as there are pictures, got 0.01"):
        sf.harden(small_split, blobs, defenses=[DPSGD(delta=0.01)])


def test_a_budget_that_no_noise_reaches_is_refused(small_split: Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="epsilon must be above 0.1029, the least that can be shown at delta=1e-05, got 0.1"):
        sf.harden(small_split, blobs, defenses=[DPSGD(epsilon=0.1)])


def test_pictures_of_individuals_are_refused(small_split: Split, blobs: sf.Data) -> None:
    from dataclasses import replace

    with pytest.raises(ConfigError, match="dpsgd needs a data set for classification"):
        assemble(small_split, replace(blobs, task="reidentification"), [DPSGD()], seed=0)


def test_without_opacus_the_extra_is_named(small_split: Split, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r'dpsgd needs the extra: pip install "sfumato\[dp\]"'):
        assemble(small_split, blobs, [DPSGD()], seed=0)


def test_an_audit_certifies_what_was_spent_and_nothing_before_training(blobs: sf.Data) -> None:
    net = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
    target = sf.harden(net, blobs, defenses=[DPSGD(epsilon=3.0)], epochs=2)
    assert DPSGD(epsilon=3.0).certificates == ()
    (found,) = target.defense.certificates
    assert found.name == "privacy"
    assert found.floor is None
    assert found.values["epsilon"] == pytest.approx(3.0, abs=0.02)
    assert found.values["delta"] == 1e-5
    assert f"e^{found.values['epsilon']:g}" in found.statement
