# SPDX-License-Identifier: Apache-2.0
"""The studies of TL-DMI that come with Sfumato: set up as the paper says, they share their runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfumato.attacks.weights.base import InversionAttack
from sfumato.recipe import Recipe
from sfumato.studies.study import SIZES
from sfumato.studies.table import paper_table
from tldmi_cells import FIGURES, NAMES, TABLES, cells, load, recipes
from tldmi_published import line, lines


@pytest.mark.parametrize("name", NAMES)
def test_a_study_has_every_size_and_no_defense_is_missing(name: str) -> None:
    study = load(name)
    assert tuple(study.sizes) == {"tldmi-effect": ("smoke",), "tldmi-faces": ("gpu",)}.get(name, SIZES)
    assert not study.keys.planned
    assert not any(row.missing for row in study.rows)
    assert not any(recipe.split.cut for _, _, recipe in cells(name))
    headings, printed = paper_table(study)
    assert all(len(row.cells) + 1 == len(headings) or not any(row.cells[1:]) for row in printed)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_starts_from_the_same_weights_as_the_one_that_it_stands_against(name: str) -> None:
    for row, size, recipe in cells(name):
        assert recipe.pretraining is not None
        assert not [*recipe.attacks, *recipe.inference]
        if row.against:
            first = recipes(name, size)[row.against]
            shared = ("source", "model", "options", "pretraining", "inversion")
            assert [getattr(recipe, key) for key in shared] == [getattr(first, key) for key in shared]
            assert replace(recipe.train, stop=recipe.train.epochs) == replace(
                first.train, stop=first.train.stop or first.train.epochs
            )


def key(recipe: Recipe) -> object:
    """What the weights of a target depend on."""
    defenses = [defense.describe() for defense in recipe.defenses]
    parts = (recipe.source, recipe.data, recipe.model, recipe.options, recipe.pretraining, defenses, recipe.train)
    return parts, recipe.inversion.public


@pytest.mark.parametrize("size", SIZES)
def test_tables_and_figures_share_their_runs(size: str) -> None:
    known: dict[object, object] = {}
    twice = 0
    for name in (*TABLES, *FIGURES):
        for row, of, recipe in cells(name):
            if of == size and not row.train and not (name == "tldmi-fig2" and size == "smoke"):
                defenses = tuple(str(defense.describe()) for defense in recipe.defenses)
                target = (row.setup or row.label.partition(",")[0], "FFHQ" in row.label, defenses)
                found = key(recipe)
                twice += target in known
                assert known.setdefault(target, found) == found
    assert twice > 40


MODELS = {
    "VGG16": "vgg16_face",
    "IR152": "ir152",
    "FaceNet64": "ir50",
    "ResNet-34": "resnet34",
    "ResNet-18": "resnet18",
    "MaxViT": "timm:maxvit_tiny_tf_224",
    "ResNeSt-101": "timm:resnest101e",
    "ResNet-50": "resnet50",
}


@pytest.mark.parametrize("model", MODELS)
def test_a_target_is_trained_as_table_10_says(model: str) -> None:
    printed = line("table10", model=model)
    known = (*cells("tldmi-table11"), *cells("tldmi-table4"))
    recipe = next(recipe for row, size, recipe in known if (row.setup, size) == (model, "full"))
    assert recipe.model == MODELS[model]
    train, optimizer = recipe.train, recipe.train.optimizer
    assert (train.epochs, train.batch_size) == (int(printed["epochs"]), int(printed["batch_size"]))
    assert (optimizer.name, optimizer.learning_rate) == (printed["optimizer"].lower(), float(printed["learning_rate"]))
    assert optimizer.weight_decay == float(printed["weight_decay"] or 0)
    assert not printed["momentum"] or optimizer.momentum == float(printed["momentum"])
    assert recipe.source.size == int(printed["input_size_pixels"])  # type: ignore[attr-defined]


ATTACKED = {
    "GMI": ("tldmi-table3", "gmi", "VGG16, CelebA, no defense"),
    "KEDMI": ("tldmi-table3", "kedmi", "VGG16, CelebA, no defense"),
    "VMI": ("tldmi-table6", "vmi", "No defense"),
    "LOMMA": ("tldmi-table5", "lomma", "No defense"),
    "Stanford Dogs": ("tldmi-table4", "ppa", "ResNeSt-101, no defense"),
    "FaceScrub": ("tldmi-table4", "ppa", "ResNet-18, no defense"),
    "MIRROR": ("tldmi-table4", "mirror-weights", "ResNet-50, no defense"),
}


@pytest.mark.parametrize("attacked", ATTACKED)
def test_an_attack_is_set_up_as_appendix_d3_says(attacked: str) -> None:
    name, attack, label = ATTACKED[attacked]
    printed = line("attack_setups", **{"dataset" if "table4" in name and attack == "ppa" else "attack": attacked})
    recipe = recipes(name, "full")[label]
    own = recipe.inverting[attack]
    assert isinstance(own, InversionAttack)
    assert own.steps == int(printed["iterations"])  # type: ignore[attr-defined]
    assert own.per_class == int(printed["images_per_class"])
    assert recipe.inversion.options.identities == int(printed["attacked_identities"])
    if attack not in ("lomma", "vmi"):  # the first has none of its own, the second's is that of another optimizer
        assert own.learning_rate == float(printed["learning_rate"])  # type: ignore[attr-defined]


def test_defenses_have_the_weights_of_table_11() -> None:
    study = load("tldmi-table11")
    for row, one in zip(study.rows, lines("table11"), strict=True):
        given = {defense["name"]: defense for defense in row.defenses}
        names = {"MID": ["mid"], "BiDO": ["bido"], "TL-DMI": ["tl_dmi"]}
        assert list(given) == [
            part for key, parts in sorted(names.items(), reverse=True) if key in one["defense"] for part in parts
        ]
        if "mid" in given:
            assert given["mid"]["weight"] == float(one["lambda_mid"])
        if "bido" in given:
            assert given["bido"]["measure"] == one["defense"][-4:].lower()
            assert [given["bido"][key] for key in ("lambda_x", "lambda_y")] == [
                float(one[key]) for key in ("lambda_x", "lambda_y")
            ]
    for row, one in zip(load("tldmi-table8").rows, lines("table8"), strict=True):
        assert [row.defenses[0][key] for key in ("lambda_x", "lambda_y")] == [float(one[key]) for key in ("lambda_x", "lambda_y")]


def test_figures_have_traces_or_a_chart() -> None:
    for name in FIGURES:
        study = load(name)
        assert study.keys.traces or study.keys.chart or study.keys.pictures
    assert load("tldmi-fig5").keys.traces[:1] == load("tldmi-fig1II").keys.traces[:1] == ("fisher/task",)
    for size in SIZES:
        attacks = load("tldmi-fig5").recipe(load("tldmi-fig5").rows[0], size, seed=0).inverting
        steps = {name: attack.steps for name, attack in attacks.items()}  # type: ignore[attr-defined]
        assert [steps[f"kedmi-{number}"] for number in (10, 30, 100)] == [10, 30, 100]
        assert steps["kedmi"] > 100


def test_checkpoints_are_of_one_run() -> None:
    study = load("tldmi-fig1III")
    for row, size, recipe in cells("tldmi-fig1III"):
        assert replace(recipe.train, stop=0) == recipes("tldmi-fig1III", size)[f"{row.series}, stop = 0"].train
    assert sorted({recipe.train.stop for _, size, recipe in cells("tldmi-fig1III") if size == "smoke"}) == [0, 1]
    assert load("tldmi-fig3").rows == tuple(row for row in study.rows if row.setup == "VGG16")


RUN = {
    "VGG16": {"gmi", "kedmi", "lomma", "brepmi"},
    "IR152": {"gmi", "kedmi"},
    "FaceNet64": {"gmi", "kedmi"},
    "ResNet-34": {"vmi"},
    **dict.fromkeys(("ResNet-18", "MaxViT", "ResNeSt-101"), {"ppa"}),
    "ResNet-50": {"mirror-weights"},
}


def test_an_attack_is_run_where_the_paper_runs_it_and_alike_everywhere() -> None:
    known: dict[tuple[str, str, str], object] = {}
    ran: dict[str, set[str]] = {model: set() for model in RUN}
    for name in (*TABLES, *FIGURES):
        for row, size, recipe in cells(name):
            setup = row.setup if row.setup in RUN else "VGG16"  # those of Figure 2 and a row without a setup are this model
            for label, attack in recipe.inverting.items():
                if "-" not in label or label == "mirror-weights":  # kedmi-10 is Figure 5's
                    ran[setup].add(label)
                assert known.setdefault((setup, size, label), attack) == attack, (name, row.label)
    assert ran == RUN


def test_figure_2_has_a_line_over_freeze_points_for_each_set_and_a_point_with_nothing_frozen() -> None:
    study = load("tldmi-fig2")
    assert study.keys.chart is not None
    assert study.keys.chart.pairs == (("accuracy", "kedmi/top1"),)
    for others in ("ImageNet-1K", "FaceScrub", "PubFig83"):
        line_of = [row.defenses[0]["freeze"] for row in study.rows if row.series == others]
        assert line_of == ["c7", "c8", "c10", "c13"]
        assert not study.row(f"{others}, nothing frozen").defenses
    for size in SIZES:
        starts = {
            others: recipes("tldmi-fig2", size)[f"{others}, freeze = c13"] for others in ("ImageNet-1K", "FaceScrub", "PubFig83")
        }
        pictures = [(recipe.pretraining, recipe.data.pretrain_identities) for recipe in starts.values()]
        assert all(pictures.count(one) == 1 for one in pictures)


def test_the_effect_compares_every_defense_with_one_undefended_run() -> None:
    study = load("tldmi-effect")
    defended = [" + ".join(str(part["name"]) for part in row.defenses) for row in study.rows if row.defenses]
    known = {"tl_dmi", "mid", "bido", "tl_dmi + bido", "label_smoothing", "midre", "trap_mid"}
    assert set(defended) == known
    assert len(defended) == len({str(row.defenses) for row in study.rows if row.defenses})
    checkpoints = [row for row in study.rows if row.series == study.keys.matched]
    assert {row.against for row in study.rows if row.defenses} == {checkpoints[-1].label}
    recipe = recipes("tldmi-effect", "smoke")[checkpoints[-1].label]
    assert recipe.train.stop == recipe.train.epochs  # the curve ends at what an undefended row has
    assert {attack.kind for attack in recipe.inverting.values()} <= {"style", "gan"}  # priors that no target is needed for


def test_real_faces_have_the_same_rows_on_both_sets() -> None:
    study = load("tldmi-faces")
    on = {name: [row.defenses for row in study.rows if row.setup == name] for name in ("celeb21", "LFW")}
    assert on["celeb21"] == on["LFW"]
    assert len(on["LFW"]) == 5
    for row, _, recipe in cells("tldmi-faces"):
        assert type(recipe.source).__name__ == {"celeb21": "Celeb21", "LFW": "LfwGray"}[row.setup]
        assert set(recipe.inverting) == {"kedmi", "ppa", "brepmi"}
