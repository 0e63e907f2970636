# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from example_study import STUDY, small_study
from sfumato.errors import ConfigError, RecipeError, UnknownNameError
from sfumato.studies.column import read_column
from sfumato.studies.load import load_study
from sfumato.studies.study import Study, spread


def test_a_row_that_adds_has_the_defenses_of_the_other_first() -> None:
    study = small_study()
    noise, both = study.rows[1:3]
    assert noise.defenses == ({"name": "noise", "sigma": 0.1},)
    assert both.defenses == ({"name": "noise", "sigma": 0.1}, {"name": "dropout", "p": 0.5})
    recipe = study.recipe(both, "smoke", seed=3, auxiliary="test")
    assert [part.name for part in recipe.defenses] == ["noise", "dropout"]
    assert (recipe.seed, recipe.data.auxiliary, recipe.audit.pictures) == (3, "test", 8)


def test_only_attacks_that_a_column_shows_are_run() -> None:
    assert list(small_study().recipe(small_study().rows[0], "smoke", seed=0).attacks) == ["decoder"]
    shown = small_study('"decoder/infer/mse"]', '"mean/infer/mse"]').columns
    assert [column.name for column in shown] == ["", "decoder", "mean"]


def test_a_defense_that_is_planned_is_no_problem_of_the_study() -> None:
    assert [row.missing for row in small_study().rows] == [[], [], [], ["magic"], ["magic"]]


def test_a_defense_that_is_misspelt_is_one() -> None:
    with pytest.raises(RecipeError, match=r"row 'Magic': no defense named 'magic'.*stands in `planned`"):
        small_study('planned = ["magic"]', "planned = []")
    with pytest.raises(RecipeError, match=r"no defense named 'nosie' \(did you mean 'noise'\?\)"):
        small_study('name = "noise"', 'name = "nosie"')


def test_a_size_gives_arguments_to_defenses_by_name() -> None:
    study = small_study("[[rows]]", "[size.smoke.defenses]\nnoise = { sigma = 0.7 }\n\n[[rows]]")
    recipe = study.recipe(study.rows[1], "smoke", seed=0)
    assert repr(recipe.defenses[0]) == "Noise(sigma=0.7, distribution='gaussian')"


def varied() -> Study:
    return small_study("sigma = 0.1 }]", 'sigma = 0.1 }]\nvary = { "noise.sigma" = [0.1, 0.2, 0.4] }\ncut = "c2"')


def test_a_row_that_is_varied_is_a_row_for_each_value_with_the_one_that_adds_to_it() -> None:
    rows = varied().rows[1:7]
    assert [row.label for row in rows] == [
        *(f"Noise, sigma = {value}" for value in (0.1, 0.2, 0.4)),
        *(f"Noise+Dropout, sigma = {value}" for value in (0.1, 0.2, 0.4)),
    ]
    assert [row.over for row in rows[3:]] == [row.label for row in rows[:3]]
    assert [row.defenses[0]["sigma"] for row in rows] == [0.1, 0.2, 0.4] * 2
    assert {row.series for row in rows} == {"Noise", "Noise+Dropout"}
    assert {varied().recipe(row, "smoke", seed=0).split.cut for row in rows} == {"c2"}


def test_a_row_that_is_varied_over_one_that_is_not_adds_to_that_one() -> None:
    rows = small_study("p = 0.5 }]", 'p = 0.5 }]\nvary = { "dropout.p" = [0.1, 0.2] }').rows[2:4]
    assert [(row.label, row.over) for row in rows] == [(f"Noise+Dropout, p = {p}", "Noise") for p in (0.1, 0.2)]


def test_a_row_changes_a_size_key_by_key() -> None:
    changes = (
        'sigma = 0.1 }]\ncut = "c2"\nsize.smoke.train.batch_size = 7\nsize.smoke.audit = false\n'
        'size.smoke.data = { name = "folder", path = "x" }\nsize.smoke.defenses.noise.sigma = 0.3'
    )
    study = small_study("sigma = 0.1 }]", changes)
    plain, noise, both = (study.recipe(row, "smoke", seed=0) for row in study.rows[:3])
    assert (plain.train.epochs, plain.train.batch_size, plain.audit.pictures) == (1, 128, 8)
    assert (noise.train.epochs, noise.train.batch_size, noise.audit.pictures) == (1, 7, 1000)
    assert [type(recipe.source).__name__ for recipe in (plain, noise, both)] == ["Digits", "Folder", "Folder"]
    assert repr(noise.defenses[0]).startswith("Noise(sigma=0.3")
    assert both.split.cut == "c2"


def test_extra_columns_have_no_published_numbers() -> None:
    study = small_study("gain =", 'extra = ["utility/mAP", "head/megabytes"]\ngain =')
    assert [column.text for column in study.columns][-2:] == ["utility/mAP", "head/megabytes"]
    assert {len(row.published) for row in study.rows} == {3}


def test_a_size_may_run_fewer_values() -> None:
    few = small_study("sigma = 0.1 }]", 'sigma = 0.1 }]\nvary = { "noise.sigma" = [0.1, 0.2, 0.4] }')
    few.sizes["smoke"].__dict__["points"] = 2
    assert [row.label for row in few.rows_at("smoke")][1:3] == ["Noise, sigma = 0.1", "Noise, sigma = 0.4"]
    assert [sorted(spread(5, points)) for points in (1, 2, 3, 9)] == [[0], [0, 4], [0, 2, 4], [0, 1, 2, 3, 4]]


def test_every_problem_of_a_study_is_reported_at_once() -> None:
    text = (
        STUDY.replace("title", "tittle", 1)
        .replace("label =", "lable =", 1)
        .replace('"accuracy", ', '"acuracy", "decoder/train/mze", ')
    )
    with pytest.raises(RecipeError) as caught:
        _read(text.replace("[size.smoke]", "[size.small]\n[size.smoke]"))
    assert len(caught.value.problems) == 7, caught.value.problems
    said = str(caught.value)
    assert "tittle: unknown key (did you mean 'title'?)" in said
    assert "rows[0].lable: unknown key (did you mean 'label'?)" in said
    assert "found 'acuracy'" in said
    assert "no measure 'mze' (did you mean 'mse'?)" in said
    assert "size.small: unknown size; known: smoke, gpu, full" in said


def test_a_study_without_a_size_is_none() -> None:
    with pytest.raises(RecipeError, match="size: missing; a study needs at least one table"):
        _read(STUDY[: STUDY.index("[size.smoke]")] + STUDY[STUDY.index("[[rows]]") :])


def _read(text: str) -> Study:
    import tomllib

    from sfumato.studies.load import read_study

    return read_study(tomllib.loads(text), name="small")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('over = "Noise"', 'over = "Niose"', r"row 'Noise\+Dropout': over: no row 'Niose' above it \(did you mean 'Noise'\?\)"),
        ('label = "Noise"', 'label = "Plain"', "row 'Plain': a second row of this label"),
        (
            "[90.5, 0.002, 0.004]",
            "[90.5, 0.002]",
            "row 'Noise': published: expected a number for each column, found 2 numbers for 3",
        ),
        ("[90.5, 0.002, 0.004]", '[90.5, 1, 1]\nnotes.acuracy = "?"', "row 'Noise': notes: no column 'acuracy'"),
        ("sigma = 0.1 }", "sgma = 0.1 }", r"row 'Noise': defenses\[0\].sgma: unknown key \(did you mean 'sigma'\?\)"),
        ("epochs = 1 }", "epochs = 0 }", "size.smoke: train: epochs and batch_size must be at least 1"),
        ('"decoder/infer/mse"]', '"dekoder/infer/mse"]', "size.smoke: no attack 'dekoder'"),
        ("gain =", 'chart = { x = "accuracy", y = "mse" }\ngain =', "chart: no column 'mse'"),
        (
            "sigma = 0.1 }]",
            'sigma = 0.1 }]\nvary = { "nose.sigma" = [1.0] }',
            "row 'Noise': vary: expected one argument of one of its",
        ),
        (
            "sigma = 0.1 }]",
            'sigma = 0.1 }]\nagainst = "Plian"',
            r"'Noise': against: no other row 'Plian' \(did you mean 'Plain'\?",
        ),
        ("sigma = 0.1 }]", 'sigma = 0.1 }]\nstart = "Noise"', "row 'Noise': start: no other row 'Noise'"),
        (
            "p = 0.5 }]",
            'p = 0.5 }]\nstart = "Noise"',
            r"row 'Noise\+Dropout': start: expected a row without defenses that starts from no other, found 'Noise'",
        ),
        ("sigma = 0.1 }]", "sigma = 0.1 }]\nsize.gpu.train.epochs = 2", "row 'Noise': size: no size 'gpu'; known: smoke"),
        ("sigma = 0.1 }]", "sigma = 0.1 }]\nsize.smoke.seed = 2", "size.smoke, row 'Noise': seed: whoever runs the study gives"),
        ("sigma = 0.1 }]", 'sigma = 0.1 }]\nsize.smoke.data = "digits"', "size.smoke, row 'Noise': data: expected a table"),
        (
            "sigma = 0.1 }]",
            "sigma = 0.1 }]\nsize.smoke.defenses = [{ sigma = 1 }]",
            "size.smoke, row 'Noise': defenses: expected a table with arguments for each",
        ),
        (
            "sigma = 0.1 }]",
            "sigma = 0.1 }]\nsize.smoke.defenses.noise = 0.3",
            "size.smoke, row 'Noise': defenses: expected a table with arguments for each, by name, found {'noise': 0.3}",
        ),
        ('"accuracy", ', '"drop/acuracy", ', "columns: expected a column such as .* found 'acuracy'"),
        ("gain =", 'extra = ["utility/rank1"]\ngain =', r"extra: 'utility/rank1': no measure 'rank1' \(did you mean 'rank-1'\?"),
        (
            'columns = ["accuracy"',
            'chart = { x = "drop/accuracy", y = "decoder/infer/mse" }\ncolumns = ["drop/accuracy"',
            "chart: no column 'drop/accuracy'",
        ),
        ('data = { name = "digits" }', 'data = "digits"', "size.smoke: data: expected a table with a name, found 'digits'"),
        ('model = { name = "lenet5", cut = "c1" }', "", "size.smoke: model: expected a table with a name, found None"),
        ("audit =", "seed = 3\naudit =", "size.smoke: seed: whoever runs the study gives the seeds"),
        ('of = "without"', 'of = "none"', "average 'Average without': of: expected 'without', 'with' or the label of a row that"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        small_study(old, new)


def test_a_study_takes_from_its_base_what_it_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(STUDY)
    (tmp_path / "child.toml").write_text(
        'base = "base.toml"\ntitle = "Child"\nsource = "x"\n[size.smoke]\ntrain = { epochs = 3 }\n'
        '[[rows]]\nlabel = "Noise"\npublished = [1, 2, 3]\n[[rows]]\nlabel = "Noise+Dropout"\nadds = []\n'
    )
    child = load_study(str(tmp_path / "child.toml"))
    assert (child.name, child.keys.title, child.keys.gain, child.averages) == ("child", "Child", {}, ())
    assert [(row.label, row.published, row.notes) for row in child.rows] == [("Noise", (1, 2, 3), {}), ("Noise+Dropout", (), {})]
    assert child.rows[0].defenses == child.rows[1].defenses == ({"name": "noise", "sigma": 0.1},)
    recipe = child.recipe(child.rows[0], "smoke", seed=0)
    assert (recipe.train.epochs, recipe.model, recipe.audit.pictures) == (3, "lenet5", 8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('[rows]\nlabel = "Noise"', "rows: expected tables written"),
        ('rows = ["Noise"]', "rows: expected tables written"),
        ('[[rows]]\nlabel = ["Noise"]', r"rows\[0\].label: expected a valid string"),
    ],
)
def test_rows_over_a_base_that_are_none_are_named(rows: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(STUDY)
    (tmp_path / "child.toml").write_text(f'base = "base.toml"\ntitle = "Child"\nsource = "x"\n{rows}\n')
    with pytest.raises(RecipeError, match=message):
        load_study(tmp_path / "child.toml")


def test_a_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.toml").write_text(f'base = "{base}.toml"')
    with pytest.raises(RecipeError, match="base: expected the name of another study"):
        load_study(tmp_path / "a.toml")


def test_a_study_that_is_not_there() -> None:
    with pytest.raises(UnknownNameError, match=r"no study named 'cem-tabel1' \(did you mean 'cem-table1'\?\)"):
        load_study("cem-tabel1")
    with pytest.raises(ConfigError, match=r"expected a study \(TOML\) at nowhere.toml"):
        load_study("nowhere.toml")


@pytest.mark.parametrize(
    ("text", "heading"),
    [
        ("accuracy", "accuracy (%)"),
        ("gan/train/psnr", "gan train: PSNR (dB)"),
        ("head/macs", "head: MACs (million)"),
        ("certificate/entropy/information_nats", "entropy: information nats"),
        ("utility/mAP", "mAP (%)"),
        ("mirror/infer/recognized", "mirror infer: attack accuracy (%)"),
        ("head/megabytes", "head: memory (MB)"),
        ("drop/accuracy", "accuracy drop (points)"),
        ("drop/mirror/infer/psnr", "mirror infer: PSNR drop (%)"),
    ],
)
def test_columns_name_themselves(text: str, heading: str) -> None:
    assert read_column(text).heading == heading


@pytest.mark.parametrize(
    "text", ["", "decoder", "decoder/test/mse", "head/colour", "decoder/train/mse/more", "drop", "drop/drop/accuracy"]
)
def test_a_column_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_column(text)
