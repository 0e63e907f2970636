# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import sfumato as sf
import sfumato.loop
from example_reid import street
from narrowing import Narrowing
from sfumato.audit import audit, run_attack
from sfumato.data.base import Data, Reading
from sfumato.errors import ConfigError, StorageError, WeightsError
from sfumato.files import read_tensors, write_tensors
from sfumato.models.resolve import build_model
from sfumato.pipeline import audit_recipe
from sfumato.recipe import Recipe, parse_recipe
from sfumato.settings import Train
from sfumato.store import Store
from sfumato.target import Target
from sfumato.targets import train_recipe
from sfumato.task import task_for
from sfumato.types import AttackResult, Findings
from sfumato.workplace import Workplace, read_data

RECIPE = """
[data]
name = "digits"
[model]
name = "lenet5"
cut = "c1"
[train]
epochs = 1
[[attacks]]
name = "decoder"
blocks = 0
channels = 4
fitting.epochs = 1
[audit]
pictures = 8
"""


def recipe(old: str = "", new: str = "") -> Recipe:
    assert old in RECIPE
    return parse_recipe(RECIPE.replace(old, new, 1) if old else RECIPE, name="tiny")


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))


def told(workplace: Workplace) -> tuple[Workplace, list[tuple[str, int, int]]]:
    news: list[tuple[str, int, int]] = []
    return dataclasses.replace(workplace, watch=lambda *what: news.append(what)), news


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ("", {"private": 4000, "public": 0, "auxiliary": 4000, "inference": 1000}),
        ('public = 0.25\nauxiliary = "public"', {"private": 3000, "public": 1000, "auxiliary": 1000, "inference": 1000}),
        ('auxiliary = "test"', {"private": 4000, "public": 0, "auxiliary": 900, "inference": 100}),
    ],
)
def test_the_adversary_gets_the_pictures_that_the_recipe_says(options: str, counts: dict[str, int], workplace: Workplace) -> None:
    data = read_data(recipe('name = "digits"', f'name = "digits"\n{options}'), workplace)
    assert {name: len(data.part(name)) for name in counts} == counts
    assert data.auxiliary == ("public" if "public" in options else "test" if options else "private")


@pytest.mark.parametrize("auxiliary", ["public", "test"])
def test_an_audit_says_where_the_pictures_of_the_adversary_come_from(auxiliary: str, workplace: Workplace, blobs: Data) -> None:
    from sfumato.data.partition import partition

    data = partition(blobs, public=0.25, auxiliary=auxiliary, seed=0)
    made, _ = audit_recipe(recipe(), data, workplace)
    assert made.data.auxiliary == auxiliary
    assert made.data.counts["auxiliary"] == len(data.part("auxiliary"))
    assert made.attacks[0].queries >= len(data.part("auxiliary"))


def test_every_seed_of_the_recipe_is_attacked(workplace: Workplace, blobs: Data) -> None:
    made, _ = audit_recipe(recipe("pictures = 8", "pictures = 8\nseeds = [0, 1]"), blobs, workplace)
    assert made.seeds == (0, 1)
    assert {(result.seed, result.part) for result in made.attacks} == {
        (seed, part) for seed in (0, 1) for part in ("train", "inference")
    }
    first, second = ([result.mse for result in made.attacks if result.seed == seed] for seed in (0, 1))
    assert first != second
    alone, _ = audit_recipe(recipe("pictures = 8", "pictures = 8\nseeds = [1]"), blobs, workplace)
    assert len(alone.attacks) == len(second)


def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note which attacks are run, with which seed."""
    runs: list[tuple[str, int]] = []

    def noted(name: str, *args: object, seed: int, **rest: object) -> Findings:
        runs.append((name, seed))
        return run_attack(name, *args, seed=seed, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr("sfumato.pipeline.run_attack", noted)
    return runs


def test_what_is_added_to_a_recipe_is_all_that_is_computed(
    workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = ran(monkeypatch)
    first, _ = audit_recipe(recipe(), blobs, workplace)
    assert runs == [("decoder", 0)]
    audit_recipe(recipe("pictures = 8", "pictures = 8\nseeds = [0, 1]"), blobs, workplace)
    assert runs == [("decoder", 0), ("decoder", 1)]
    more, _ = audit_recipe(recipe("[audit]", '[[attacks]]\nname = "mean"\n[audit]'), blobs, workplace)
    assert runs == [("decoder", 0), ("decoder", 1), ("mean", 0)]
    assert [result.mse for result in more.attacks if result.name == "decoder"] == [result.mse for result in first.attacks]


@pytest.mark.parametrize(
    ("old", "new"),
    [("pictures = 8", "pictures = 7"), ("channels = 4", "channels = 5"), ('name = "decoder"', 'name = "decoder"\nlabel = "own"')],
)
def test_what_changes_the_numbers_of_an_attack_runs_it_again(
    old: str, new: str, workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit_recipe(recipe(), blobs, workplace)
    runs = ran(monkeypatch)
    audit_recipe(recipe(old, new), blobs, workplace)
    assert len(runs) == 1


def test_an_adversary_with_other_pictures_attacks_the_same_target_anew(
    workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfumato.data.partition import partition

    audit_recipe(recipe(), blobs, workplace)
    runs = ran(monkeypatch)
    monkeypatch.setattr("sfumato.targets.fit", None)  # training again would fail
    audit_recipe(recipe(), partition(blobs, auxiliary="test"), workplace)
    assert runs == [("decoder", 0)]


def test_an_audit_of_stages_is_the_audit_of_its_target(workplace: Workplace, blobs: Data) -> None:
    wanted = recipe("pictures = 8", "pictures = 8\nseeds = [1, 2]")
    for _ in ("computed", "found"):
        made, _ = audit_recipe(wanted, blobs, workplace, title="tiny")
        target, _ = train_recipe(wanted, blobs, workplace)
        whole = audit(target, blobs, attacks=wanted.attacks, seeds=[1, 2], pictures=8, title="tiny")

        def still(result: AttackResult) -> AttackResult:
            return dataclasses.replace(result, seconds=0.0, settings={})

        assert [still(result) for result in made.attacks] == [still(result) for result in whole.attacks]
        assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(made.exhibits, whole.exhibits, strict=True))
        assert (made.accuracy, made.data, made.seeds) == (whole.accuracy, whole.data, whole.seeds)
        assert (made.target.start, made.target.trained_parameters) == ("weights as they are drawn", 156 + 20550)
        assert dataclasses.replace(made.target, start="", trained_parameters=None) == whole.target  # which nobody saw trained
        assert (made.untested, made.hardware) == (whole.untested, whole.hardware)


def test_certificates_are_measured_once(workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe("[train]", '[[defenses]]\nname = "noise"\nsigma = 0.1\n[train]')
    first, _ = audit_recipe(asked, blobs, workplace)
    assert [certificate.name for certificate in first.certificates] == ["entropy", "fisher"]
    monkeypatch.setattr("sfumato.pipeline.certify", lambda *_, **__: pytest.fail("measured again"))
    assert audit_recipe(asked, blobs, workplace)[0].certificates == first.certificates
    monkeypatch.undo()
    given = parse_recipe(asked.text + "entropy_of_x = -900.0\n", name="tiny")
    assert audit_recipe(given, blobs, workplace)[0].certificates[0].values["entropy_of_x_nats"] == -900.0


def test_a_recognizer_is_trained_once_for_all_audits_of_the_same_pictures(
    workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, before = recipe("[audit]", "[recognizer]\nepochs = 1\n[audit]"), recipe()
    audit_recipe(before, blobs, workplace)
    runs = ran(monkeypatch)
    place, news = told(workplace)
    first, _ = audit_recipe(asked, blobs, place)
    assert runs == [("decoder", 0)]
    assert news[0][0] == "recognizer of tensors"
    assert first.attacks[0].recognized is not None
    target, _ = train_recipe(asked, blobs, workplace)
    whole = audit(target, blobs, attacks=asked.attacks, pictures=8, recognizer=asked.recognizer)
    assert [result.recognized for result in first.attacks] == [result.recognized for result in whole.attacks]

    monkeypatch.setattr("sfumato.pipeline.learn", lambda *_, **__: pytest.fail("trained again"))
    again, _ = audit_recipe(asked, blobs, workplace)
    assert again.attacks == first.attacks
    hardened = parse_recipe(asked.text.replace("[train]", '[[defenses]]\nname = "noise"\nsigma = 0.1\n[train]'), name="tiny")
    assert audit_recipe(hardened, blobs, workplace)[0].attacks[0].recognized is not None
    other = parse_recipe(asked.text.replace("[data]", "seed = 1\n[data]", 1), name="tiny")
    assert audit_recipe(other, blobs, workplace)[0].attacks[0].recognized is not None
    runs.clear()
    assert audit_recipe(before, blobs, workplace)[0].attacks[0].recognized is None
    assert runs == []


def test_another_recognizer_asks_anew_and_trains_no_target(
    workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    audit_recipe(recipe("[audit]", "[recognizer]\nepochs = 1\n[audit]"), blobs, workplace)
    runs = ran(monkeypatch)
    monkeypatch.setattr("sfumato.targets.fit", None)  # training the target again would fail
    weights = tmp_path / "own.safetensors"
    table = f'[recognizer]\nclasses = 2\naccepts = [1]\nweights = "{weights}"\n[audit]'
    for seed in (0, 1):
        write_tensors(weights, build_model("lenet5", classes=2, shape=blobs.shape, seed=seed).state_dict())
        for _ in ("asked", "found"):
            made, _ = audit_recipe(recipe("[audit]", table), blobs, workplace)
            found = made.attacks[0].recognized
            assert found is not None
            assert found.chance == 0.5
        assert len(runs) == seed + 1


def test_a_recognizer_that_has_nothing_to_name_is_refused_before_the_target_is_trained(workplace: Workplace, blobs: Data) -> None:
    asked = recipe("[audit]", '[recognizer]\nattribute = "driver"\n[audit]')
    with pytest.raises(ConfigError, match="the pictures have no tag 'driver'"):
        audit_recipe(asked, blobs, workplace)
    assert not (workplace.store.root / "stages").exists()


def test_findings_that_cannot_be_read_are_named(workplace: Workplace, blobs: Data) -> None:
    audit_recipe(recipe(), blobs, workplace)
    (record,) = workplace.store.root.glob("stages/attack-*/findings.json")
    for content in ("{", "{}"):
        record.write_text(content)
        with pytest.raises(StorageError, match=f"cannot read {record}: .*; remove {record.parent} to compute it again"):
            audit_recipe(recipe(), blobs, workplace)


def test_a_target_starts_from_the_weights_of_the_recipe(workplace: Workplace, blobs: Data, tmp_path: Path) -> None:
    start = write_tensors(
        tmp_path / "start.safetensors", build_model("lenet5", classes=2, shape=blobs.shape, seed=9).state_dict()
    )
    still = 'epochs = 1\noptimizer = { name = "sgd", learning_rate = 1e-30, momentum = 0.0, weight_decay = 0.0 }'
    text = RECIPE.replace("epochs = 1", still, 1)
    from_start = parse_recipe(text.replace('cut = "c1"', f'cut = "c1"\nweights = "{start}"'), name="tiny")
    target, stage = train_recipe(from_start, blobs, workplace)
    other, drawn = train_recipe(parse_recipe(text, name="tiny"), blobs, workplace)
    assert stage.key != drawn.key
    wanted = read_tensors(start)[0]
    assert torch.equal(target.split.head.state_dict()["c1.0.weight"], wanted["c1.0.weight"])
    assert not torch.equal(other.split.head.state_dict()["c1.0.weight"], wanted["c1.0.weight"])

    write_tensors(start, {**wanted, "c1.0.bias": wanted["c1.0.bias"] + 1})
    assert train_recipe(from_start, blobs, workplace)[1].key not in (stage.key, drawn.key)
    write_tensors(start, build_model("lenet5", classes=3, shape=blobs.shape).state_dict())
    with pytest.raises(WeightsError, match=r"start.safetensors holds the weights of another model: 2 of another shape"):
        train_recipe(from_start, blobs, workplace)


def test_a_target_that_is_found_is_the_one_that_was_trained(workplace: Workplace, blobs: Data) -> None:
    first, stage = train_recipe(recipe(), blobs, workplace)
    place, news = told(workplace)
    second, found = train_recipe(recipe(), blobs, place)
    assert found == stage
    assert news == [("train tiny (found)", 1, 1)]
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs = 1", "epochs = 1\nbatch_size = 64"),
        ('cut = "c1"', 'cut = "c2"'),
        ('cut = "c1"', 'cut = "c1"\nmean = [0.25]'),
        ("[train]", '[[defenses]]\nname = "noise"\nsigma = 0.1\n[train]'),
        ("[data]", "seed = 1\n[data]"),
    ],
)
def test_what_changes_the_weights_changes_the_stage(
    old: str, new: str, workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.targets.fit", lambda *_, **__: [])
    assert train_recipe(recipe(old, new), blobs, workplace)[1].key != train_recipe(recipe(), blobs, workplace)[1].key


def test_what_does_not_change_the_weights_finds_the_target(workplace: Workplace, blobs: Data) -> None:
    key = train_recipe(recipe(), blobs, workplace)[1].key
    assert train_recipe(recipe("channels = 4", "channels = 8"), blobs, workplace)[1].key == key


def test_an_audit_that_is_found_tells_of_the_data_of_today(workplace: Workplace, blobs: Data) -> None:
    first, _ = audit_recipe(recipe(), blobs, workplace)
    assert first.data.skipped == ()
    place, news = told(workplace)
    again, _ = audit_recipe(recipe(), dataclasses.replace(blobs, name="renamed", skipped=("a.png",)), place, title="mine")
    assert news == [("train tiny (found)", 1, 1), ("decoder on tiny (found)", 1, 1)]
    assert (again.title, again.data.name, again.data.skipped) == ("mine", "renamed", ("a.png",))
    assert again.attacks == first.attacks


class Killed(Exception):  # noqa: N818 -- stands for the end of a process
    pass


def interrupt(workplace: Workplace, data: Data, wanted: Recipe) -> None:
    """Train until after the first epoch."""

    def watch(_: str, done: int, total: int) -> None:
        if done > total // 2:
            raise Killed

    with pytest.raises(Killed):
        train_recipe(wanted, data, dataclasses.replace(workplace, watch=watch))


def test_an_interrupted_run_waits_for_a_word(workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, epochs = recipe("epochs = 1", "epochs = 2"), []
    interrupt(workplace, blobs, wanted)
    with pytest.raises(ConfigError, match="go on with --resume, or start over with --restart"):
        train_recipe(wanted, blobs, workplace)

    run = sfumato.loop.Run.epoch
    monkeypatch.setattr(sfumato.loop.Run, "epoch", lambda *args: epochs.append(args[1]) or run(*args))
    resumed, stage = train_recipe(wanted, blobs, dataclasses.replace(workplace, resume=True))
    assert epochs == [1]
    assert not stage.checkpoint.exists()
    epochs.clear()
    other = dataclasses.replace(workplace, store=Store(workplace.store.root / "other"))
    interrupt(other, blobs, wanted)
    epochs.clear()
    restarted, _ = train_recipe(wanted, blobs, dataclasses.replace(other, restart=True))
    assert epochs == [0, 1]
    assert all(torch.equal(value, restarted.state_dict()[name]) for name, value in resumed.state_dict().items())


STREET = """
[data]
name = "digits"
[model]
name = "example_reid:net"
cut = "2"
[train]
epochs = 2
finetune = 1
batch_size = 32
[task]
name = "reidentification"
instances = 8
[[attacks]]
name = "mean"
[audit]
pictures = 8
"""


def test_a_search_is_trained_found_again_and_audited(workplace: Workplace) -> None:
    wanted, data = dataclasses.replace(parse_recipe(STREET), defenses=(Narrowing(),)), street()
    made, stage = audit_recipe(wanted, data, workplace)
    assert stage.facts()["utility"] == {name: dataclasses.asdict(reached) for name, reached in made.utility.items()}
    assert (made.task, list(made.utility)) == ("reidentification", ["rank-1", "rank-5", "rank-10", "mAP"])
    assert made.accuracy == made.utility["rank-1"]
    there, news = told(workplace)
    found, _ = train_recipe(wanted, data, there)
    assert news == [("train recipe (found)", 1, 1)]
    first = next(module for module in found.split.modules() if isinstance(module, torch.nn.Conv2d))
    assert len(first.weight) == 4, "the channels that were left"
    assert task_for(data).utility(found, data, wanted.seed) == made.utility
    assert audit_recipe(wanted, data, workplace)[0].utility == made.utility
    other = dataclasses.replace(wanted, task=sf.Reidentification(instances=4))
    assert train_recipe(other, data, workplace)[1].key != stage.key


def test_an_interrupted_fine_tuning_goes_on(workplace: Workplace, blobs: Data) -> None:
    small = recipe('"lenet5"\ncut = "c1"\n[train]\nepochs = 1', '"nets:net"\ncut = "2"\n[train]\nepochs = 1\nfinetune = 2')
    wanted = dataclasses.replace(small, defenses=(Narrowing(),))
    interrupt(workplace, blobs, wanted)
    resumed, stage = train_recipe(wanted, blobs, dataclasses.replace(workplace, resume=True))
    assert [epoch["number"] for epoch in stage.facts()["epochs"]] == [0, 1, 2]
    other = dataclasses.replace(workplace, store=Store(workplace.store.root / "other"))
    whole, _ = train_recipe(wanted, blobs, other)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_a_recipe_for_another_task_than_its_data_is_one_problem(workplace: Workplace) -> None:
    with pytest.raises(ConfigError, match="the task is reidentification, but the data set 'digits' is for classification"):
        read_data(parse_recipe(STREET), workplace)


def test_a_recipe_without_attacks_is_not_audited(workplace: Workplace, blobs: Data) -> None:
    with pytest.raises(ConfigError, match=r"recipe 'recipe' has no attack; add a table \[\[attacks\]\]"):
        audit_recipe(parse_recipe(RECIPE.split("[[attacks]]")[0]), blobs, workplace)
    assert not (workplace.store.root / "stages").exists()


def test_the_settings_of_a_recipe_reach_the_training(workplace: Workplace, blobs: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Train, int]] = []

    def fit(_: Target, __: Data, settings: Train, *, seed: int, **___: object) -> list[object]:
        seen.append((settings, seed))
        return []

    monkeypatch.setattr("sfumato.targets.fit", fit)
    train_recipe(recipe("[data]", "seed = 5\n[data]"), blobs, workplace)
    assert seen == [(Train(epochs=1), 5)]
