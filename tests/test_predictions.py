# SPDX-License-Identifier: Apache-2.0
"""The predictions of a recipe's target, from its reference models to its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import sfumato as sf
from sfumato import targets
from sfumato.data.base import Reading
from sfumato.errors import ConfigError, RecipeError, StorageError, TrainingError
from sfumato.files import read_tensors, write_tensors
from sfumato.membership_types import Membership
from sfumato.pipeline import audit_recipe
from sfumato.predictions import _Play
from sfumato.recipe import Recipe, parse_recipe
from sfumato.report import load, save, to_html, to_markdown
from sfumato.store import Store
from sfumato.workplace import Workplace, read_data

RECIPE = """
data.name = "digits"
model.name = "lenet5"
[membership]
members = 40
references = 4
workers = 1
[train]
epochs = 1
[[attacks]]
name = "loss"
[[attacks]]
name = "lira"
"""


def recipe(old: str = "", new: str = "", more: str = "") -> Recipe:
    assert old in RECIPE
    return parse_recipe((RECIPE.replace(old, new, 1) if old else RECIPE) + more, name="tiny")


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(store=Store(tmp_path), reading=Reading(), device=torch.device("cpu"))


@pytest.fixture(scope="module")
def played(blobs: sf.Data) -> sf.Data:
    return sf.play(sf.partition(blobs, reference=0.2), members=40)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[sf.Data]:
    """The data of everything that is trained."""
    seen: list[sf.Data] = []
    fit = targets.fit

    def noted(target: object, data: sf.Data, *rest: object, **named: object) -> object:
        seen.append(data)
        return fit(target, data, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("sfumato.targets.fit", noted)
    return seen


def audited(made: Recipe, data: sf.Data, workplace: Workplace) -> Membership:
    found, _ = audit_recipe(made, data, workplace)
    assert found.membership is not None
    assert not found.attacks
    return found.membership


def test_the_target_is_trained_on_the_members_and_each_reference_on_its_half(
    played: sf.Data, workplace: Workplace, trained: list[sf.Data]
) -> None:
    audited(recipe(), played, workplace)
    game = sf.Game(played)
    expected = [game.trained_on(keep) for keep in (game.member, *game.keep(4))]
    assert [data.part("private").fingerprint for data in trained] == [data.part("private").fingerprint for data in expected]


def test_the_recipe_reads_its_game(workplace: Workplace) -> None:
    data = read_data(recipe("members = 40", "members = 50\ncanaries = 20"), workplace)
    assert {name: len(data.part(name)) for name in ("private", "nonmembers", "base")} == {
        "private": 60,
        "nonmembers": 10,
        "base": 70,
    }
    assert len(sf.Game(data).pool) == 20


def test_references_start_from_the_weights_that_the_target_starts_from(workplace: Workplace, trained: list[sf.Data]) -> None:
    made = recipe(
        'data.name = "digits"',
        'data = { name = "portraits", size = 16, identities = 2, per_identity = 60 }',
        '\n[pretrain]\nname = "portraits"\nsize = 16\nidentities = 3\nper_identity = 10\nseed = 3\nepochs = 1\n',
    )
    data = read_data(made, workplace)
    audited(made, data, workplace)
    pretrained = [one for one in trained if one.name.endswith(", others")]
    assert len(pretrained) == 1, "what others trained is public, and the same for all"
    assert len(trained) == 1 + 1 + 4


def test_what_is_there_is_not_computed_again_and_more_references_add_to_it(
    played: sf.Data, workplace: Workplace, trained: list[sf.Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = audited(recipe(), played, workplace)
    assert len(trained) == 5
    with monkeypatch.context() as patch:
        patch.setattr("sfumato.predictions.run_membership_attack", lambda *_, **__: pytest.fail("attacked again"))
        assert audited(recipe(), played, workplace).results == first.results
    assert len(trained) == 5
    more = audited(recipe("references = 4", "references = 8"), played, workplace)
    assert len(trained) == 9
    assert [result.references for result in more.results] == [0, 8]
    audited(recipe(more='[[attacks]]\nname = "rmia"\n'), played, workplace)
    assert len(trained) == 9


def test_no_reference_is_trained_where_no_attack_needs_one(played: sf.Data, workplace: Workplace, trained: list[sf.Data]) -> None:
    found = audited(recipe('[[attacks]]\nname = "lira"\n'), played, workplace)
    assert len(trained) == 1
    assert found.references == 0


def test_a_run_that_was_interrupted_goes_on_with_the_references_that_are_there(
    played: sf.Data, workplace: Workplace, trained: list[sf.Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = targets.fit

    def until_the_third(*arguments: object, **named: object) -> object:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("sfumato.targets.fit", until_the_third)
        with pytest.raises(KeyboardInterrupt):
            audited(recipe(), played, workplace)
    assert len(trained) == 3
    found = audited(recipe(), played, workplace)
    assert len(trained) == 5
    assert found.references == 4


def test_a_reference_that_was_interrupted_within_its_training_goes_on_to_the_same_bits(
    played: sf.Data, workplace: Workplace, tmp_path: Path
) -> None:
    made = recipe("epochs = 1", "epochs = 3")
    elsewhere = dataclasses.replace(workplace, store=Store(tmp_path / "elsewhere"))
    whole = audited(made, played, elsewhere)
    calls = 0

    def stopping(name: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_recipe(made, played, dataclasses.replace(workplace, watch=stopping))
    again = audited(made, played, dataclasses.replace(workplace, resume=True))
    assert [result.auc for result in again.results] == [result.auc for result in whole.results]


def test_references_go_through_the_defense_of_the_target_unless_they_shall_not(played: sf.Data, workplace: Workplace) -> None:
    defended = '[[defenses]]\nname = "label_smoothing"\nalpha = 0.3\n'
    adaptive = audited(recipe(more=defended), played, workplace)
    naive = audited(recipe("workers = 1", "workers = 1\nadaptive = false", more=defended), played, workplace)
    plain = audited(recipe(), played, workplace)
    audits = (adaptive, naive, plain)
    assert [result.adaptive for found in audits for result in found.results] == [
        True,
        True,
        True,
        False,
        True,
        True,
    ]
    lira = [found.results[1].auc for found in (adaptive, naive)]
    assert lira[0] != lira[1]


def test_each_reference_in_turn_is_the_target(played: sf.Data, workplace: Workplace) -> None:
    found = audited(recipe("references = 4", "references = 6\nleave_one_out = true"), played, workplace)
    assert [(result.name, result.targets, result.members + result.nonmembers) for result in found.results] == [
        ("loss", 1, 80), ("lira", 1, 80), ("loss", 6, 480), ("lira", 6, 480),
    ]  # fmt: skip


def test_what_else_is_known_of_pictures_is_measured_by_itself(blobs: sf.Data, workplace: Workplace) -> None:
    private = blobs.part("private")
    tags = {"camera": torch.arange(len(private)) % 2, "place": torch.arange(len(private))}
    data = sf.play(blobs.with_parts(private=private.relabeled(private.labels, tags)), members=60)
    (loss, _) = audited(recipe(), data, workplace).results
    assert set(loss.slices) == {"class 0", "class 1", "camera 0", "camera 1"}
    assert sum(loss.slices[f"camera {number}"].members for number in range(2)) == 60


def test_two_workers_find_what_one_does(played: sf.Data, workplace: Workplace, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(workplace, store=Store(tmp_path / "elsewhere"))
    one = audited(recipe(), played, workplace)
    two = audited(recipe("workers = 1", "workers = 2"), played, elsewhere)
    assert [result.auc for result in one.results] == [result.auc for result in two.results]


def test_an_error_of_a_reference_in_its_process_is_told(
    played: sf.Data, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = targets.fit

    def diverging(target: object, data: sf.Data, *rest: object, seed: int, **named: object) -> object:
        if seed:
            raise TrainingError("the loss is nan")
        return fit(target, data, *rest, seed=seed, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("sfumato.targets.fit", diverging)
    with pytest.raises(TrainingError, match="the loss is nan"):
        audited(recipe("workers = 1", "workers = 2"), played, workplace)


def test_answers_of_another_recipe_are_refused(played: sf.Data, workplace: Workplace) -> None:
    audited(recipe(), played, workplace)
    paths = sorted((workplace.store.root / "stages").glob("answers-*/answers.safetensors"))
    assert len(paths) == 5
    tensors, _ = read_tensors(paths[0])
    write_tensors(paths[0], tensors, {"definition": "f" * 64})
    with pytest.raises(StorageError, match="those of another recipe; remove"):
        audited(recipe(), played, workplace)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("references = 4", "references = 2", "lira needs at least 4 reference models, and .membership. has references = 2"),
        ("references = 4", "references = 4\nleave_one_out = true", "references = 4, two of which leave where each is attacked"),
        ("references = 4", "references = 2\nleave_one_out = true", "references must be at least 4, got 2"),
        ("members = 40", "members = 1", "members must be at least 2"),
        ("members = 40", "canaries = 3", "canaries must be even and at least 4"),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_recipe(old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(old, new)


def test_references_without_the_defense_are_not_attacked_in_its_name() -> None:
    with pytest.raises(RecipeError, match="leave_one_out attacks the references, which adaptive = false trains without"):
        recipe(
            "references = 4",
            "references = 8\nadaptive = false\nleave_one_out = true",
            more='[[defenses]]\nname = "label_smoothing"\nalpha = 0.3\n',
        )


def test_views_of_a_table_and_games_of_another_task_are_refused_before_training(workplace: Workplace, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(60, 5)), y=np.arange(60) % 2)
    table = recipe("members = 40", "members = 10\nviews = 2")
    source = parse_recipe(f'data = {{ name = "table", path = "{tmp_path}/a.npz" }}\nmodel.name = "mlp"').source
    with pytest.raises(ConfigError, match="rows of a table"):
        read_data(dataclasses.replace(table, source=source), workplace)
    street = parse_recipe('data = { name = "street", identities = 8, size = 16 }\nmodel.name = "resnet20"').source
    with pytest.raises(ConfigError, match="attacks on predictions ask about classes"):
        read_data(dataclasses.replace(recipe(), source=street), workplace)


def test_networks_that_train_together_are_found_by_whoever_trains_one_by_one(
    played: sf.Data, workplace: Workplace, trained: list[sf.Data], tmp_path: Path
) -> None:
    made = recipe()
    assert made.membership is not None
    _Play(made, made.membership, sf.Game(played), workplace)._train_together(range(3))
    found = audited(made, played, workplace)
    assert len(trained) == 2, "the target, and the fourth reference"
    alone = audited(made, played, dataclasses.replace(workplace, store=Store(tmp_path / "alone")))
    assert found.results[1].auc.value == pytest.approx(alone.results[1].auc.value, abs=0.02)


def test_what_cannot_be_batched_is_left_for_the_loop(
    played: sf.Data, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("vmap: data-dependent control flow")

    monkeypatch.setattr("sfumato.predictions.fit_together", failing)
    told: list[str] = []
    made = recipe()
    assert made.membership is not None
    place = dataclasses.replace(workplace, watch=lambda name, done, total: told.append(name))
    _Play(made, made.membership, sf.Game(played), place)._train_together(range(4))
    assert any("one by one, since together is not possible here: vmap" in name for name in told)
    assert not list((workplace.store.root / "stages").glob("*/done.json"))


def test_what_boundary_is_told_does_not_depend_on_what_was_asked_before(played: sf.Data, workplace: Workplace) -> None:
    boundary = '[[attacks]]\nname = "boundary"\nlabel = "{0}"\nqueries = 100\npictures = 10\n'
    noisy = '[[defenses]]\nname = "noise"\nsigma = 0.5\n'
    model = 'model = { name = "lenet5", cut = "c1" }'
    twice = recipe('model.name = "lenet5"', model, more=boundary.format("first") + boundary.format("second") + noisy)
    twice = dataclasses.replace(twice, inference={name: twice.inference[name] for name in ("first", "second")})
    first, second = audited(twice, played, workplace).results
    assert first.auc == second.auc


def test_more_members_than_there_are_pictures_are_refused(workplace: Workplace) -> None:
    with pytest.raises(ConfigError, match="4000 pictures to train on"):
        read_data(recipe("members = 40", "members = 4000"), workplace)


def test_attacks_on_features_and_on_predictions_go_in_one_audit(played: sf.Data, workplace: Workplace, tmp_path: Path) -> None:
    decoder = '[[attacks]]\nname = "decoder"\nblocks = 0\nchannels = 4\nfitting.epochs = 1\n[audit]\npictures = 8\n'
    made = recipe('model.name = "lenet5"', 'model = { name = "lenet5", cut = "c1" }', more=decoder)
    found, _ = audit_recipe(made, played, workplace)
    assert {result.name for result in found.attacks} == {"decoder"}
    assert found.membership is not None
    assert {result.name for result in found.membership.results} == {"loss", "lira"}
    assert not any("the predictions" in sentence for sentence in found.untested)
    (again,) = load(save([found], tmp_path / "audit.json"))
    assert again.membership == found.membership


def test_a_pruned_target_says_what_pruning_left(played: sf.Data, workplace: Workplace) -> None:
    pruned = recipe("epochs = 1", "epochs = 8", more='[[defenses]]\nname = "mcmia"\nratio = 4.0\n')
    pruned = dataclasses.replace(pruned, inference={"loss": pruned.inference["loss"]})
    found, stage = audit_recipe(pruned, played, workplace)
    left = found.target.compression
    assert left is not None
    assert left.ratio == pytest.approx(4.0, rel=0.02)
    assert left.milliseconds is not None
    assert stage.weights.stat().st_size < 0.5 * left.bytes_dense
    assert found.target.cut == ""
    again, _ = audit_recipe(pruned, played, workplace)
    assert again.target.compression == left, "the time is measured once"


def test_the_guarantee_of_dp_sgd_is_in_the_report_of_predictions(played: sf.Data, workplace: Workplace) -> None:
    private = recipe(more='[[defenses]]\nname = "dpsgd"\n')
    private = dataclasses.replace(private, inference={"loss": private.inference["loss"]})
    found, _ = audit_recipe(private, played, workplace)
    for text in (to_markdown([found]), to_html([found])):
        assert "What is certified" in text
        assert "Differential privacy: whatever came of this training" in text
    plain, _ = audit_recipe(dataclasses.replace(private, defenses=()), played, workplace)
    assert "What is certified" not in to_markdown([plain]) + to_html([plain])


@pytest.fixture
def asked(blobs: sf.Data) -> Callable[..., Membership]:
    private = blobs.part("private")
    members, others = private.subset(torch.arange(0, 60)), private.subset(torch.arange(60, 120))
    net = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))

    def run(**named: object) -> Membership:
        return sf.audit_membership(net, **{"members": members, "nonmembers": others, **named})  # type: ignore[arg-type]

    return run


def test_a_model_that_is_there_gets_the_attacks_that_need_no_reference(asked: Callable[..., Membership]) -> None:
    found = asked()
    assert {"loss", "gap", "entropy", "modified-entropy", "confidence", "nasr"} <= {result.name for result in found.results}
    assert (found.members, found.nonmembers) == (60, 60)


def test_a_model_with_a_game_and_references_gets_all(blobs: sf.Data) -> None:
    game = sf.Game(sf.play(blobs, members=40))

    def training(data: sf.Data, seed: int) -> sf.Target:
        return sf.harden(sf.whole(sf.build_model("lenet5", classes=2, shape=(1, 8, 8), seed=seed)), data, epochs=1, seed=seed)

    references = sf.train_references(training, game, count=4, workers=1)
    found = sf.audit_membership(training(game.data, 0), game, references=references)
    assert {"lira", "rmia", "shokri", "loss"} <= {result.name for result in found.results}
    assert found.references == 4
    with pytest.raises(ConfigError, match="references must be of 80 examples of this game in 2 views, found 80 in 1"):
        sf.audit_membership(training(game.data, 0), game, references=references, views=2)
    slices = {"mine": game.member}
    (loss,) = sf.audit_membership(training(game.data, 0), game, attacks=["loss"], slices=slices).results
    assert "mine" not in loss.slices, "all of them are members, so that there is nothing to tell apart"
    with pytest.raises(ConfigError, match="others' halves"):
        sf.audit_membership(training(game.data, 0), sf.Game(game.data, seed=1), references=references)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda blobs: {"nonmembers": None}, "nonmembers is missing"),
        (
            lambda blobs: {"nonmembers": blobs.part("private").subset(torch.arange(50, 120))},
            "10 of 70 non-members have the pixels",
        ),
        (lambda blobs: {"nonmembers": (torch.rand(9, 1, 4, 4), torch.arange(9) % 2)}, "must have one shape"),
        (lambda blobs: {"attacks": ["lira"]}, "needs at least 4 reference models, found 0"),
        (lambda blobs: {"members": sf.Game(sf.play(blobs))}, "a game has its own non-members"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    asked: Callable[..., Membership], blobs: sf.Data, change: Callable[[sf.Data], dict[str, object]], message: str
) -> None:
    with pytest.raises(sf.SfumatoError, match=message):
        asked(**change(blobs))
