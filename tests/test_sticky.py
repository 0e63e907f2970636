# SPDX-License-Identifier: Apache-2.0
"""Sticky devices and near-duplicates: what averages out, what an audit makes of it, and what it says it left open."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato import pipeline
from sfumato.attacks.base import Adversary, FeatureAttack
from sfumato.attacks.features.regression import Fitting
from sfumato.data.base import Reading
from sfumato.defenses.compose import Compose
from sfumato.pipeline import audit_recipe
from sfumato.recipe import parse_recipe
from sfumato.report import to_html, to_markdown
from sfumato.store import Store
from sfumato.target import FeaturesView, Target
from sfumato.types import Reconstruction
from sfumato.workplace import Workplace

SIGMA, LEVELS, RELEASES = 0.02, 5, 16
SPREAD = LEVELS * (LEVELS + 1) / 3 / 255**2
"""Variance of a number that is as likely any of -5 to 5, in units of x."""
KINDS = [
    (False, 0, SIGMA**2 / RELEASES),
    (True, 0, SIGMA**2),
    (False, LEVELS, (SIGMA**2 + SPREAD) / RELEASES),
    (True, LEVELS, (SIGMA**2 + SPREAD) / RELEASES),
]
NAMES = ["fresh", "sticky", "fresh, near", "sticky, near"]


@dataclass(kw_only=True)
class Looking(FeatureAttack):
    """Keeps what it is shown of each part."""

    access = "features"
    seen: ClassVar[list[Tensor]] = []

    releases: int = RELEASES
    gray_levels: int = 0

    def reconstruct(self, adversary: Adversary, z: Tensor) -> tuple[Reconstruction, ...]:
        self.seen.append(z)
        return (Reconstruction(torch.zeros(len(z), *adversary.image_shape)),)


@pytest.fixture
def grays() -> sf.Data:
    """Pictures so far from black and white that none of their near-duplicates is clipped."""
    return sf.load_data((torch.rand(80, 1, 8, 8) * 0.6 + 0.2, torch.arange(80) % 2))


def bare(*defenses: sf.Defense) -> Target:
    """What the head sends is the picture."""
    return Target(sf.Split(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(64, 2))), Compose(*defenses))


def shown(data: sf.Data, *, sticky: bool, **settings: int) -> Tensor:
    """What an attack is shown of the pictures that it is scored on, less the pictures."""
    Looking.seen.clear()
    made = sf.audit(bare(sf.Noise(sigma=SIGMA)), data, attacks=[Looking(**settings)], pictures=12, sticky=sticky)
    sent = {exhibit.part: exhibit.pixels / 255 for exhibit in made.exhibits if not exhibit.attack}
    x = torch.cat([sent["train"], sent["inference"]])
    z = torch.cat(Looking.seen)
    return z - (x if z.ndim == x.ndim else x[:, None])


@pytest.mark.parametrize(("sticky", "gray_levels", "variance"), KINDS, ids=NAMES)
def test_the_mean_of_what_users_send_has_the_variance_that_it_must(
    sticky: bool, gray_levels: int, variance: float, grays: sf.Data
) -> None:
    series = shown(grays, sticky=sticky, gray_levels=gray_levels)
    assert series.shape == (24, RELEASES, 1, 8, 8)
    assert series.mean(1).var().item() == pytest.approx(variance, rel=0.12)  # 1,536 numbers: 3.6 % for one deviation
    repeated = [torch.equal(one, other) for one, other in pairwise(series.unbind(1))]
    assert repeated == [sticky and not gray_levels] * (RELEASES - 1)


@pytest.mark.parametrize(("sticky", "gray_levels", "variance"), KINDS, ids=NAMES)
def test_an_adversary_records_of_its_own_pictures_what_users_send(
    sticky: bool, gray_levels: int, variance: float, grays: sf.Data
) -> None:
    pictures, index = grays.part("auxiliary"), torch.arange(40)
    target = Target(bare().split, Compose(sf.Noise(sigma=SIGMA)), sticky=sticky)
    view = target.view("features", torch.Generator().manual_seed(0))
    assert isinstance(view, FeaturesView)
    recording = view.record(pictures, RELEASES, gray_levels=gray_levels)
    first, again = (recording.draw(index) - pictures.read(index) / 255 for _ in range(2))
    assert first.var().item() == pytest.approx(variance, rel=0.12)
    assert not torch.equal(first, again)  # it starts its device anew
    assert view.queries == 2 * 40 * (1 if sticky and not gray_levels else RELEASES)


def test_a_device_without_chance_sees_near_duplicates_as_the_pictures_that_they_are(grays: sf.Data) -> None:
    view = bare().view("features", torch.Generator().manual_seed(0))
    assert isinstance(view, FeaturesView)
    pictures, index = grays.part("auxiliary"), torch.arange(40)
    near = view.record(pictures, RELEASES, gray_levels=LEVELS).draw(index) - pictures.read(index) / 255
    assert near.var().item() == pytest.approx(SPREAD / RELEASES, rel=0.12)
    assert view.queries == 40 * RELEASES


def test_a_single_release_is_the_first_of_a_series_on_either_device(grays: sf.Data) -> None:
    single = shown(grays, sticky=False, releases=1)
    assert torch.equal(single, shown(grays, sticky=True, releases=1))
    for sticky in (False, True):
        assert torch.equal(single, shown(grays, sticky=sticky)[:, 0])
    near = [shown(grays, sticky=sticky, gray_levels=1) for sticky in (False, True, True)]
    assert all(torch.equal(near[0], other) for other in near[1:])


def test_a_sticky_device_stops_averaging_and_near_duplicates_bring_it_back(blobs: sf.Data) -> None:
    network = {"blocks": 0, "channels": 8, "fitting": Fitting(epochs=12, batch_size=32, learning_rate=2e-2, patience=0)}
    target = Target(sf.Split(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten()), Compose(sf.Noise(sigma=0.3)))
    named = type("Decoder", (sf.Averaging,), {})  # streams go by the name of the class
    once, same, near = sf.Decoder(**network), named(**network), named(**network, gray_levels=1)

    def errors(attacks: dict[str, FeatureAttack], *, sticky: bool) -> list[float]:
        made = sf.audit(target, blobs, attacks=attacks, sticky=sticky, pictures=24)
        return [found.mse.value for found in made.attacks if (found.part, found.selection) == ("inference", "best")]

    single, averaged = errors({"once": once, "same": same}, sticky=False)
    repeated, nearly = errors({"same": same, "near": near}, sticky=True)
    assert averaged < 0.6 * single
    assert repeated == pytest.approx(single, rel=1e-3)
    assert nearly == pytest.approx(averaged, rel=0.15)


@pytest.mark.parametrize(
    ("sticky", "series", "left"),
    [
        (False, {}, ["repeated releases"]),
        (False, {"same": 0}, []),
        (False, {"near": 1}, []),
        (True, {}, ["near-duplicates of", "whether the device is sticky"]),
        (True, {"same": 0}, ["near-duplicates of", "whether the device is sticky"]),
        (True, {"near": 1}, ["whether the device is sticky"]),
    ],
)
def test_an_audit_says_which_series_it_left_open(
    sticky: bool, series: dict[str, int], left: list[str], small_split: sf.Split, blobs: sf.Data
) -> None:
    attacks = {"once": Looking(releases=1), **{name: Looking(gray_levels=levels) for name, levels in series.items()}}
    sentences = ("repeated releases", "near-duplicates of", "whether the device is sticky")
    for defenses, expected in (([sf.Noise(sigma=0.1)], left), ([], [])):
        target = Target(small_split, Compose(*defenses))
        untested = sf.audit(target, blobs, attacks=attacks, pictures=4, sticky=sticky).untested
        assert [start for start in sentences if any(one.startswith(start) for one in untested)] == expected
        assert target.sticky is False  # that of the caller


def test_a_report_says_that_the_device_was_taken_to_be_sticky(small_split: sf.Split, blobs: sf.Data) -> None:
    target = Target(small_split, Compose(sf.Noise(sigma=0.1)), sticky=True)
    sticky = sf.audit(target, blobs, attacks=[Looking(gray_levels=3)], pictures=4)
    fresh = sf.audit(Target(small_split, Compose(sf.Noise(sigma=0.1))), blobs, attacks=[Looking()], pictures=4)
    assert (sticky.target.sticky, fresh.target.sticky) == (True, False)
    assert [result.gray_levels for result in (*sticky.attacks, *fresh.attacks)] == [3, 3, 0, 0]
    for write in (to_markdown, to_html):
        assert "taken to be sticky: same bytes, same draw" in write([sticky])
        assert "near-duplicates of each, off by 3/255 at most" in write([sticky])
        assert "taken to be sticky" not in write([fresh])


RECIPE = """
data.name = "digits"
model = { name = "lenet5", cut = "c1" }
train.epochs = 1
[[defenses]]
name = "noise"
sigma = 0.1
[[attacks]]
name = "mean"
[[attacks]]
name = "averaging"
releases = 2
blocks = 0
channels = 4
fitting.epochs = 1
[[attacks]]
name = "averaging-near"
releases = 2
blocks = 0
channels = 4
fitting.epochs = 1
[audit]
pictures = 8
"""


def test_a_recipe_makes_the_device_sticky_and_only_what_that_changes_runs_again(
    tmp_path: Path, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, attack = [], pipeline.run_attack

    def noted(name: str, *args: object, **rest: object) -> object:
        runs.append(name)
        return attack(name, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "run_attack", noted)
    workplace = Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))
    fresh, _ = audit_recipe(parse_recipe(RECIPE), blobs, workplace)
    assert runs == ["mean", "averaging", "averaging-near"]
    definitions = {
        found["name"]: found
        for path in tmp_path.glob("stages/attack-*/definition.json")
        for found in [json.loads(path.read_text())]
    }
    assert definitions["averaging-near"]["attack"]["gray_levels"] == 1
    assert all("gray_levels" not in definitions[name]["attack"] for name in ("mean", "averaging"))
    assert all("sticky" not in found for found in definitions.values())  # stages of before there were such devices are found
    sticky, _ = audit_recipe(parse_recipe(RECIPE + "sticky = true\n"), blobs, workplace)
    assert runs[3:] == ["averaging"]
    assert (fresh.target.sticky, sticky.target.sticky) == (False, True)
    assert not any("near-duplicates" in sentence for sentence in sticky.untested)
