# SPDX-License-Identifier: Apache-2.0
"""A head is refused exactly where it will not fit, and what the refusal advises does fit."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sfumato as sf
from sfumato.audit import facts
from sfumato.data.base import Data, Reading
from sfumato.defenses.patrol import PATROL
from sfumato.device import DeviceBudget, finished_head
from sfumato.errors import ConfigError
from sfumato.models.resolve import build_model
from sfumato.pipeline import audit_recipe
from sfumato.pruning.footprint import Footprint, Keep
from sfumato.pruning.tensors import tensor_costs
from sfumato.recipe import Recipe, parse_recipe
from sfumato.settings import Train
from sfumato.split import cost, cuts, split
from sfumato.store import Store
from sfumato.targets import build_target, train_recipe
from sfumato.train import assemble, fit
from sfumato.workplace import Workplace

RECIPE = """
data.name = "digits"
model = { name = "resnet20", cut = "CUT", width = 0.5 }
train = { epochs = 1, batch_size = 60 }
attacks = [{ name = "mean" }]
"""
PATROL_PLAIN = '[[defenses]]\nname = "patrol"\nadversarial = false\nlipschitz = false\n'


def recipe(device: str, more: str = "", cut: str = "layer2") -> Recipe:
    return parse_recipe(f"{RECIPE.replace('CUT', cut)}[device]\n{device}\n{more}", name="tiny")


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))


@pytest.fixture
def refusal(workplace: Workplace, blobs: Data) -> Callable[[Recipe], str]:
    def refuse(asked: Recipe) -> str:
        with pytest.raises(ConfigError, match="the head does not fit the device") as error:
            build_target(asked, blobs, workplace)
        return str(error.value)

    return refuse


def resnet(at: str = "layer2") -> sf.Split:
    return split(build_model("resnet20", classes=2, shape=(1, 8, 8), options={"width": 0.5}, seed=0), at=at)


def stored(module: torch.nn.Module) -> int:
    """Bytes of what a file of weights holds."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


# What a head costs


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "lenet5"])
def test_the_cost_of_a_cut_is_that_of_its_halves(name: str) -> None:
    shape = (1, 28, 28)
    options = {} if name == "lenet5" else {"width": 0.25}
    model, x = build_model(name, classes=3, shape=shape, options=options, seed=0), torch.rand(1, *shape)
    for cut in cuts(model, x)[::6]:
        halves = split(model, at=cut.name)
        assert (cut.head.memory, cut.tail.memory) == (stored(halves.head), stored(halves.tail))
        with torch.no_grad():
            z = halves.head.eval()(x)
        assert (cut.head, cut.tail) == (cost(halves.head, x), cost(halves.tail, z))


def test_the_report_and_pruning_count_the_same(blobs: Data) -> None:
    target = assemble(resnet(), blobs, [sf.Bottleneck(channels=2)], seed=0)
    made = facts(target, blobs)
    counted = sum((one for *_, one in tensor_costs(target.split, torch.rand(2, 1, 8, 8))), Footprint())
    assert counted == Footprint(made.head_parameters, made.head_memory, made.head_macs)
    assert finished_head(target, blobs.shape) == counted
    assert made.tail_memory == stored(target.split.tail)


@pytest.mark.parametrize("unit", ["channel", "block"])
@pytest.mark.parametrize("keep", [Keep(memory=0.4), Keep(parameters=0.3), Keep(macs=0.5), None])
def test_pruning_keeps_its_promise(keep: Keep | None, unit: str, blobs: Data) -> None:
    patrol = PATROL(keep, unit=unit, adversarial=False, lipschitz=False)
    target = assemble(resnet(), blobs, [sf.Bottleneck(channels=2), patrol], seed=0)
    whole, promised = stored(target.split.head), finished_head(target, blobs.shape)
    assert target.defense.saving == target.defense.parts["patrol"].saving
    fit(target, blobs, Train(epochs=1, batch_size=60), seed=0)
    reached = finished_head(target, blobs.shape)
    assert reached.memory == stored(target.split.head)
    assert reached.fits(promised)
    assert target.defense.saving == Footprint()
    if keep == Keep(memory=0.4):
        assert promised.memory == pytest.approx(0.4 * whole)
    if keep == Keep(parameters=0.3):  # what buffers hold may stay
        assert 0.3 * whole < promised.memory < 0.4 * whole


# What a device has


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "a device must limit memory or macs"),
        ({"memory": "much"}, 'memory must be a positive number, or a text such as "4.8MB"'),
        ({"macs": -3}, "macs must be a positive number"),
        ({"memory": 0.5}, "a device has amounts such as .*, got memory = 0.5; shares are for the keep of patrol"),
    ],
)
def test_what_is_no_device(limits: dict[str, float | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeviceBudget(**limits)


def test_a_device_has_room_to_the_byte() -> None:
    device = DeviceBudget(memory="4.35MB", macs="300M")
    assert device.admits(Footprint(9e9, 4_350_000, 300_000_000))
    assert not device.admits(Footprint(0, 4_350_001, 0))
    assert not device.admits(Footprint(0, 0, 300_000_001))
    assert DeviceBudget(macs=300).admits(Footprint(memory=9e9, macs=300))


# What is refused


def test_a_head_that_fits_is_trained_as_without_a_device(workplace: Workplace, blobs: Data) -> None:
    taken = stored(resnet().head)
    _, stage = train_recipe(recipe(f"memory = {taken}"), blobs, workplace)
    free = parse_recipe(RECIPE.replace("CUT", "layer2"), name="tiny")
    assert train_recipe(free, blobs, workplace)[1].key == stage.key


def test_a_refusal_names_the_latest_cut_that_fits(refusal: Callable[[Recipe], str], workplace: Workplace, blobs: Data) -> None:
    taken, room = stored(resnet().head), stored(resnet("layer1").head)
    said = refusal(recipe(f"memory = {taken - 1}"))
    assert f"cut after 'layer2' it takes {taken:,} bytes, its defenses included, and the device has {taken - 1:,} bytes" in said
    said = refusal(recipe(f"memory = {room}"))
    assert f'\n  - another cut: cut = "layer1" ({room:,} bytes)' in said
    build_target(recipe(f"memory = {room}", cut="layer1"), blobs, workplace)


def test_the_layers_of_a_bottleneck_count(refusal: Callable[[Recipe], str], workplace: Workplace, blobs: Data) -> None:
    narrow, room = '[[defenses]]\nname = "bottleneck"\nchannels = 2\n', stored(resnet("layer1").head)
    added = 4 * (2 * 8 * 9 + 2)
    said = refusal(recipe(f"memory = {room}", narrow, cut="layer1"))
    assert f"it takes {room + added:,} bytes" in said
    assert 'cut = "layer1.1"' in said  # the cut itself would fit without
    build_target(recipe(f"memory = {room + added}", narrow, cut="layer1"), blobs, workplace)


@pytest.mark.parametrize("device", ['memory = "20kB"', 'macs = "150k"', 'memory = "20kB"\nmacs = "150k"'])
def test_the_table_that_a_refusal_writes_makes_the_head_fit(
    device: str, refusal: Callable[[Recipe], str], workplace: Workplace, blobs: Data
) -> None:
    said = refusal(recipe(device))
    assert "cut after 'layer2'" in said
    written = textwrap.dedent(said.split("this cut, pruned:\n")[1])
    target, _ = train_recipe(recipe(device, written), blobs, workplace)
    limit = parse_recipe(recipe(device).text).device
    assert limit is not None
    assert limit.admits(cost(target.split.head, torch.rand(1, *blobs.shape)))


def test_a_head_that_is_pruned_too_little_is_to_be_pruned_further(
    refusal: Callable[[Recipe], str], workplace: Workplace, blobs: Data
) -> None:
    kept = PATROL_PLAIN + 'keep = { memory = "20kB" }\n'
    build_target(recipe('memory = "20kB"', kept), blobs, workplace)
    said = refusal(recipe('memory = "15kB"', kept))
    assert "it takes 20,000 bytes" in said
    assert said.endswith('\n  - this cut, pruned further: keep = { memory = "15kB" } for patrol')
    whole = cost(resnet().head, torch.rand(1, 1, 8, 8)).macs
    assert f"it takes {whole:,} MACs" in refusal(recipe('macs = "150k"', kept))  # what keep leaves open may stay


def test_a_device_that_nothing_fits(refusal: Callable[[Recipe], str]) -> None:
    least = stored(resnet("stem.0").head)
    said = refusal(recipe("memory = 100"))
    assert said.endswith(
        f"no other cut fits either: the smallest head, cut after 'stem.0', takes {least:,} bytes without defenses"
    )


def test_an_audit_is_refused_before_anything_is_trained(
    workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("targets.fit", "pipeline.learn"):
        monkeypatch.setattr(f"sfumato.{name}", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ConfigError, match="the head does not fit the device"):
        audit_recipe(recipe('memory = "1kB"', "[recognizer]\n"), blobs, workplace)
    assert not (workplace.store.root / "stages").exists()
