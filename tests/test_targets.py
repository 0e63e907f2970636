# SPDX-License-Identifier: Apache-2.0
"""Where a recipe's model starts from, and checkpoints along its training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import inversion_recipes as tiny
from sfumato import targets
from sfumato.data.identities import pretraining_data
from sfumato.data.tensors import from_tensors
from sfumato.errors import ConfigError, DataError, UnknownNameError, WeightsError
from sfumato.files import of_model, read_tensors, write_tensors
from sfumato.pipeline import audit_recipe
from sfumato.recipe import RecipeError, parse_recipe
from sfumato.target import Target
from sfumato.targets import build_target, pretrain, target_stage, train_recipe
from sfumato.workplace import read_data

PRETRAIN = "\n[pretrain]\nepochs = 2\n"
OTHERS = ("private_identities = 4", "private_identities = 4\npretrain_identities = 2")


def weights(target: Target) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in of_model(target.state_dict()).items()}


def problems(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        tiny.recipe(more=text)
    return str(caught.value)


def test_a_model_starts_from_weights_that_others_trained(tmp_path: Path) -> None:
    made, place = tiny.recipe(OTHERS, more=PRETRAIN), tiny.place(tmp_path)
    data = read_data(made, place)
    file = pretrain(made, data, place)
    assert file is not None
    trained, started = of_model(read_tensors(file)[0]), weights(build_target(made, data, place))
    drawn = weights(build_target(tiny.recipe(OTHERS), data, place))
    assert trained["classifier.weight"].shape[0] == 2
    for name, value in started.items():
        assert torch.equal(value, drawn[name] if name.startswith("classifier.") else trained[name]), name
    assert any(not torch.equal(value, drawn[name]) for name, value in started.items())


def test_rows_share_what_is_pretrained_and_it_belongs_to_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, place = tiny.recipe(OTHERS, more=PRETRAIN), tiny.place(tmp_path)
    data = read_data(made, place)
    pretrain(made, data, place)
    monkeypatch.setattr(targets, "fit", None)  # training again would fail
    defended = tiny.recipe(OTHERS, more=PRETRAIN + '[[defenses]]\nname = "label_smoothing"\n')
    assert pretrain(defended, data, place) == pretrain(made, data, place)
    longer = tiny.recipe(OTHERS, more="\n[pretrain]\nepochs = 3\n")
    keys = {target_stage(one, data, place).key for one in (made, longer, tiny.recipe(OTHERS))}
    assert len(keys) == 3


def test_everything_that_a_model_starts_from_is_in_its_key(tmp_path: Path) -> None:
    made, place = tiny.recipe(OTHERS, more=PRETRAIN), tiny.place(tmp_path)
    data, file = read_data(made, place), tmp_path / "start.safetensors"
    fewer = data.with_parts(pretrain=data.part("pretrain").subset(torch.arange(6)))
    keys = [target_stage(made, one, place).key for one in (data, fewer)]
    for value, more in ((0.0, ""), (1.0, ""), (1.0, 'fresh = ["classifier"]\n')):
        write_tensors(file, {"weight": torch.full((2,), value)})
        keys.append(target_stage(tiny.recipe(OTHERS, more=f'\n[pretrain]\nweights = "{file}"\n{more}'), data, place).key)
    assert len(set(keys)) == len(keys) == 5


def test_nothing_is_pretrained_before_it_is_known_that_the_rest_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, place = tiny.recipe(OTHERS, ("identities = 3\n", "identities = 9\n"), more=PRETRAIN), tiny.place(tmp_path)
    monkeypatch.setattr(targets, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ConfigError, match="identities"):
        audit_recipe(made, read_data(made, place), place)


def test_the_held_out_tenth_is_not_trained_on(tmp_path: Path) -> None:
    made, place = tiny.recipe(OTHERS), tiny.place(tmp_path)
    others = pretraining_data(read_data(made, place))
    hashes = [
        {row.numpy().tobytes() for row in others.part(name).read(torch.arange(len(others.part(name))))}
        for name in ("train", "test")
    ]
    assert hashes[0]
    assert hashes[1]
    assert not hashes[0] & hashes[1]
    assert set(others.part("test").labels.tolist()) == {0, 1}


def test_other_people_come_from_another_data_set_too(tmp_path: Path) -> None:
    made = tiny.recipe(
        more='\n[pretrain]\nname = "portraits"\nidentities = 3\nper_identity = 6\nsize = 16\nseed = 5\nepochs = 1\n'
    )
    data = read_data(made, tiny.place(tmp_path))
    assert len(data.part("pretrain")) == 18
    assert len(data.part("pretrain").labels.unique()) == 3
    assert not set(data.part("pretrain").labels.tolist()) & set(data.part("public").labels.tolist())


def test_the_same_people_are_refused(tmp_path: Path) -> None:
    made = tiny.recipe(more='\n[pretrain]\nname = "portraits"\nidentities = 8\nper_identity = 6\nsize = 16\nepochs = 1\n')
    with pytest.raises(DataError, match="have the pixels of a private one"):
        read_data(made, tiny.place(tmp_path))


def test_given_weights_must_be_whole(tmp_path: Path) -> None:
    place = tiny.place(tmp_path)
    plain = tiny.recipe()
    data = read_data(plain, place)
    whole = weights(build_target(plain, data, place))
    names = [name for name in whole if not name.startswith("classifier.")]
    file = write_tensors(tmp_path / "part.safetensors", {name: whole[name] for name in names[2:]})
    with pytest.raises(WeightsError, match="2 missing") as caught:
        build_target(tiny.recipe(more=f'\n[pretrain]\nweights = "{file}"\n'), data, place)
    assert all(name in str(caught.value) for name in names[:2])
    owner = names[0].rpartition(".")[0]
    fresh = {name for name in names[:2] if not name.startswith(f"{owner}.")}
    assert not fresh  # both belong to the first layer
    build_target(tiny.recipe(more=f'\n[pretrain]\nweights = "{file}"\nfresh = ["{owner}"]\n'), data, place)


def test_nobody_to_pretrain_on_is_said_before_anything_runs() -> None:
    assert "nobody's pictures to train on" in problems(PRETRAIN)


def test_keys_of_the_table_are_checked() -> None:
    assert "pretrain.epoch: unknown key (did you mean 'epochs'?)" in problems("\n[pretrain]\nepoch = 2\n")
    assert "nothing is trained; leave out epochs" in problems('\n[pretrain]\nweights = "x.safetensors"\nepochs = 2\n')


def test_frozen_layers_that_nothing_trained_must_be_meant() -> None:
    frozen = '[[defenses]]\nname = "tl_dmi"\nfreeze = 0\n'
    assert "tl_dmi freezes layers that others' pictures must have trained" in problems(frozen)
    made = tiny.recipe(more=frozen + "[pretrain]\nepochs = 0\n")
    assert made.pretraining is not None
    assert made.pretraining.train is None


def stopped(epochs: int, stop: int) -> str:
    return f"""
        data = {{ name = "portraits", identities = 6, per_identity = 6, size = 16, private_identities = 4 }}
        model = {{ name = "cnn4", width = 0.25 }}
        train = {{ epochs = {epochs}, batch_size = 8, stop = {stop} }}
    """


def test_a_stop_is_a_checkpoint_along_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, apart = tiny.place(tmp_path / "shared"), tiny.place(tmp_path / "apart")
    data = read_data(parse_recipe(stopped(4, 0)), place)
    alone = {
        stop: weights(train_recipe(parse_recipe(stopped(4, stop)), data, tiny.place(tmp_path / f"{stop}"))[0])
        for stop in (2, 3, 0)
    }
    epochs: list[int] = []
    whole = targets.fit

    def counted(*arguments: object, **options: object) -> object:
        history = whole(*arguments, **options)  # type: ignore[arg-type]
        epochs.append(len(history))
        return history

    monkeypatch.setattr(targets, "fit", counted)
    for stop in (2, 3, 0):
        target, stage = train_recipe(parse_recipe(stopped(4, stop)), data, place)
        assert all(torch.equal(value, alone[stop][name]) for name, value in weights(target).items())
        assert stage.checkpoint.exists() == (stop > 0)
    assert epochs == [2, 3, 4]  # epochs of the history: the later runs went on from the earlier
    train_recipe(parse_recipe(stopped(4, 3)), data, apart)
    assert not torch.equal(alone[2]["classifier.weight"], alone[3]["classifier.weight"])


def test_a_later_run_trains_only_the_epochs_that_are_new(tmp_path: Path) -> None:
    news: list[int] = []
    totals: list[int] = []

    def note(name: str, done: int, total: int) -> None:
        news.append(done)
        totals.append(total)

    place = tiny.place(tmp_path, watch=note)
    data = read_data(parse_recipe(stopped(4, 0)), place)
    train_recipe(parse_recipe(stopped(4, 2)), data, place)
    steps, before = max(news), len(news)
    assert totals[-1] == steps
    train_recipe(parse_recipe(stopped(4, 3)), data, place)
    assert min(news[before:]) > steps
    assert totals[-1] == news[-1]


@pytest.mark.parametrize("defense", ["trap_mid", "mid", "label_smoothing"])
def test_what_a_defense_remembers_goes_on_too(tmp_path: Path, defense: str) -> None:
    more = f'\n[[defenses]]\nname = "{defense}"\n'
    shared, apart = tiny.place(tmp_path / "shared"), tiny.place(tmp_path / "apart")
    data = read_data(parse_recipe(stopped(3, 0)), shared)
    train_recipe(parse_recipe(stopped(3, 1) + more), data, shared)
    ends = [weights(train_recipe(parse_recipe(stopped(3, 2) + more), data, place)[0]) for place in (shared, apart)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_run_that_stopped_at_its_end_is_all_of_it(tmp_path: Path) -> None:
    news: list[str] = []
    place = tiny.place(tmp_path, watch=lambda name, done, total: news.append(name))
    data = read_data(parse_recipe(stopped(2, 0)), place)
    ends = [weights(train_recipe(parse_recipe(stopped(2, stop)), data, place)[0]) for stop in (2, 0)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert len(news) == 2 * 3  # 20 pictures in batches of 8, and nothing twice


@pytest.mark.parametrize("damage", ["cut off", "of another run"])
def test_a_checkpoint_that_does_not_serve_is_passed_over(tmp_path: Path, damage: str) -> None:
    place, apart = tiny.place(tmp_path / "shared"), tiny.place(tmp_path / "apart")
    data = read_data(parse_recipe(stopped(3, 0)), place)
    early = train_recipe(parse_recipe(stopped(3, 1)), data, place)[1].checkpoint
    late = train_recipe(parse_recipe(stopped(3, 2)), data, place)[1].checkpoint
    for file in (early, late):
        content = file.read_bytes()
        key = targets.target_stage(parse_recipe(stopped(3, 0)), data, place).key.encode()
        assert key in content
        file.write_bytes(content[:-1] if damage == "cut off" else content.replace(key, key[::-1]))
    ends = [weights(train_recipe(parse_recipe(stopped(3, 0)), data, where)[0]) for where in (place, apart)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize(("stop", "finetune"), [(5, 0), (-1, 0), (2, 1)])
def test_a_stop_must_be_an_epoch_of_a_run_without_fine_tuning(stop: int, finetune: int) -> None:
    with pytest.raises(RecipeError, match="stop must be one of the 4 epochs, without fine-tuning"):
        parse_recipe(stopped(4, stop).replace("batch_size = 8,", f"batch_size = 8, finetune = {finetune},"))


def test_data_without_others_is_refused_when_it_is_used(tmp_path: Path) -> None:
    data = from_tensors(torch.rand(8, 1, 8, 8), torch.arange(8) % 2)
    with pytest.raises(DataError, match="has nobody to pretrain on"):
        pretraining_data(data)


def test_weights_that_know_the_private_pictures_are_no_start(tmp_path: Path) -> None:
    place = tiny.place(tmp_path)
    plain = tiny.recipe(OTHERS)
    data = read_data(plain, place)
    weights_of_them = train_recipe(plain, data, place)[1].weights
    frozen = '\n[[defenses]]\nname = "tl_dmi"\nfreeze = 0\n'
    given = tiny.recipe(OTHERS, more=f'{frozen}[pretrain]\nweights = "{weights_of_them}"\n')
    whole = tiny.recipe(OTHERS, ("width = 0.25", f'width = 0.25\nweights = "{weights_of_them}"'), more=frozen)
    for made in (given, whole):
        with pytest.raises(ConfigError, match="must not know the private pictures"):
            build_target(made, data, place)
    others = pretrain(tiny.recipe(OTHERS, more=PRETRAIN), data, place)
    build_target(tiny.recipe(more=f'\n[pretrain]\nweights = "{others}"\n'), data, place)


def test_a_wrong_freeze_point_shows_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.recipe(OTHERS, more=PRETRAIN + '[[defenses]]\nname = "tl_dmi"\nfreeze = "conv99"\n')
    place = tiny.place(tmp_path)
    data = read_data(made, place)
    monkeypatch.setattr(targets, "fit", None)  # training would fail otherwise
    with pytest.raises(UnknownNameError, match="conv99"):
        build_target(made, data, place)


def test_a_batch_that_is_too_small_for_a_defense_is_a_problem_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="train.batch_size: bido needs batches of at least 3 pictures, found 2"):
        tiny.recipe(("batch_size = 8\n[evaluator]", "batch_size = 2\n[evaluator]"), more='\n[[defenses]]\nname = "bido"\n')


def test_an_audit_says_what_its_target_starts_from(tmp_path: Path) -> None:
    made, place = tiny.recipe(OTHERS, more=PRETRAIN + '[[defenses]]\nname = "tl_dmi"\nfreeze = 0\n'), tiny.place(tmp_path)
    found = audit_recipe(made, read_data(made, place), place)[0].target
    assert found.start == "weights that 2 epochs on 12 pictures of 2 others made"
    assert found.trained_parameters is not None
    assert 0 < found.trained_parameters < found.head_parameters + found.tail_parameters
    plain = audit_recipe(tiny.recipe(OTHERS), read_data(made, place), place)[0].target
    assert plain.start == "weights as they are drawn"
    assert plain.trained_parameters == plain.head_parameters + plain.tail_parameters
