# SPDX-License-Identifier: Apache-2.0
"""The weights of a recipe's target, from its evaluator and priors to its report."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

import sfumato as sf
from inversion_recipes import RECIPE, audited, note, numbers, place, recipe
from sfumato.attacks.weights.gmi import GMI
from sfumato.errors import ConfigError, DataError, ModelError, SfumatoError, StorageError, WeightsError
from sfumato.files import read_tensors, write_tensors
from sfumato.inversion_types import Inversion
from sfumato.pipeline import audit_recipe
from sfumato.priors import train
from sfumato.priors.saved import save_prior
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import new_prior
from sfumato.recipe import Recipe, parse_recipe
from sfumato.report import load, save, to_html, to_markdown
from sfumato.workplace import read_data

ALL = ["target", "evaluator lenet5", "reader", "prior gan", "facts gan", "GMI"]
TINY = PriorSettings(width=4, latent=8, steps=1, batch_size=4)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inversion, sf.Data]:
    """A folder in which the recipe ran, what it found, and its data."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        computed = note(patch)
        data = read_data(recipe(), place(root))
        found = audited(recipe(), place(root), data)
    assert computed == ALL
    return root, found, data


@pytest.fixture
def root(first: tuple[Path, Inversion, sf.Data], tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(first[0], tmp_path / "runs"))


@pytest.fixture(scope="module")
def data(first: tuple[Path, Inversion, sf.Data]) -> sf.Data:
    return first[2]


def stages(root: Path, kind: str) -> list[Path]:
    return sorted((root / "stages").glob(f"{kind}-????????????????"))


def test_what_was_found_is_a_record_of_the_recipe(first: tuple[Path, Inversion, sf.Data]) -> None:
    _, found, data = first
    (result,) = found.results
    assert (result.name, result.seed, result.access, result.prior) == ("gmi", 0, "weights", "gan")
    assert (result.identities, result.per_class, result.unreached, result.queries) == (3, 2, 0, 0)
    assert (found.identities, found.outputs, found.seeds, found.title) == (3, 4, (0,), "tiny")
    assert found.evaluator.model == "lenet5"
    assert result.settings["steps"] == 2
    assert result.factors is not None, "portraits come with their factors"
    assert {one.name for one in result.classes} < set(data.classes)
    (prior,) = found.priors
    assert (prior.kind, prior.steps, prior.source) == ("gan", 3, "trained on 24 public pictures")
    assert [exhibit.private for exhibit in found.gallery] == [None] * 3


def test_what_is_there_is_found_and_nothing_is_computed_again(
    first: tuple[Path, Inversion, sf.Data], root: Path, data: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, told = note(monkeypatch), []
    workplace = place(root, watch=lambda name, done, total: told.append((name, done, total)))
    again = audited(recipe(), workplace, data)
    assert computed == []
    assert told == [
        (f"{name} (found)", 1, 1)
        for name in (
            "train tiny",
            "evaluator of portraits",
            "reader of factors of portraits",
            "prior 'gan' of tiny",
            "gmi on tiny",
        )
    ]
    assert again.results == first[1].results, "to the bit, the time that it took included"
    assert again.priors == first[1].priors


def test_another_evaluator_judges_without_a_new_attack(
    first: tuple[Path, Inversion, sf.Data], root: Path, data: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = note(monkeypatch)
    other = audited(recipe(('model = "lenet5"', 'model = "mlp"')), place(root), data)
    assert computed == ["evaluator mlp", "facts gan"]
    assert other.evaluator.model == "mlp"
    assert other.results[0].knn != first[1].results[0].knn
    assert other.results[0].confidence == first[1].results[0].confidence, "the pictures are the same"
    computed.clear()
    strict = audited(recipe(("gate = 0.0", "gate = 1.0")), place(root), data)
    assert computed == [], "a gate changes no weights"
    assert not strict.evaluator.trusted


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        (((), '[[attacks]]\nname = "gmi"\nlabel = "longer"\nsteps = 3\nper_class = 2\n'), ["GMI"]),
        (((), '[[attacks]]\nname = "brepmi"\nper_class = 2\nbudget = 32\ndraws = 4\ndirections = 2\n'), ["BREPMI"]),
        (
            ((), '[[attacks]]\nname = "kedmi"\nsteps = 2\n[prior.inversion]\nwidth = 4\nlatent = 8\nsteps = 1\nbatch_size = 4\n'),
            ["prior inversion", "facts inversion", "KEDMI"],
        ),
        (((), "[audit]\nseeds = [0, 3]\n"), ["GMI"]),
        (((("steps = 2", "steps = 4"),), ""), ["GMI"]),
        (((("steps = 3", "steps = 4"),), ""), ["prior gan", "facts gan", "GMI"]),
        (((("identities = 3", "identities = 2"),), ""), ["facts gan", "GMI"]),
        (((("epochs = 1\nbatch_size = 8", "epochs = 2\nbatch_size = 8"),), ""), ["target", "facts gan", "GMI"]),
    ],
    ids=["the same longer", "by labels", "another prior", "another seed", "steps", "prior", "classes", "target"],
)
def test_what_is_added_or_changed_is_all_that_is_computed(
    change: tuple[tuple[tuple[str, str], ...], str],
    computed: list[str],
    root: Path,
    data: sf.Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes, more = change
    done = note(monkeypatch)
    audited(recipe(*changes, more=more), place(root), data)
    assert done == computed


def test_priors_of_a_target_are_its_own_and_plain_ones_are_shared(
    root: Path, data: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = '[[attacks]]\nname = "kedmi"\nsteps = 2\n[prior.inversion]\nwidth = 4\nlatent = 8\nsteps = 1\nbatch_size = 4\n'
    audited(recipe(more=more), place(root), data)
    computed = note(monkeypatch)
    audited(recipe(("epochs = 1\nbatch_size = 8", "epochs = 2\nbatch_size = 8"), more=more), place(root), data)
    assert computed == ["target", "facts gan", "prior inversion", "facts inversion", "GMI", "KEDMI"]
    assert len(stages(root, "prior")) == 3


class StoppedError(RuntimeError):
    """A process that ends in the middle of something."""


@pytest.mark.parametrize(("restart", "steps"), [(False, [3]), (True, [1, 2, 3])])
def test_a_prior_that_was_interrupted_goes_on_to_the_same_bits_or_starts_over(
    restart: bool,
    steps: list[int],
    first: tuple[Path, Inversion, sf.Data],
    root: Path,
    data: sf.Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (stage,) = stages(root, "prior")
    shutil.rmtree(stage)
    monkeypatch.setattr(train, "PAUSE", 0.0)

    def stop(name: str, done: int, total: int) -> None:
        if name == "prior 'gan' of tiny" and done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        audited(recipe(), place(root, watch=stop), data)
    assert (stage / "checkpoint.safetensors").exists()
    assert not (stage / "done.json").exists()
    told: list[int] = []

    def watch(name: str, done: int, total: int) -> None:
        if name == "prior 'gan' of tiny":
            told.append(done)

    audited(recipe(), place(root, watch=watch, restart=restart), data)
    assert told == steps
    assert not (stage / "checkpoint.safetensors").exists()
    assert (stage / "samples" / "step-000003.png").exists()
    whole, _ = read_tensors(stages(first[0], "prior")[0] / "prior.safetensors")
    resumed, _ = read_tensors(stage / "prior.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_attack_that_was_interrupted_leaves_what_was_trained(
    root: Path, data: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage,) = stages(root, "inversion")
    shutil.rmtree(stage)

    def stop(name: str, done: int, total: int) -> None:
        if name == "gmi on tiny":
            raise StoppedError

    with pytest.raises(StoppedError):
        audited(recipe(), place(root, watch=stop), data)
    computed = note(monkeypatch)
    audited(recipe(), place(root), data)
    assert computed == ["GMI"]


def test_a_prior_that_is_there_is_taken_and_another_file_is_another_prior(
    root: Path, data: sf.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "faces.safetensors"
    given = recipe(("[prior.gan]", f'[prior.gan]\nweights = "{path}"'))
    save_prior(path, new_prior("gan", (3, 16, 16), TINY, seed=1), TINY)
    computed = note(monkeypatch)
    found = audited(given, place(root), data)
    assert computed == ["facts gan", "GMI"]
    (prior,) = found.priors
    assert (prior.steps, prior.source) == (0, "loaded from faces.safetensors")
    computed.clear()
    audited(given, place(root), data)
    assert computed == []
    save_prior(path, new_prior("gan", (3, 16, 16), TINY, seed=2), TINY)
    audited(given, place(root), data)
    assert computed == ["facts gan", "GMI"], "the file is known by what is in it"


def _other_size(path: Path) -> None:
    save_prior(path, new_prior("gan", (3, 32, 32), TINY), TINY)


def _other_kind(path: Path) -> None:
    save_prior(path, new_prior("style", (3, 16, 16), TINY), TINY)


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1.0]}))


def _something(path: Path) -> None:
    write_tensors(path, {"weight": torch.zeros(2)}, {})


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (_other_size, ConfigError, r"expected a prior of pictures \(3, 16, 16\), as the target takes them, .* of \(3, 32, 32\)"),
        (_other_kind, ConfigError, "expected a prior of kind 'gan', found .* of kind 'style'"),
        (_pickled, WeightsError, "faces.safetensors"),
        (_something, WeightsError, "make one with: sfumato prior train"),
        (lambda path: None, SfumatoError, "faces.safetensors"),
    ],
)
def test_a_file_that_is_no_prior_for_the_target_is_refused_before_it_is_trained(
    write: object, error: type[Exception], message: str, data: sf.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "faces.safetensors"
    write(path)  # type: ignore[operator]
    computed = note(monkeypatch)
    with pytest.raises(error, match=message):
        audited(recipe(("[prior.gan]", f'[prior.gan]\nweights = "{path}"')), place(tmp_path / "runs"), data)
    assert computed == []


def test_a_prior_that_learned_from_a_target_of_more_classes_is_refused(data: sf.Data, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_prior(path, new_prior("inversion", (3, 16, 16), TINY, classes=7), TINY, classes=7)
    more = f'[[attacks]]\nname = "kedmi"\nsteps = 2\n[prior.inversion]\nweights = "{path}"\n'
    with pytest.raises(ConfigError, match="learned from a target of 7 classes, and this one has 4"):
        audited(recipe(more=more), place(tmp_path / "runs"), data)


def test_private_pictures_are_in_record_and_report_only_where_they_are_asked_for(
    root: Path, data: sf.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, _ = audit_recipe(recipe(), data, place(root))
    computed = note(monkeypatch)
    shown, _ = audit_recipe(recipe(), data, place(root, show_private=True))
    assert computed == []
    assert hidden.inversion is not None
    assert shown.inversion is not None
    private = data.part("private")
    for exhibit in shown.inversion.gallery:
        mine = private.read((private.labels == data.classes.index(exhibit.name)).nonzero()[:, 0])
        assert exhibit.private is not None
        assert torch.equal(exhibit.private, mine[: len(exhibit.private)])
    for asked, expected in ((False, 0), (True, 3)):
        save([shown], tmp_path / "audit.json", show_private=asked)
        (again,) = load(tmp_path / "audit.json")
        assert again.inversion is not None
        assert sum(exhibit.private is not None for exhibit in again.inversion.gallery) == expected
        save([shown], tmp_path / "audit.html", show_private=asked)
        page = (tmp_path / "audit.html").read_text()
        assert ("--show-private" in page) == (not asked)
    assert all(exhibit.private is None for exhibit in hidden.inversion.gallery)


def test_the_same_classes_are_drawn_for_every_attack_and_seed(root: Path, data: sf.Data) -> None:
    more = '[[attacks]]\nname = "gmi"\nlabel = "again"\nsteps = 1\n[audit]\nseeds = [0, 1]\n'
    two = ("identities = 3", "identities = 2")
    found = audited(recipe(two, more=more), place(root), data)
    assert [(result.name, result.seed) for result in found.results] == [("gmi", 0), ("again", 0), ("gmi", 1), ("again", 1)]
    (attacked,) = {tuple(one.name for one in result.classes) for result in found.results}
    whole = audited(recipe(("identities = 3\n", "")), place(root), data)
    assert [one.name for one in whole.results[0].classes] == list(data.classes)


def test_another_seed_of_a_recipe_draws_other_classes(data: sf.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def stop(self: object, target: object, prior: object, public: object, classes: torch.Tensor, **rest: object) -> None:
        asked.append(tuple(classes.tolist()))
        raise StoppedError

    monkeypatch.setattr(GMI, "__call__", stop)
    for seed in range(4):
        made = parse_recipe(f"seed = {seed}\n" + recipe(("identities = 3", "identities = 2")).text, name="tiny")
        with pytest.raises(StoppedError):
            audited(made, place(tmp_path), data)
    assert all(classes == tuple(sorted(set(classes))) and len(classes) == 2 for classes in asked)
    assert len(set(asked)) > 1


def test_another_seed_of_an_attack_makes_other_pictures_and_the_same_one_the_same(root: Path, data: sf.Data) -> None:
    both = recipe(more="[audit]\nseeds = [0, 3]\n")
    found = numbers(audited(both, place(root), data))
    assert found[0]["confidence"] != found[1]["confidence"]
    for stage in stages(root, "inversion"):
        shutil.rmtree(stage)
    assert numbers(audited(both, place(root), data)) == found


def test_pictures_are_judged_as_they_are_stored(root: Path, data: sf.Data) -> None:
    (stage,) = stages(root, "inversion")
    tensors, facts = read_tensors(stage / "pictures.safetensors")
    assert tensors["pixels"].dtype == torch.uint8
    white = {**tensors, "pixels": torch.full_like(tensors["pixels"], 255)}
    write_tensors(stage / "pictures.safetensors", white, facts)
    found = audited(recipe(), place(root), data)
    (result,) = found.results
    assert result.top1.value in (0, 1 / 3), "one picture for all classes is of one class at most"
    assert (found.gallery[0].rebuilt[0].pixels == 255).all()


@pytest.mark.parametrize("kind", ["another recipe", "a pickle", "nothing in it", "half of it"])
def test_pictures_of_another_recipe_or_none_are_refused(kind: str, root: Path, data: sf.Data) -> None:
    (stage,) = stages(root, "inversion")
    path = stage / "pictures.safetensors"
    tensors, facts = read_tensors(path)
    if kind == "another recipe":
        write_tensors(path, tensors, {"definition": "0" * 64})
    elif kind == "a pickle":
        path.write_bytes(pickle.dumps(tensors))
    elif kind == "nothing in it":
        write_tensors(path, {"reached": tensors["reached"]}, facts)
    else:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises((StorageError, WeightsError), match="pictures.safetensors"):
        audited(recipe(), place(root), data)


def test_classes_that_were_not_reached_are_shown_and_count_as_failures(root: Path, data: sf.Data) -> None:
    walks = 'name = "brepmi"\nper_class = 2\nbudget = 12\ndraws = 4\ndirections = 2\n'
    found = audited(recipe(more=f"[[attacks]]\n{walks}"), place(root), data)
    _, walked = found.results
    missed = [one for one in walked.classes if not one.reached]
    assert walked.access == "labels"
    assert walked.queries > 0
    assert len(missed) == walked.unreached > 0, "a target of one epoch names hardly one class"
    assert {one.accuracy for one in missed} == {0.0}
    rebuilt = {exhibit.name: exhibit.rebuilt[1] for exhibit in found.gallery}
    assert all(not rebuilt[one.name].reached and not any(rebuilt[one.name].right) for one in missed)
    audit, _ = audit_recipe(recipe(more=f"[[attacks]]\n{walks}"), data, place(root))
    for text in (to_html([audit]), to_markdown([audit])):
        assert f"brepmi did not reach {len(missed)} of 3 classes" in text


def test_an_evaluator_below_its_gate_has_no_strongest_attack_and_the_report_says_why(root: Path, data: sf.Data) -> None:
    audit, _ = audit_recipe(recipe(("gate = 0.0", "gate = 1.0")), data, place(root))
    found = audit.inversion
    assert found is not None
    assert found.evaluator.gate == 1.0
    assert found.evaluator.accuracy.value < 1
    assert found.strongest() is None
    assert len(found.results) == 1
    for text in (to_html([audit]), to_markdown([audit])):
        assert "Nothing is concluded about the weights." in text
        assert "The strongest attack on the weights" not in text
    trusted, _ = audit_recipe(recipe(), data, place(root))
    assert "The strongest attack on the weights (gmi, which sees the weights)" in to_markdown([trusted])


def write_faces(folder: Path, names: Sequence[str], *, seed: int, each: int = 6) -> None:
    """A folder for each person, with pictures of noise around a shade of their own."""
    stream = torch.Generator().manual_seed(seed)
    for shade, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = (40 * shade + 60 * torch.rand(16, 16, generator=stream)).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")


PEOPLE = """
[data]
name = "folder"
path = "{mine}"
[public]
name = "folder"
path = "{others}"
"""


def own(tmp_path: Path, *changes: tuple[str, str], more: str = "") -> Recipe:
    """The recipe with faces of the user's own, and of others."""
    tables = PEOPLE.format(mine=tmp_path / "mine", others=tmp_path / "others")
    portraits = RECIPE[RECIPE.index("[data]") : RECIPE.index("[model]")]
    return recipe((portraits, tables), *changes, more=more)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    write_faces(tmp_path / "mine", ["anna", "ben", "carla"], seed=1)
    write_faces(tmp_path / "others", ["dora", "emil"], seed=2)
    return tmp_path


def test_faces_of_ones_own_are_attacked_with_the_pictures_of_others(faces: Path) -> None:
    found = audited(own(faces), place(faces / "runs"))
    assert (found.outputs, found.overlap) == (3, 0)
    assert found.priors[0].source == "trained on 12 public pictures"
    assert found.results[0].factors is None, "photographs come without"
    assert {exhibit.name for exhibit in found.gallery} == {"anna", "ben", "carla"}


def test_people_of_the_same_name_on_both_sides_are_refused(faces: Path) -> None:
    write_faces(faces / "others", ["Anna"], seed=3)
    with pytest.raises(DataError, match="private identities must not be public too.* 1 of 3: anna; take these out of one side"):
        read_data(own(faces), place(faces / "runs"))


def test_pictures_on_both_sides_are_refused_or_left_out_and_counted(faces: Path) -> None:
    shutil.copy(faces / "mine" / "anna" / "0.png", faces / "others" / "dora" / "again.png")
    with pytest.raises(DataError, match="private identities must have no pictures elsewhere, but 1 of 13 of 'public'"):
        read_data(own(faces), place(faces / "runs"))
    tolerant = own(
        faces,
        ('name = "folder"\npath = "' + str(faces / "mine"), 'name = "folder"\noverlap = 0.1\npath = "' + str(faces / "mine")),
    )
    audit, _ = audit_recipe(tolerant, read_data(tolerant, place(faces / "runs")), place(faces / "runs"))
    assert audit.inversion is not None
    assert audit.inversion.overlap == 1
    assert audit.inversion.priors[0].source == "trained on 12 public pictures"
    assert "1 public picture was left out, being private too." in to_markdown([audit])


def test_public_pictures_of_another_size_are_refused(faces: Path) -> None:
    write_faces(faces / "mine", ["ida"], seed=3)
    small = own(faces, (f'path = "{faces / "others"}"', f'path = "{faces / "others"}"\nsize = 32'))
    with pytest.raises(DataError, match=r"public pictures must be of the shape \(C, H, W\) of the private ones"):
        read_data(small, place(faces / "runs"))


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ((("private_identities = 4\n", ""),), "", "with private_identities in .data., or name another data set in .public."),
        ((("private_identities = 4", "private_identities = 8"),), "", "leave nobody of 8 for the public pictures"),
        (
            (("private_identities = 4", "private_identities = 9"),),
            "",
            "9 private identities of 5 pictures or more, .* found 8 of 8",
        ),
        ((), '[[attacks]]\nname = "loss"\n', "share the pictures of every class, and those on weights the classes; give each a"),
    ],
    ids=["no public pictures", "nobody is public", "too many", "two surfaces"],
)
def test_data_that_no_adversary_of_the_weights_could_have_are_refused(
    changes: tuple[tuple[str, str], ...], more: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SfumatoError, match=message):
        read_data(recipe(*changes, more=more), place(tmp_path))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ((("identities = 3", "identities = 5"),), ConfigError, "identities must be at most 4, the classes of the target, got 5"),
        (
            (('model = "lenet5"', 'model = "cnn4"\noptions = { width = 0.25 }'),),
            ConfigError,
            "the evaluator must be of another architecture than the target, found cnn4 for both",
        ),
        ((('name = "cnn4"\nwidth = 0.25', 'name = "wide_nets:net"'),), ModelError, "give its last layer 4 outputs"),
        ((('model = "lenet5"', 'model = "lenet5"\nweights = "none.safetensors"'),), SfumatoError, "none.safetensors"),
        ((("batch_size = 4", "batch_size = 64"),), DataError, "a batch is 64 public pictures, got only 24; lower batch_size"),
    ],
    ids=["identities", "its own judge", "width", "no weights", "few public pictures"],
)
def test_what_cannot_be_attacked_or_judged_is_refused_before_anything_is_trained(
    changes: tuple[tuple[str, str], ...],
    error: type[Exception],
    message: str,
    data: sf.Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "wide_nets.py").write_text(
        "from torch import nn\n\ndef net(classes, shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(768, classes + 1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    computed = note(monkeypatch)
    with pytest.raises(error, match=message):
        audited(recipe(*changes), place(tmp_path / "runs"), data)
    assert computed == []
