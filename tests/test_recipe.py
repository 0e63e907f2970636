# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sfumato as sf
from sfumato.arguments import check, construct
from sfumato.data.portraits import Portraits
from sfumato.demo import demo_recipe
from sfumato.errors import ConfigError, RecipeError, SfumatoError
from sfumato.evaluator import Evaluator
from sfumato.options import InversionOptions
from sfumato.priors.settings import FULL, SMOKE
from sfumato.recipe import parse_recipe
from sfumato.settings import Train
from sfumato.task import Classification

WHOLE = """
seed = 7
[data]
name = "folder"
path = "pictures"
size = 32
auxiliary = "public"
public = 0.5
[model]
name = "vgg11"
cut = "c2"
width = 0.5
[[defenses]]
name = "bottleneck"
[[defenses]]
name = "noise"
sigma = 0.025
[train]
epochs = 240
augment = { crop = 4 }
[train.optimizer]
learning_rate = 0.1
[[attacks]]
name = "decoder"
fitting.epochs = 3
[[attacks]]
name = "decoder"
label = "wide"
channels = 96
[audit]
seeds = [1, 2]
"""


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as error:
        parse_recipe(text)
    return error.value.problems


def test_a_recipe_becomes_objects() -> None:
    recipe = parse_recipe(WHOLE, name="mine")
    assert recipe.seed == 7
    assert (str(recipe.source.path), recipe.source.size) == ("pictures", 32)
    assert (recipe.data.auxiliary, recipe.data.public) == ("public", 0.5)
    assert (recipe.model, recipe.options, recipe.split.cut) == ("vgg11", {"width": 0.5}, "c2")
    assert [part.describe() for part in recipe.defenses] == [
        "Bottleneck(channels=8, sigmoid=True)",
        "Noise(sigma=0.025, distribution='gaussian')",
    ]
    assert (recipe.train.epochs, recipe.train.optimizer.learning_rate, recipe.train.augment.crop) == (240, 0.1, 4)
    assert list(recipe.attacks) == ["decoder", "wide"]
    assert recipe.attacks["decoder"].fitting.epochs == 3
    assert recipe.audit.seeds == (1, 2)


def test_a_task_has_arguments_of_its_own() -> None:
    text = 'data.name = "digits"\nmodel = { name = "vgg11", cut = "c2" }\n'
    assert parse_recipe(text).task is None
    made = parse_recipe(text + 'task = { name = "reidentification", instances = 8, margin = 1 }').task
    assert made == sf.Reidentification(instances=8, margin=1.0)
    assert parse_recipe(text + 'task.name = "classification"').task == Classification()


def test_every_problem_is_reported_at_once() -> None:
    found = problems("""
    sead = 1
    seed = -1
    [data]
    name = "digts"
    [model]
    name = "vgg11"
    widht = 0.5
    cut = 2
    [[defenses]]
    name = "noise"
    sigma = -1.0
    [[defenses]]
    name = "noise"
    sigma = "much"
    [[defenses]]
    name = "dropout"
    p = 0.5
    rate = 3
    [train]
    epoch = 3
    [train.optimizer]
    learning_rate = 0
    [[attacks]]
    name = "decoder"
    fitting.epochs = 1.5
    """)
    assert found == (
        "sead: unknown key (did you mean 'seed'?); known: seed, data, model, pretrain, defenses, train, task, attacks, "
        "membership, inversion, prior, evaluator, public, audit, recognizer, device",
        "seed: expected an integer >= 0, found -1",
        "model.widht: unknown key (did you mean 'width'?); known: classes, shape, width, mean, std, dropout",
        "model.cut: expected a valid string, found 2",
        found[4],
        "defenses[0]: sigma must be >= 0, got -1.0; for no defense use Compose()",
        "defenses[1].sigma: expected a valid number, found 'much'",
        "defenses[2].rate: unknown key (did you mean 'p'?); known: p, rescale" if "mean 'p'" in found[7] else found[7],
        "train.epoch: unknown key (did you mean 'epochs'?); known: " + found[8].split("known: ")[1],
        "train.optimizer: learning_rate must be > 0 and finite, got 0.0; 0.05 is the default",
        found[10],
    )
    assert found[4].startswith("data.name: no dataset named 'digts' (did you mean 'digits'?)")
    assert found[7].startswith("defenses[2].rate: unknown key")
    assert found[10].startswith("attacks[0].fitting.epochs: expected a valid integer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data: missing; a recipe needs a table [data] with a name"),
        ("[data]", "data.name: missing; known: digits, mnist"),
        ("[model]", "model.name: missing; known: lenet5"),
        ('data.name = "digits"\nmodel = {name = "vgg11", cut = "c2", classes = 3}', "model.classes: the data set gives it"),
        ("data = 3", "data: expected a table, found 3"),
        ('data.path = "x"\nmodel = {name = "vgg11", cut = "c2"}', "data.name: missing; known: digits, mnist"),
        ('model.name = "vgg11"\n[[attacks]]\nname = "decoder"', "model.cut: missing; the attack decoder need"),
        ('model.name = "vgg11"\n[[defenses]]\nname = "noise"\nsigma = 1', "model.cut: missing; the defense noise need"),
        ('model.name = "vgg11"\n[device]\nmacs = 3', "model.cut: missing; [device] need"),
        ("[membership]\nreferences = 3", "membership: references must be an even number >= 0, got 3"),
        ("[membership]\nknown = 1.0", "membership: known must be in (0, 1)"),
        ("[membership]\nviews = 19", "membership: views must be 1 to 18"),
        ("[membership]\nworkers = -1", "membership: workers must be at least 0"),
        ('[membership]\ncanary = "dirty"', "membership.canary: expected 'clean' or 'mislabeled', found 'dirty'"),
        ('data.name = "digits"\nmodel = {name = 3, cut = "c2"}', "model.name: expected a string, found 3"),
        ('defenses = {name = "noise"}', "defenses: expected tables written [[defenses]]"),
        ('[[attacks]]\nname = "decoder"\n[[attacks]]\nname = "decoder"', "attacks[1]: a second attack named 'decoder'"),
        ('[[defenses]]\nname="noise"\nsigma=1\n[[defenses]]\nname="noise"\nsigma=2', "defenses: two defenses named 'noise'"),
        ('[[attacks]]\nname = "decodr"', "attacks[0].name: no attack named 'decodr' (did you mean 'decoder'?)"),
        ("[train]\nprecision = 'float8'", "train.precision: expected 'float32' or 'bfloat16', found 'float8'"),
        ("[audit]\nseeds = [1, 'two']", "audit.seeds.1: expected a valid integer, found 'two'"),
        ("[train]\noptimizer = 'adam'", "train.optimizer: expected a table with some of name, learning_rate"),
        ("[train]\noptimizer = {}\nfoo = 1", "train.foo: unknown key; known: epochs, batch_size, optimizer"),
        ("a = = b", "not TOML: "),
        ("task = 3", "task: expected a table, found 3"),
        ("[task]\nmargin = 0.3", "task.name: missing; known: classification, reidentification"),
        ('task.name = "reid"', "task.name: expected one of classification, reidentification, found 'reid'"),
        ("task.name = []", "task.name: expected one of classification, reidentification, found []"),
        ('[task]\nname = "reidentification"\ninstanses = 4', "task.instanses: unknown key (did you mean 'instances'?)"),
        ('[task]\nname = "reidentification"\ninstances = 1', "task: instances must be at least 2, got 1"),
    ],
)
def test_one_problem(text: str, message: str) -> None:
    assert any(problem.startswith(message) for problem in problems(text)), problems(text)


def test_the_seed_of_a_recipe_is_that_of_the_split_of_its_data() -> None:
    text = 'seed = 5\nmodel = {name = "vgg11", cut = "c2"}\n'
    assert parse_recipe(text + 'data.name = "digits"').source.seed == 5
    assert parse_recipe(text + 'data = {name = "digits", seed = 1}').source.seed == 1


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a recipe"):
        sf.load_recipe(tmp_path / "none.toml")


def test_a_model_of_the_users_own_takes_any_option() -> None:
    recipe = parse_recipe('data.name = "digits"\nmodel = { name = "mine:net", cut = "a", anything = 3 }')
    assert recipe.options == {"anything": 3}


@pytest.mark.parametrize("name", ["before", "after"])
def test_the_recipes_of_the_demonstration_are_valid_and_differ_in_their_defenses_only(name: str) -> None:
    recipe = demo_recipe("digits", name)
    assert bool(recipe.defenses) == (name == "after")
    other = demo_recipe("digits", "before")
    assert (recipe.model, recipe.options, recipe.split, recipe.train) == (other.model, other.options, other.split, other.train)
    assert recipe.attacks == other.attacks


def test_the_street_is_judged_alike_before_and_after() -> None:
    before, after = (demo_recipe("street", name) for name in ("before", "after"))
    assert (before.defenses, [part.name for part in after.defenses]) == ((), ["patrol"])
    for of in (before, after):
        assert of.device is not None
        assert of.recognizer is not None
    assert before.device == after.device
    assert before.recognizer == after.recognizer
    assert before.attacks == after.attacks
    assert (before.source, before.model, before.options, before.task) == (after.source, after.model, after.options, after.task)


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_no_value_of_a_key_escapes_as_another_error(value: object) -> None:
    for key in ("epochs", "optimizer", "augment", "precision", "unknown"):
        made, found = construct(Train, {key: value}, where="train")
        assert (made is None) == bool(found)


def test_checked_arguments_have_the_types_of_the_annotations() -> None:
    def target(path: Path, sizes: tuple[int, ...], share: float) -> None: ...

    assert check(target, {"path": "a/b", "sizes": [1, 2], "share": 1}) == (
        {"path": Path("a/b"), "sizes": (1, 2), "share": 1.0},
        [],
    )


def test_every_error_of_ours_is_one_of_the_tree() -> None:
    import sfumato.errors as errors

    drawn = (errors.__doc__ or "").split("SfumatoError", 1)[1]
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception) and value is not SfumatoError:
            assert issubclass(value, SfumatoError)
            assert name in drawn


def test_a_recipe_can_have_a_recognizer() -> None:
    asked = """
[recognizer]
attribute = "driver"
model = "resnet18"
options = { width = 0.25, stem = "cifar" }
epochs = 3
size = 32
"""
    made = sf.Recognizer(attribute="driver", model="resnet18", options={"width": 0.25, "stem": "cifar"}, epochs=3, size=32)
    assert parse_recipe(WHOLE + asked).recognizer == made
    assert parse_recipe(WHOLE).recognizer is None
    own = 'recognizer = { model = "mine:net", weights = "w.safetensors", classes = 1000, accepts = [3, 5] }\n' + WHOLE
    found = parse_recipe(own).recognizer
    assert found is not None
    assert (str(found.weights), found.accepts, found.options) == ("w.safetensors", (3, 5), {})


def test_every_problem_of_a_recognizer_is_reported() -> None:
    assert problems(WHOLE + "[recognizer]\nepoch = 1\nepochs = 'x'\n") == (
        "recognizer.epoch: unknown key (did you mean 'epochs'?); known: attribute, model, options, epochs, size, weights, "
        "classes, accepts",
        "recognizer.epochs: expected a valid integer, found 'x'",
    )
    assert problems(WHOLE + "[recognizer]\naccepts = [1]\n") == (
        "recognizer: classes and accepts are those of a trained classifier; give its weights, or leave them out",
    )
    (problem,) = problems(WHOLE + "[recognizer]\noptions = { widht = 2.0 }\n")
    assert problem.startswith("recognizer.options.widht: unknown key (did you mean 'width'?)")
    (problem,) = problems("recognizer = 3\n" + WHOLE)
    assert problem == "recognizer: expected a table, found 3"


WEIGHTS = """
[data]
name = "portraits"
private_identities = 40
[model]
name = "vgg11"
[[attacks]]
name = "gmi"
[[attacks]]
name = "kedmi"
label = "short"
steps = 5
"""


def test_a_recipe_can_attack_weights_and_says_the_defaults() -> None:
    made = parse_recipe(WEIGHTS)
    assert list(made.inverting) == ["gmi", "short"]
    assert made.inverting["short"].steps == 5  # type: ignore[attr-defined]
    assert (made.attacks, made.inference, made.membership, made.split.cut) == ({}, {}, None, "")
    plan = made.inversion
    assert plan.options == InversionOptions()
    assert plan.evaluator == Evaluator()
    assert plan.public is None
    assert {kind: prior.settings for kind, prior in plan.priors.items()} == FULL
    assert {prior.weights for prior in plan.priors.values()} == {None}


def test_the_tables_of_attacks_on_weights_become_objects() -> None:
    made = parse_recipe(
        f"""
        seed = 7
        {WEIGHTS}
        [inversion]
        identities = 20
        memory = 1000000
        [evaluator]
        model = "resnet18"
        options = {{ width = 0.5 }}
        gate = 0.9
        [prior]
        scale = "smoke"
        [prior.gan]
        steps = 100
        [prior.style]
        weights = "ffhq.safetensors"
        crop = 800
        [public]
        name = "portraits"
        identities = 200
        """
    ).inversion
    assert made.options == InversionOptions(identities=20, memory=1_000_000)
    assert made.evaluator == Evaluator(model="resnet18", options={"width": 0.5}, gate=0.9)
    assert made.priors["gan"].settings == dataclasses.replace(SMOKE["gan"], steps=100)
    assert made.priors["inversion"].settings == SMOKE["inversion"]
    assert (made.priors["style"].weights, made.priors["style"].crop) == (Path("ffhq.safetensors"), 800)
    assert made.public == Portraits(identities=200, seed=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[inversion]\nidentites = 3",
            "inversion.identites: unknown key (did you mean 'identities'?); known: identities, memory",
        ),
        ("[inversion]\nidentities = 0", "inversion: identities must be at least 1 and finite, got 0"),
        ("[inversion]\nmemory = 0", "inversion: memory must be at least 1 and finite, got 0"),
        ("inversion = 3", "inversion: expected a table, found 3"),
        (
            "[prior]\nscales = 'full'",
            "prior.scales: unknown key (did you mean 'scale'?); known: scale, and a table for each of gan",
        ),
        ("[prior]\nscale = 'huge'", "prior.scale: expected one of full, smoke, found 'huge'"),
        ("[prior]\nscale = ['full']", "prior.scale: expected one of full, smoke, found ['full']"),
        (
            "[prior]\nsteps = 3",
            "prior.steps: priors of each kind are trained in their own way; say it in the table of one, such as",
        ),
        ("[prior]\ngan = 3", "prior.gan: expected a table, found 3"),
        ("[prior.gna]\nsteps = 3", "prior.gna: unknown key (did you mean 'gan'?)"),
        ("[prior.gan]\nstep = 3", "prior.gan.step: unknown key (did you mean 'steps'?); known: weights, crop, width"),
        ("[prior.gan]\nweight = 'a'", "prior.gan.weight: unknown key (did you mean 'weights'?)"),
        ("[prior.gan]\nsteps = 'many'", "prior.gan.steps: expected a valid integer, found 'many'"),
        ("[prior.gan]\nbatch_size = 1", "prior.gan: batch_size must be at least 2, got 1"),
        ("[prior.gan]\nweights = 3", "prior.gan.weights: expected "),
        ("[prior.style]\ncrop = 800", "prior.style: crop cuts the pictures of a StyleGAN's weights; name their file"),
        ("[prior.style]\nweights = 'a'\ncrop = 0", "prior.style: crop must be a side in pixels, at least 1, got 0"),
        ("[evaluator]\nmodle = 'vgg11'", "evaluator.modle: unknown key (did you mean 'model'?)"),
        ("[evaluator]\nmodel = 'vgg12'", "evaluator: no model named 'vgg12' (did you mean 'vgg16'?)"),
        ("[evaluator]\ngate = 80", "evaluator: gate must be an accuracy in [0, 1], got 80.0"),
        ("[evaluator]\noptions = { widht = 2.0 }", "evaluator.options.widht: unknown key"),
        ("[public]\npath = 'faces'", "public.name: missing; known: digits"),
        ("[public]\nname = 'foldr'", "public.name: no dataset named 'foldr' (did you mean 'folder'?)"),
        ("[public]\nname = 'folder'\npath = 'faces'\nsiez = 3", "public.siez: unknown key (did you mean 'size'?)"),
        ("public = 'faces'", "public: expected a table, found 'faces'"),
        ("[[attacks]]\nname = 'gmi'", "attacks[2]: a second attack named 'gmi'; give it a label of its own"),
        ("[[attacks]]\nname = 'ppa'\nstep = 3", "attacks[2].step: unknown key (did you mean 'steps'?)"),
        ("[[attacks]]\nname = 'brepmi'\nbudget = 3", "attacks[2]: budget must be at least "),
    ],
)
def test_one_problem_of_attacks_on_weights(text: str, message: str) -> None:
    table = text.startswith("[")
    (problem,) = problems(f"{WEIGHTS}\n{text}" if table else f"{text}\n{WEIGHTS}")
    assert problem.startswith(message)


def test_private_identities_share_the_data_by_person() -> None:
    for more, message in (
        ("public = 0.5", "data: private_identities makes the pictures of everybody else public"),
        ("overlap = 1.0", "data: overlap must be in [0, 1)"),
    ):
        (problem,) = problems(WEIGHTS.replace("private_identities = 40", f"private_identities = 40\n{more}"))
        assert problem.startswith(message)
    (problem,) = problems(WEIGHTS.replace("private_identities = 40", "pretrain_identities = 3"))
    assert problem.startswith("data: pretrain_identities needs private_identities")
    (problem,) = problems(WEIGHTS.replace("private_identities = 40", "private_identities = 1"))
    assert problem.startswith("data: private_identities must be at least 2")


def test_a_misspelt_key_of_the_data_is_offered_those_of_every_data_set_too() -> None:
    (problem,) = problems(WEIGHTS.replace("private_identities = 40", "private_identites = 40"))
    assert problem.startswith("data.private_identites: unknown key (did you mean 'private_identities'?); known: identities, ")


def test_a_wrong_scale_hides_nothing_else() -> None:
    found = problems(WEIGHTS + '\n[prior]\nscale = "huge"\nstps = 3\n')
    assert [one.partition(":")[0] for one in found] == ["prior.scale", "prior.stps"]
