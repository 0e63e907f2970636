# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato import registry
from sfumato.defenses.dpsgd import DPSGD
from sfumato.defenses.early_stopping import EarlyStopping
from sfumato.defenses.label_smoothing import LabelSmoothing
from sfumato.defenses.mcmia import MCMIA
from sfumato.defenses.tl_dmi import TLDMI
from sfumato.errors import ConfigError, ConflictError, UnknownNameError
from sfumato.models.resnet import resnet20
from sfumato.split import whole
from sfumato.target import Target
from sfumato.train import assemble, fit, restore

SETTINGS = {
    "sgd": sf.Train(epochs=2, batch_size=48, augment=sf.Augment(crop=1, flip=True)),
    "adamw": sf.Train(epochs=2, batch_size=48, optimizer=sf.Optimizer(name="adamw", learning_rate=0.01, weight_decay=0.1)),
    "finetune": sf.Train(epochs=1, finetune=1, batch_size=48, precision="bfloat16"),
}


def net() -> nn.Sequential:
    """Three blocks with batch norms whose statistics are not those of the pictures, dropouts, and an input layer written last."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential()
        for number, (inputs, outputs) in enumerate([(1, 4), (4, 4), (4, 4)], 1):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            model.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(0.1 * number)))
        model.extend([nn.Flatten(), nn.Linear(256, 2)])
        return model


def tensors(target: Target) -> dict[str, Tensor]:
    return {name.removeprefix("split."): value.clone() for name, value in target.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def trained(
    model: nn.Module, data: sf.Data, *defenses: sf.Defense, settings: sf.Train = SETTINGS["sgd"], checkpoint: Path | None = None
) -> Target:
    target = assemble(model, data, defenses, seed=0)
    fit(target, data, settings, seed=0, checkpoint=checkpoint)
    return target


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("cut", [None, "0", "1.1"])
def test_not_one_bit_of_what_is_frozen_changes_and_all_else_does(settings: str, cut: str | None, blobs: sf.Data) -> None:
    model = net() if cut is None else sf.split(net(), at=cut)
    before = tensors(assemble(model, blobs, [], seed=0))
    after = tensors(trained(model, blobs, TLDMI("1"), settings=SETTINGS[settings]))
    assert changed(before, after) == {name for name in before if name.startswith(("tail.2.", "tail.4."))}
    assert len(before) == 23


def test_tracking_changes_the_statistics_alone(blobs: sf.Data) -> None:
    before = tensors(assemble(net(), blobs, [], seed=0))
    after = tensors(trained(net(), blobs, TLDMI("1", bn="track")))
    moved = {name for name in changed(before, after) if name.startswith(("tail.0.", "tail.1."))}
    assert moved == {
        f"tail.{block}.1.{name}" for block in (0, 1) for name in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_an_undefended_run_changes_everything(blobs: sf.Data) -> None:
    before = tensors(assemble(net(), blobs, [], seed=0))
    assert changed(before, tensors(trained(net(), blobs))) == set(before)


def modes(bn: str, blobs: sf.Data) -> tuple[dict[str, bool], list[tuple[bool, object]]]:
    """Which modules are in training mode in a step, and what the blocks give out there: with gradient, and made by what."""
    target = assemble(net(), blobs, [TLDMI("1", bn=bn)], seed=0)
    seen: list[tuple[bool, object]] = []
    found: dict[str, bool] = {}

    def look(module: nn.Module, given: object, z: Tensor) -> None:
        if torch.is_grad_enabled():
            seen.append((z.requires_grad, z.grad_fn))
            found.update({name: part.training for name, part in target.split.tail.named_modules()})

    for block in target.split.tail[:3]:
        for layer in block:
            layer.register_forward_hook(look)
    fit(target, blobs, sf.Train(epochs=1, batch_size=200), seed=0)
    return found, seen


@pytest.mark.parametrize("bn", ["frozen", "track"])
def test_the_frozen_part_keeps_neither_gradients_nor_activations(bn: str, blobs: sf.Data) -> None:
    training, seen = modes(bn, blobs)
    assert len(seen) == 12
    assert seen[:8] == [(False, None)] * 8
    assert all(needs and made is not None for needs, made in seen[8:])
    still = {name for name, mode in training.items() if not mode}
    assert still == ({f"{block}{layer}" for block in "01" for layer in ("", ".0", ".1", ".2", ".3")} if bn == "frozen" else set())


def test_frozen_parameters_get_no_gradient_and_no_state(blobs: sf.Data, tmp_path: Path) -> None:
    from sfumato.files import read_tensors

    target = trained(net(), blobs, TLDMI("1"), checkpoint=tmp_path / "checkpoint.safetensors")
    assert {name for name, p in target.split.tail.named_parameters() if p.grad is None} == {
        f"{block}.{layer}.{name}" for block in "01" for layer in "01" for name in ("weight", "bias")
    }
    places = {
        name.split(".")[1] for name in read_tensors(tmp_path / "checkpoint.safetensors")[0] if name.startswith("optimizer.")
    }
    assert places == {"8", "9", "10", "11", "12", "13"}


def test_what_comes_after_a_frozen_part_in_the_same_block_trains_on(blobs: sf.Data) -> None:
    model = resnet20(2, (1, 8, 8), width=0.25)
    target = assemble(model, blobs, [TLDMI("layer2.1.body.bn1")], seed=0)
    before = tensors(target)
    fit(target, blobs, sf.Train(epochs=1, batch_size=96), seed=0)
    kept = set(before) - changed(before, tensors(target))
    blocks = (
        "tail.normalize.",
        "tail.stem.",
        "tail.layer1.",
        "tail.layer2.0.",
        "tail.layer2.1.body.conv1.",
        "tail.layer2.1.body.bn1.",
    )
    assert kept == {name for name in before if name.startswith(blocks)}


def test_it_trains_to_the_bits_of_a_head_that_was_computed_before(blobs: sf.Data) -> None:
    """The frozen part in eval mode is a fixed function: the rest alone, trained on its features, is the same run."""
    model = net()
    target = trained(model, blobs, TLDMI("1"), settings=sf.Train(epochs=1, batch_size=48, channels_last=False))

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return held(x)

    held, rest = copy.deepcopy(model[:2]).eval(), copy.deepcopy(model[2:])
    other = trained(nn.Sequential(Fixed(), rest), blobs, settings=sf.Train(epochs=1, batch_size=48, channels_last=False))
    expected = list(other.state_dict().values())
    found = [value for name, value in tensors(target).items() if name.startswith(("tail.2.", "tail.4."))]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(blobs: sf.Data, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"

    def stop(done: int, total: int) -> None:
        if done == 6:  # of eight, four an epoch
            raise KeyboardInterrupt

    for defense in (TLDMI("1"), TLDMI("1", bn="track")):
        target = assemble(net(), blobs, [defense], seed=0)
        with pytest.raises(KeyboardInterrupt):
            fit(target, blobs, SETTINGS["adamw"], seed=0, checkpoint=path, watch=stop)
        again = trained(net(), blobs, defense, settings=SETTINGS["adamw"], checkpoint=path)
        assert not changed(tensors(again), tensors(trained(net(), blobs, defense, settings=SETTINGS["adamw"])))
        path.unlink()


def test_weights_of_a_finished_run_come_back_frozen(blobs: sf.Data) -> None:
    done = trained(net(), blobs, TLDMI("1"))
    fresh = net()
    for parameter in fresh.parameters():
        parameter.data.zero_()
    again = assemble(fresh, blobs, [TLDMI("1")], seed=5)
    restore(again, done.state_dict(), source="a test")
    assert not changed(tensors(done), tensors(again))
    assert [p.requires_grad for p in again.split.parameters()] == [p.requires_grad for p in done.split.parameters()]
    hardened = sf.harden(again, blobs, epochs=1)  # trained on, it stays frozen
    assert {name.split(".")[1] for name in changed(tensors(done), tensors(hardened))} == {"2", "4"}


@pytest.mark.parametrize(
    ("arguments", "name", "trained"),
    [
        ({"freeze": "1"}, "1", 670),
        ({"freeze": 7}, "1.3", 670),
        ({"freeze": 4}, "1.0", 678),
        ({"trainable": 680}, "1", 670),
        ({"trainable": 820}, "0", 826),
    ],
)
def test_a_place_is_named_counted_or_asked_for_by_size(
    arguments: dict[str, object], name: str, trained: int, blobs: sf.Data
) -> None:
    made = registry.create("defenses", "tl_dmi", arguments)
    (defense,) = assemble(net(), blobs, [made], seed=0).defense
    assert (defense.point.name, defense.point.trainable) == (name, trained)
    assert made.point is None
    shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    assert made.describe() == f"TLDMI({shown}, bn='frozen')"


def test_the_paper_s_main_place_on_the_paper_s_network() -> None:
    data = sf.load_data((torch.zeros(30, 3, 64, 64), torch.arange(30) % 3))
    model = sf.build_model("vgg16_face", classes=3, shape=(3, 64, 64), options={"width": 0.0625})
    (defense,) = assemble(model, data, [TLDMI(26)], seed=0).defense
    (other,) = assemble(sf.split(model, at="c3"), data, [TLDMI("c8")], seed=0).defense
    assert (defense.point.frozen, defense.point.trainable) == (other.point.frozen, other.point.trainable)


@pytest.mark.parametrize(
    ("defense", "error", "message"),
    [
        (TLDMI("2x"), UnknownNameError, r"no module '2x' runs in the model.*freeze points.*0 \(826\), 1 \(670\), 2 \(514\)"),
        (TLDMI(13), ConfigError, "none is trained after 4"),
        (TLDMI("4"), ConfigError, "none is trained after 4"),
        (TLDMI(trainable=1000), ConfigError, r"within 5 % .*, got 1000; freeze points.* 0 \(826\), 1 \(670\), 2 \(514\)"),
        (TLDMI(trainable=14), ConfigError, "write 13_900_000 for 13.9 million"),
    ],
)
def test_a_place_that_cannot_be_frozen_is_refused_before_training(
    defense: TLDMI, error: type[ConfigError], message: str, blobs: sf.Data
) -> None:
    model = net()
    with pytest.raises(error, match=message):
        assemble(model, blobs, [defense], seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs either freeze or trainable, got freeze=None and trainable=None"),
        ({"freeze": 3, "trainable": 5}, "needs either freeze or trainable, got freeze=3 and trainable=5"),
        ({"trainable": 0}, "trainable must be at least 1 parameter, got 0"),
        ({"freeze": 3, "bn": "tracked"}, "bn must be"),
    ],
)
def test_arguments_that_say_nothing_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TLDMI(**arguments)


@pytest.mark.parametrize(
    "others",
    [[sf.Noise(sigma=0.1), sf.Dropout(p=0.1)], [sf.DistCorr(weight=0.1)], [LabelSmoothing(0.1)], [sf.CEM(floor=0.1)]],
    ids=repr,
)
@pytest.mark.parametrize("cut", ["0", "1", "2"])
def test_it_composes_in_either_order(others: Sequence[sf.Defense], cut: str, blobs: sf.Data) -> None:
    model = sf.split(net(), at=cut)
    before = tensors(assemble(model, blobs, [], seed=0))
    runs = [
        tensors(trained(model, blobs, *parts, settings=sf.Train(epochs=1)))
        for parts in ([TLDMI("1"), *others], [*others, TLDMI("1")])
    ]
    for after in runs:
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name.split(".")[1] for name in moved} == {"2", "4"}
    assert not changed(*runs)


def test_the_best_epoch_is_taken_back_without_a_change(blobs: sf.Data) -> None:
    from sfumato.data.partition import partition

    data = partition(blobs, reference=0.2)
    before = tensors(assemble(net(), data, [], seed=0))
    after = tensors(trained(net(), data, EarlyStopping(), TLDMI("1")))
    assert {name.split(".")[1] for name in changed(before, after)} == {"2", "4"}


def test_a_bottleneck_after_it_is_trained_and_before_it_is_refused(blobs: sf.Data) -> None:
    model = sf.split(net(), at="0")
    target = assemble(model, blobs, [TLDMI("1"), sf.Bottleneck(channels=2)], seed=0)
    before = tensors(target)
    fit(target, blobs, SETTINGS["sgd"], seed=0)
    assert changed(before, tensors(target)) == {
        name for name in before if name.startswith(("head.1.", "tail.0.", "tail.1.2.", "tail.1.4."))
    }
    with pytest.raises(ConflictError, match=r"Bottleneck\(.* puts layers into the model .* list tl_dmi first"):
        assemble(model, blobs, [sf.Bottleneck(channels=2), TLDMI("1")], seed=0)


@pytest.mark.parametrize("pruning", [MCMIA(4.0), sf.PATROL()], ids=["mcmia", "patrol"])
@pytest.mark.parametrize("first", [True, False])
def test_pruning_is_refused(pruning: sf.Defense, first: bool, small_split: sf.Split, blobs: sf.Data) -> None:
    parts = [pruning, TLDMI("0")] if first else [TLDMI("0"), pruning]
    with pytest.raises(ConflictError, match=r"may prune, and TLDMI\(freeze='0', bn='frozen'\) keeps every bit"):
        assemble(small_split, blobs, parts, seed=0)


def test_it_trains_privately_too(small_split: sf.Split, blobs: sf.Data) -> None:
    assert TLDMI("0").separable
    target = assemble(small_split, blobs, [TLDMI("0"), DPSGD(epsilon=8.0)], seed=0)
    before = tensors(target)
    fit(target, blobs, sf.Train(epochs=1, batch_size=64), seed=0)
    moved = {name for name in changed(before, tensors(target)) if not name.startswith("defense")}
    assert moved == {"head.2.weight", "head.2.bias", "tail.6.weight", "tail.6.bias"}


def test_other_norms_in_the_frozen_part_are_refused(blobs: sf.Data) -> None:
    with pytest.raises(
        ConflictError, match=r"froze 4 layers, 0.0 the first, in whose place another|froze 2 layers, 0.1 the first"
    ):
        trained(net(), blobs, TLDMI("1"), DPSGD(replace_batchnorm=True))
    with pytest.raises(ConflictError, match=r"DPSGD\(.* puts layers into the model .* list tl_dmi first"):
        trained(net(), blobs, DPSGD(replace_batchnorm=True), TLDMI("1"))


def test_norms_after_the_frozen_part_may_be_replaced(blobs: sf.Data) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    before = model[0].weight.clone()
    target = trained(whole(model), blobs, TLDMI("0"), DPSGD(epsilon=8.0, replace_batchnorm=True), settings=sf.Train(epochs=1))
    assert torch.equal(target.split.tail[0].weight, before)
    assert isinstance(target.split.tail[3], nn.GroupNorm)


def test_harden_leaves_the_model_trainable_that_it_was_given(blobs: sf.Data) -> None:
    model = net()
    sf.harden(model, blobs, defenses=[TLDMI("1")], epochs=1)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.gpu
def test_it_freezes_on_a_gpu_too(blobs: sf.Data) -> None:
    model = net().cuda()
    before = tensors(assemble(model, blobs, [], seed=0))
    after = tensors(trained(model, blobs, TLDMI("1")))
    assert {name.split(".")[1] for name in changed(before, after)} == {"2", "4"}
