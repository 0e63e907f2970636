# SPDX-License-Identifier: Apache-2.0
"""The studies of TL-DMI that come with Sfumato: each published number is that of its table, and doubtful ones say so."""

from __future__ import annotations

import re

import pytest

from tldmi_cells import NAMES, load
from tldmi_published import BOTH_OF_TEXT, PUBLISHED, line, lines, of_table3


def test_every_table_and_figure_with_numbers_is_there() -> None:
    assert set(PUBLISHED) == set(NAMES)
    assert {len(lines(table)) - len(PUBLISHED[f"tldmi-{table}"]()) for table in ("table4", "table5", "table7", "table11")} == {0}


@pytest.mark.parametrize("name", NAMES)
def test_each_published_number_is_the_one_of_its_table(name: str) -> None:
    study = load(name)
    assert len(study.rows) == len({row.label for row in study.rows})
    found = {row.label: dict(zip(study.keys.columns, row.published, strict=True)) for row in study.rows if row.published}
    assert found == PUBLISHED[name]()


@pytest.mark.parametrize(("table", "attack"), [("table5", "lomma"), ("table7", "brepmi")])
def test_ratios_follow_from_the_drops_but_where_a_note_says_so(table: str, attack: str) -> None:
    study = load(f"tldmi-{table}")
    for row in study.rows:
        values = dict(zip(study.keys.columns, row.published, strict=True))
        ratio, spent, won = (values[key] for key in (f"ratio/{attack}/top1", "drop/accuracy", f"drop/{attack}/top1"))
        if ratio == "-" or spent == "-" or won == "-":
            assert not row.against
        elif f"{won / spent:.2f}" != f"{ratio:.2f}":
            assert f"{won / spent:.2f}" in row.notes[f"ratio/{attack}/top1"]


def test_the_runs_of_table_13_are_noted_and_their_mean_is_what_is_printed() -> None:
    study = load("tldmi-table13")
    for row in study.rows:
        printed = dict(zip(study.keys.columns, row.published, strict=True))
        for attack in [name for name in study.attacks if printed[f"{name}/top1"] != "-"]:
            runs = [one for one in lines("table13") if (one["model"], one["attack"]) == (row.setup, attack.upper())][:3]
            for column, key in (("accuracy", "accuracy_percent"), (f"{attack}/top1", "attack_accuracy_mean_percent")):
                noted = [float(value) for value in re.findall(r"\d+\.\d+", row.notes[column])]
                assert noted == [float(one[key]) for one in runs]
                assert sum(noted) / 3 == pytest.approx(printed[column], abs=0.0101)


NOTED = [
    ("tldmi-table3", "FaceNet64, CelebA, TL-DMI", "accuracy", "83.61"),
    ("tldmi-table4", "ResNet-18, no defense", "accuracy", "95.30"),
    ("tldmi-table4", "ResNet-18, TL-DMI", "accuracy", "91.17"),
    ("tldmi-table4", "MaxViT, TL-DMI", "accuracy", "93.00"),
    ("tldmi-table4", "ResNeSt-101, TL-DMI", "accuracy", "79.64"),
    ("tldmi-table4", "ResNeSt-101, no defense", "accuracy", "lower than with the defense, 79.54"),
    ("tldmi-table5", "TL-DMI, 13.9 million", "drop/lomma/top1", "20.00"),
    ("tldmi-table5", "TL-DMI, 11.5 million", "accuracy", "77.89"),
    ("tldmi-table11", "VGG16, no defense", "accuracy", "89.00"),
    ("tldmi-table11", "VGG16, TL-DMI, 11.5 million", "accuracy", "78.86"),
    ("tldmi-table11", "VGG16, TL-DMI, 15 million, and BiDO-HSIC 0.05 and 0.4", "accuracy", "84.14"),
    ("tldmi-table11", "VGG16, TL-DMI, 15 million, and BiDO-HSIC 0.03 and 0.4", "accuracy", "84.14"),
    ("tldmi-table11", "ResNet-34, MID 0", "accuracy", "printed as 0"),
    ("tldmi-table11", "FaceNet64, TL-DMI, 34.4 million", "accuracy", "83.41"),
    ("tldmi-table11", "ResNet-18, no defense", "accuracy", "94.22"),
    ("tldmi-table11", "ResNet-18, TL-DMI, 8.91 million", "accuracy", "91.12"),
    ("tldmi-table11", "MaxViT, TL-DMI, 18.31 million", "accuracy", "93.01"),
    ("tldmi-table11", "ResNeSt-101, TL-DMI, 27.94 million", "accuracy", "79.54"),
    ("tldmi-table12", "VGG16, TL-DMI + BiDO-HSIC", "accuracy", "84.31"),
    ("tldmi-table12", "FaceNet64, TL-DMI", "accuracy", "83.41"),
    ("tldmi-fig1IV", "BiDO-HSIC 0.05 and 0.5", "kedmi/top1", "45.80"),
    ("tldmi-fig1IV", BOTH_OF_TEXT, "kedmi/top1", "17.40"),
    ("tldmi-fig9", "BiDO", "kedmi/top1", "46.23"),
    ("tldmi-fig9", "TL-DMI + BiDO", "kedmi/top1", "18.87"),
]


@pytest.mark.parametrize(("name", "row", "column", "said"), NOTED)
def test_a_number_that_another_place_of_the_paper_contradicts_says_so(name: str, row: str, column: str, said: str) -> None:
    assert said in load(name).row(row).notes[column]


def told(name: str) -> str:
    return " ".join(load(name).keys.notes)


def text(quantity: str, setting: str) -> str:
    return line("text", quantity=quantity, setting=setting)["value"]


def test_what_notes_say_of_the_numbers_is_so() -> None:
    deviations = [float(one[f"attack_accuracy_{top}_std_percent"]) for one in lines("table3") for top in ("top1", "top5")]
    assert f"{min(deviations):.2f} to {max(deviations):.2f} points" in told("tldmi-table3")
    over_people = [float(one[f"attack_accuracy_{top}_std_percent"]) for one in lines("table6") for top in ("top1", "top5")]
    assert f"{min(over_people):.2f} to {max(over_people):.2f} points" in told("tldmi-table6")
    for attack in ("KEDMI", "GMI"):
        for end in ("min", "max"):
            assert text(f"top1_attack_accuracy_drop_{end}", f"{attack}, Table 3") in told("tldmi-table3")
    assert text("accuracy_decrease_mean", "Table 3") in told("tldmi-table3")
    for setting in ("11.7", "8.9"):
        value = text("attack_accuracy", f"PPA, ResNet-18, accuracy about 91, {setting} million trainable")
        assert value in told("tldmi-fig1III")
    kept = "KEDMI, VGG16, 15.0 million trainable, ImageNet-1K instead of Pubfig83"
    assert text("attack_accuracy_decrease", kept) in told("tldmi-fig2")
    for others in ("ImageNet-1K", "FaceScrub", "Pubfig83"):
        assert f"{text('accuracy', f'VGG16, 2.1 million trainable, pre-trained on {others}')} %" in told("tldmi-fig2")
    frozen = {"c7": "15", "c8": "13.9", "c10": "9.1"}
    for point, count in frozen.items():
        one = line("table11", model="VGG16", defense="TL-DMI", trainable_parameters_million=count)
        assert f"{one['accuracy_percent']} % with {point}" in told("tldmi-fig2")
    wrong = [
        line("table3", attack="KEDMI", model="VGG16", public_dataset="CelebA", defense=one) for one in ("no_defense", "TL-DMI")
    ]
    assert "from {} to {} %".format(*(one["attack_accuracy_top1_mean_percent"] for one in wrong)) in told("tldmi-fig7")
    for one in lines("figure9_user_study"):
        assert f"{one['preference_percent']} %" in told("tldmi-fig9")
        setting = one["defense"]
        assert text("attack_accuracy", f"KEDMI, VGG16, {setting}") in load("tldmi-fig9").row(setting).notes["kedmi/top1"]
    averages = [one["attack_accuracy_std_percent"] for one in lines("table13") if one["run"] == "average"]
    assert all(value in told("tldmi-table13") for value in averages)


def test_drops_of_table_3_are_what_the_note_says() -> None:
    found = of_table3()
    pairs = [(found[label.replace("TL-DMI", "no defense")], one) for label, one in found.items() if "TL-DMI" in label]
    drops = sorted(before["gmi/top1"] - after["gmi/top1"] for before, after in pairs)
    assert drops[:2] == pytest.approx([9.33, 10.53])
    spent = [
        float(
            line("table3", **{key: one[key] for key in ("attack", "model", "public_dataset")}, defense="no_defense")[
                "accuracy_percent"
            ]
        )
        - float(one["accuracy_percent"])
        for one in lines("table3")
        if one["defense"] == "TL-DMI"
    ]
    assert f"{sum(spent) / len(spent):.2f}" in told("tldmi-table3")
