# SPDX-License-Identifier: Apache-2.0
"""The tables of TL-DMI, in tests/studies/tldmi as CSV, and the numbers that each of its studies should have beside ours."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

Line = Mapping[str, str]
Number = float | Literal["-"]
Numbers = dict[str, dict[str, Number]]


@functools.cache
def lines(name: str) -> tuple[Line, ...]:
    """The lines of a table of the paper."""
    with (Path(__file__).parent / "studies" / "tldmi" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def line(table: str, **fields: str) -> Line:
    """The one line of a table that has some values."""
    (found,) = [one for one in lines(table) if all(one[key] == value for key, value in fields.items())]
    return found


def picked(one: Line, columns: Mapping[str, str]) -> dict[str, Number]:
    return {column: float(one[key]) if one[key] else "-" for column, key in columns.items()}


def defended(one: Line) -> str:
    """The name of a line's defense, as rows have it."""
    return "no defense" if one["defense"] == "no_defense" else one["defense"]


def of_table3() -> Numbers:
    found: Numbers = {}
    keys = {"top1": "attack_accuracy_top1_mean_percent", "top5": "attack_accuracy_top5_mean_percent", "knn": "knn_distance"}
    shared = {"training/parameters": "trainable_parameters_million", "accuracy": "accuracy_percent"}
    for one in lines("table3"):  # those of KEDMI come first, and it is their accuracy
        row = found.setdefault(f"{one['model']}, {one['public_dataset']}, {defended(one)}", picked(one, shared))
        row |= picked(one, {f"{one['attack'].lower()}/{key}": name for key, name in keys.items()})
    return found


def of_table4() -> Numbers:
    shared = {"training/parameters": "trainable_parameters_million", "accuracy": "accuracy_percent"}
    found: Numbers = {}
    for one in lines("table4"):
        columns: dict[str, Number] = {**picked(one, shared), "ppa/top1": "-", "mirror-weights/top1": "-"}
        columns |= picked(one, {f"{'ppa' if one['attack'] == 'PPA' else 'mirror-weights'}/top1": "attack_accuracy_percent"})
        columns |= picked(one, {"ppa/knn": "delta_eval", "ppa/face": "delta_facenet", "ppa/frechet": "fid"})
        found[f"{one['model']}, {defended(one)}"] = columns | picked(one, {"mirror-weights/centroid": "l2_distance"})
    return found


def of_ratios(table: str, attack: str) -> Numbers:
    """Tables 5 and 7: drops are printed as changes, which are negative."""
    found: Numbers = {}
    top1 = f"{attack}/top1"
    for one in lines(table):
        several = sum(other["defense"] == one["defense"] for other in lines(table)) > 1
        label = f"{defended(one)}, {one['trainable_parameters_million']} million" if several else defended(one)
        row = picked(one, {"accuracy": "accuracy_percent", top1: "attack_accuracy_percent"})
        row |= picked(one, {f"ratio/{top1}": "drop_ratio", f"{attack}/knn": "knn_distance"})
        changes = picked(one, {"accuracy": "accuracy_change_percent", top1: "attack_accuracy_change_percent"})
        row |= {f"drop/{column}": "-" if change == "-" else -change for column, change in changes.items()}
        found["No defense" if label == "no defense" else label] = row
    return found


def of_table6() -> Numbers:
    columns = {"vmi/top1": "attack_accuracy_top1_mean_percent", "vmi/top5": "attack_accuracy_top5_mean_percent"}
    shown = [("No defense" if one["defense"] == "no_defense" else one["defense"], one) for one in lines("table6")]
    return {label: picked(one, {"accuracy": "accuracy_percent", **columns}) for label, one in shown}


def of_table8() -> Numbers:
    pairs = [(float(one["lambda_x"]), float(one["lambda_y"]), one) for one in lines("table8")]
    return {f"BiDO, {x:g} and {y:g}": picked(one, {"accuracy": "accuracy_percent"}) for x, y, one in pairs}


def weighted(one: Line) -> str:
    """The defense of a line of Table 11 with its weights, and with its trained parameters where it is TL-DMI."""
    pair = f"{float(one['lambda_x']):g} and {float(one['lambda_y']):g}" if one["lambda_x"] else ""
    trained = f"TL-DMI, {one['trainable_parameters_million']} million"
    named = {
        "no_defense": "no defense",
        "MID": f"MID {float(one['lambda_mid'] or 0):g}",
        "TL-DMI": trained,
        "TL-DMI + BiDO-HSIC": f"{trained}, and BiDO-HSIC {pair}",
    }
    return named.get(one["defense"], f"{one['defense']} {pair}")


def of_table11() -> Numbers:
    return {f"{one['model']}, {weighted(one)}": picked(one, {"accuracy": "accuracy_percent"}) for one in lines("table11")}


def of_table12() -> Numbers:
    columns = {"training/seconds": "training_time_seconds", "training/ratio": "time_ratio", "accuracy": "accuracy_percent"}
    return {f"{one['model']}, {defended(one)}": picked(one, columns) for one in lines("table12")}


def of_table13() -> Numbers:
    found: Numbers = {}
    for one in lines("table13"):
        if one["run"] == "average":
            none: dict[str, Number] = dict.fromkeys(("kedmi/top1", "gmi/top1", "vmi/top1"), "-")
            row = found.setdefault(f"{one['model']}, TL-DMI", {**picked(one, {"accuracy": "accuracy_percent"}), **none})
            row[f"{one['attack'].lower()}/top1"] = float(one["attack_accuracy_mean_percent"])
    return found


def of_vgg16(*attacks: str, rows: Mapping[str, str]) -> Numbers:
    """Figures 1-II and 4 to 7 show no numbers; these are what Table 3 has of their targets."""
    whole = of_table3()
    columns = ("accuracy", *(f"{attack}/top1" for attack in attacks))
    return {label: {column: whole[f"VGG16, CelebA, {row}"][column] for column in columns} for label, row in rows.items()}


def of_fig1_iv() -> Numbers:
    """Accuracies of Table 11, and what Table 3 and the text have of attack accuracies."""
    attacks = ("kedmi/top1", "gmi/top1")
    ours = {weighted(one): one for one in lines("table11") if one["model"] == "VGG16" and one["defense"] != "no_defense"}
    none: dict[str, Number] = dict.fromkeys(attacks, "-")
    found: Numbers = {label: {**picked(one, {"accuracy": "accuracy_percent"}), **none} for label, one in ours.items()}
    read = of_vgg16("kedmi", "gmi", rows={"No defense": "no defense", "TL-DMI, 13.9 million": "TL-DMI"})
    told = {one["setting"].removeprefix("VGG16, "): float(one["value"]) for one in lines("text") if one["quantity"] == "accuracy"}
    for label, defense in (("BiDO-HSIC 0.05 and 0.5", "BiDO"), (BOTH_OF_TEXT, "TL-DMI + BiDO")):
        assert found[label]["accuracy"] == told[defense]
        attacked = line("text", quantity="attack_accuracy", setting=f"KEDMI, VGG16, {defense}")
        found[label]["kedmi/top1"] = float(attacked["value"])
    return found | read


BOTH_OF_TEXT = "TL-DMI, 15 million, and BiDO-HSIC 0.03 and 0.4"
"""Of the two of Table 11 it has the accuracy of the text."""


def of_fig2() -> Numbers:
    return of_vgg16("kedmi", rows={"ImageNet-1K, nothing frozen": "no defense"})


def of_fig9() -> Numbers:
    columns = {"accuracy": "accuracy_percent", "kedmi/top1": "attack_accuracy_percent"}
    return {one["defense"]: picked(one, columns) for one in lines("figure9_user_study")}


PLAIN, BOTH = {"No defense": "no defense"}, {"No defense": "no defense", "TL-DMI": "TL-DMI"}
PUBLISHED: Mapping[str, Callable[[], Numbers]] = {
    "tldmi-table3": of_table3,
    "tldmi-table4": of_table4,
    "tldmi-table5": lambda: of_ratios("table5", "lomma"),
    "tldmi-table6": of_table6,
    "tldmi-table7": lambda: of_ratios("table7", "brepmi"),
    "tldmi-table8": of_table8,
    "tldmi-table11": of_table11,
    "tldmi-table12": of_table12,
    "tldmi-table13": of_table13,
    "tldmi-fig1II": lambda: of_vgg16("kedmi", rows=PLAIN),
    "tldmi-fig1III": dict,
    "tldmi-fig1IV": of_fig1_iv,
    "tldmi-fig2": of_fig2,
    "tldmi-fig3": dict,
    "tldmi-fig5": lambda: of_vgg16("kedmi", rows=PLAIN),
    "tldmi-fig6": lambda: of_vgg16("kedmi", rows=BOTH),
    "tldmi-fig7": lambda: of_vgg16("gmi", rows=BOTH),
    "tldmi-fig9": of_fig9,
    "tldmi-effect": dict,
    "tldmi-faces": dict,
}
