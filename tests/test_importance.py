# SPDX-License-Identifier: Apache-2.0
"""Which layers matter, for a recipe: measured where nothing is frozen, on what attacks made, once, and searched by training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inversion_recipes import audited, note, place, recipe
from sfumato import fisher_samples, fisher_stages
from sfumato.analysis.fisher import classification_fisher, inversion_fisher
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.errors import ConfigError, DataError, SfumatoError, StorageError, UnknownNameError
from sfumato.files import read_tensors, write_tensors
from sfumato.fisher_samples import held_out, reconstructions
from sfumato.importance import frozen, measure_importance, unfrozen
from sfumato.importance_record import Importance, importance_to_json
from sfumato.inversion_exhibits import JudgedPictures
from sfumato.inversion_types import ClassPictures
from sfumato.inversions import judged_pictures
from sfumato.recipe import Recipe, parse_recipe
from sfumato.targets import train_recipe
from sfumato.workplace import Workplace, read_data

OTHERS = ("private_identities = 4\n", "private_identities = 4\npretrain_identities = 2\n")
PRETRAIN = "\n[pretrain]\nepochs = 1\n"
SECOND = '[[attacks]]\nname = "gmi"\nlabel = "longer"\nsteps = 3\nper_class = 2\n'
NARROW, CUT = '[[defenses]]\nname = "bottleneck"\nchannels = 4\n', ("width = 0.25", 'width = 0.25\ncut = "c2"')
FROZEN = '[[defenses]]\nname = "tl_dmi"\nfreeze = "c1"\nbn = "track"\n'


def started(more: str = "", *changes: tuple[str, str]) -> Recipe:
    """The small recipe, pretrained on two others."""
    return recipe(OTHERS, *changes, more=PRETRAIN + more)


def measured(made: Recipe, here: Workplace, **asked: object) -> Importance:
    return measure_importance(made, read_data(made, here), here, **asked)  # type: ignore[arg-type]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note everything that is computed, profiles too."""
    seen = note(monkeypatch)
    for name, real in (("classification_fisher", classification_fisher), ("inversion_fisher", inversion_fisher)):

        def noted(*given: object, real: object = real, name: str = name, **rest: object) -> object:
            seen.append(f"{name} {rest.get('distance', '')}".strip())
            return real(*given, **rest)  # type: ignore[operator]

        monkeypatch.setattr(fisher_stages, name, noted)
    return seen


PROFILES = ["inversion_fisher l2", "inversion_fisher l1", "inversion_fisher perceptual", "classification_fisher"]


def same(one: FisherProfile, other: FisherProfile) -> bool:
    facts = [(made.task, made.layers, made.parameters, made.before) for made in (one, other)]
    return facts[0] == facts[1] and torch.equal(one.each, other.each) and torch.equal(one.labels, other.labels)


def test_profiles_are_those_of_the_unfrozen_target_and_nothing_is_computed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, made = place(tmp_path), started()
    seen = counted(monkeypatch)
    audited(made, here)
    done = len(seen)
    found = measured(started(FROZEN), here)  # what is frozen in the recipe is not measured
    assert seen[done:] == PROFILES
    again = measured(made, here)
    assert len(seen) == done + len(PROFILES)
    assert all(same(one, again.profiles[name]) for name, one in found.profiles.items())
    assert list(found.profiles) == ["naming", "gmi, l2", "gmi, l1", "gmi, perceptual"]
    data = read_data(made, here)
    target, stage = train_recipe(made, data, here)
    classes, (judged,) = judged_pictures(made, target, stage, data, here)
    x_hat, labels = judged.pictures.x_hat.flatten(0, 1), classes.repeat_interleave(2)
    expected = inversion_fisher(target.split, x_hat, labels, data.part("private"))
    assert found.profiles["gmi, l2"].values == pytest.approx(expected.values, rel=1e-5)
    assert found.naming.values == pytest.approx(classification_fisher(target.split, data.part("test")).values, rel=1e-5)
    assert found.accuracy.value == stage.facts()["accuracy"]["value"]  # type: ignore[index]
    assert (found.freezing, found.unreached, found.rebuilding[0].top1.value) == (None, (), judged.counted.float().mean())


def test_the_search_trains_freeze_points_once_and_tells_what_their_stages_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, made = place(tmp_path), started(FROZEN)
    found = measured(made, here, wanted=0.0, trainings=2)
    search = found.freezing
    assert search is not None
    assert (search.bn, search.attack, search.advice.wanted) == ("track", "gmi", 0.0)
    assert [one.point.name for one in search.advice.table] == ["", "c1", "c2", "f1"]
    trained = [one for one in search.advice.table if one.measured]
    assert [one.point.name for one in trained] == ["", "f1"]
    assert search.advice.chosen == trained[-1]  # nothing is wanted: the most is frozen
    seen, data = counted(monkeypatch), read_data(made, here)
    for one in trained:
        bare = unfrozen(made)
        own = frozen(bare, one.point.name, bn="track") if one.point.name else bare
        target, stage = train_recipe(own, data, here)
        assert stage.facts()["accuracy"]["value"] == one.accuracy  # type: ignore[index]
        counts = [
            sum(weight.numel() for weight in target.split.parameters() if weight.requires_grad),
            stage.facts()["parameters"],
        ]
        assert counts == [one.point.trainable] * 2
    assert measured(made, here, wanted=0.0, trainings=2).freezing == search
    assert seen == []
    record = json.loads(json.dumps(importance_to_json(found)))
    assert record["freezing"]["freeze"] == "f1"
    assert record["freezing"]["points"][0] == {
        "freeze": "",
        "frozen": 0,
        "trainable": 9748,
        "accuracy": trained[0].accuracy,
        "measured": True,
        "rebuilding_frozen": 0.0,
        "naming_kept": 1.0,
    }
    layers = record["rebuilding"][0]["profiles"]["l2"]["layers"]
    assert [layer["name"] for layer in layers] == ["c1.0", "c2.0", "f1.0", "classifier"]
    assert sum(layer["share"]["value"] for layer in layers) == pytest.approx(1)


def test_each_attack_has_profiles_of_its_own_and_advice_goes_by_the_strongest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, made = place(tmp_path), started(SECOND)
    seen = counted(monkeypatch)
    alone = measured(made, here, attack="longer")
    assert [one.attack for one in alone.rebuilding] == ["longer"]
    assert seen.count("GMI") == 1
    both = measured(made, here)
    assert [one.attack for one in both.rebuilding] == ["gmi", "longer"]
    assert seen.count("GMI") == 2
    assert seen.count("inversion_fisher l2") == 2
    assert seen.count("classification_fisher") == 1
    first, second = (one.profiles["l2"] for one in both.rebuilding)
    assert same(second, alone.rebuilding[0].profiles["l2"])
    assert not same(first, second)
    search = measured(made, here, wanted=0.0, trainings=1).freezing
    assert search is not None
    assert search.attack == max(both.rebuilding, key=lambda one: one.top1.value).attack


@pytest.mark.parametrize(
    ("made", "asked", "error", "said"),
    [
        (started(), {"attack": "gmo"}, UnknownNameError, r"'gmo' \(did you mean 'gmi'\?\); it has gmi"),
        (started(), {"wanted": 90.0}, ConfigError, r"in \[0, 1\], got 90.0; divide percent by 100"),
        (started(), {"wanted": 0.1, "trainings": 0}, ConfigError, "trainings must be at least 1 and finite, got 0"),
        (recipe(), {"wanted": 0.1}, ConfigError, r"add a table \[pretrain\] to recipe 'tiny', or weights under \[model\]"),
        (
            started('[[defenses]]\nname = "mcmia"\n'),
            {"wanted": 0.1},
            ConfigError,
            "from the deepest point, f1, .* may prune",
        ),
        (started(NARROW, CUT), {"wanted": 0.1}, ConfigError, r"of 4 layers \d have another name, .* leave that defense out"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_trained(
    made: Recipe, asked: dict[str, object], error: type[SfumatoError], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    with pytest.raises(error, match=said):
        measured(made, place(tmp_path), **asked)
    assert seen == []


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        ("", "'plain' has no attack; add a table"),
        ('[[attacks]]\nname = "gap"', "'plain' has attacks of other kinds alone, gap; add a table"),
    ],
)
def test_a_recipe_without_an_attack_on_weights_is_refused(attacks: str, said: str) -> None:
    plain = parse_recipe(f'data.name = "digits"\nmodel.name = "lenet5"\n{attacks}', name="plain")
    with pytest.raises(ConfigError, match=said):
        unfrozen(plain)


def test_more_accuracy_than_nothing_frozen_reaches_is_refused_before_the_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    with pytest.raises(ConfigError, match=r"wanted an accuracy of 99 %, and with nothing frozen tiny reaches \d+ %; want less"):
        measured(started(), place(tmp_path), wanted=0.99)
    assert seen == ["target", "target"]  # on others, and on the private people


def test_a_profile_of_another_model_in_the_place_of_a_stage_is_refused(tmp_path: Path) -> None:
    here, made = place(tmp_path), recipe()
    measured(made, here)
    for path in tmp_path.glob("stages/fisher-*/profile.safetensors"):
        write_tensors(path, read_tensors(path)[0], {"definition": "another"})
    with pytest.raises(StorageError, match="found another: that of another model; remove .* to measure it again"):
        measured(made, here)


def judged(count: int, *reached: bool) -> JudgedPictures:
    x_hat = torch.arange(len(reached) * count).div(100).view(len(reached), count, 1, 1, 1).expand(-1, -1, 1, 4, 4)
    nothing = torch.zeros(len(reached), count)
    return JudgedPictures("gmi", 0, ClassPictures(x_hat.clone(), torch.tensor(reached)), nothing, nothing.bool())


def test_of_many_pictures_some_are_drawn_by_the_seed_and_keep_their_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher_samples, "SAMPLES", 5)
    classes = torch.tensor([3, 4, 7])
    some, other = (reconstructions(judged(4, True, False, True), classes, seed) for seed in (0, 1))
    assert some is not None
    assert other is not None
    assert len(some) == len(other) == 5
    assert some.fingerprint != other.fingerprint
    numbers = some.read(torch.arange(5))[:, 0, 0, 0].mul(100).round().long()
    assert len(numbers.unique()) == 5
    assert torch.equal(classes[numbers // 4], some.labels)  # the second class was not reached
    assert reconstructions(judged(4, False, False, False), classes, 0) is None
    data = read_data(recipe(), place(tmp_path))
    monkeypatch.setattr(fisher_samples, "SAMPLES", 3)
    assert len(held_out(data, 0)) == 3
    assert held_out(data, 0).fingerprint == held_out(data, 0).fingerprint


def test_layers_of_a_cut_model_and_of_one_that_a_defense_ends_are_found_where_they_are_frozen(tmp_path: Path) -> None:
    shares = []
    for made in (started(), started("", CUT), started('[[defenses]]\nname = "mid"\n')):
        search = measured(made, place(tmp_path), wanted=0.0, trainings=1).freezing
        assert search is not None
        assert [one.point.name for one in search.advice.table] == ["", "c1", "c2", "f1"]
        frozen_shares = [one.rebuilding_frozen for one in search.advice.table]
        assert 0 == frozen_shares[0] < frozen_shares[1] < frozen_shares[2] < frozen_shares[3] <= 1
        shares.append(frozen_shares)
    assert shares[0] == pytest.approx(shares[1], rel=1e-4)


def test_attacks_that_reach_nobody_show_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, made = place(tmp_path), recipe(more=SECOND)
    real = fisher_samples.reconstructions
    with monkeypatch.context() as patch:
        patch.setattr(fisher_stages, "reconstructions", lambda one, *rest: None if one.attack == "gmi" else real(one, *rest))
        found = measured(made, here)
    assert ([one.attack for one in found.rebuilding], found.unreached) == (["longer"], ("gmi",))
    monkeypatch.setattr(fisher_stages, "reconstructions", lambda *_: None)
    with pytest.raises(DataError, match="no class was reached by gmi, longer; give the attack more steps"):
        measured(made, here)


def test_a_model_without_maps_has_no_perceptual_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fisher_nets.py").write_text(
        "from torch import nn\n\ndef flat(classes, shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = measured(recipe(('name = "cnn4"\nwidth = 0.25', 'name = "fisher_nets:flat"')), place(tmp_path))
    assert list(found.profiles) == ["naming", "gmi, l2", "gmi, l1"]
    assert found.naming.layers == ("1", "3")


def test_a_recipe_is_changed_where_it_must_be_alone() -> None:
    made = started(FROZEN + SECOND)
    open_recipe = unfrozen(replace(made, audit=replace(made.audit, seeds=(3, 4))), "longer")
    assert (open_recipe.defenses, list(open_recipe.inverting), open_recipe.audit.seeds) == ((), ["longer"], (3,))
    assert [repr(one) for one in frozen(open_recipe, "c2").defenses] == ["TLDMI(freeze='c2', bn='frozen')"]
