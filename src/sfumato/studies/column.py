# SPDX-License-Identifier: Apache-2.0
"""What the columns of a study show, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from sfumato.errors import ConfigError, nearest
from sfumato.priors.base import PriorKind
from sfumato.tables import show_number
from sfumato.types import Interval

Source = Literal[
    "target",
    "side",
    "attack",
    "inference",
    "inversion",
    "evaluator",
    "yardstick",
    "prior",
    "half",
    "compression",
    "certificate",
    "training",
]
"""What a number is of: the target, the members or the non-members, what an attack recovers, what an attack on predictions infers,
what an attack on weights rebuilds, who judges that, pictures that are no reconstructions judged so too, a prior, the head or the
tail, what pruning left, a certificate, or what training cost."""

Beside = Literal["", "drop", "ratio", "matched", "times"]
"""What a column shows of a number beside another row's: nothing, how far it lies below, that for each point of accuracy that is
lost too, how far it lies below what a run of the same accuracy has, or how many times it is."""
_COMPARED = ("drop", "ratio", "matched")


@dataclass(frozen=True)
class Measure:
    """A kind of number.

    Attributes:
        title: for headings.
        unit: for headings, or "".
        printed: how the papers print it, a format; "" is as the study has it.
        form: how ours is written, a format; as theirs where empty.
        scale: what a number is multiplied by to be in the unit.
    """

    title: str
    unit: str
    printed: str
    form: str = ""
    scale: float = 1.0


_TARGET = {"accuracy": Measure("accuracy", "%", ".2f", scale=100)}
_UTILITY = {name: Measure(name, "%", ".2f", scale=100) for name in ("rank-1", "rank-5", "rank-10", "mAP")}
_ATTACK = {
    "mse": Measure("MSE", "", ".4f", "#.3g"),
    "psnr": Measure("PSNR", "dB", ".2f"),
    "ssim": Measure("SSIM", "", ".3f"),
    "inside": Measure("MSE inside the region", "", ".4f", "#.3g"),
    "outside": Measure("MSE outside the region", "", ".4f", "#.3g"),
    "recognized": Measure("attack accuracy", "%", ".2f", scale=100),
}
_HALF = {
    "parameters": Measure("parameters", "million", ".5g", "#.3g", scale=1e-6),
    "megabytes": Measure("memory", "MB", ".5g", "#.3g", scale=1e-6),
    "macs": Measure("MACs", "million", ".5g", "#.4g", scale=1e-6),
    "milliseconds": Measure("time", "ms", ".5g", "#.3g"),
}
_INFERENCE = {
    "attack_accuracy": Measure("attack accuracy", "%", ".2f", scale=100),
    "auc": Measure("AUC", "", ".3f"),
    "tpr_at_1": Measure("TPR at 1 % FPR", "%", ".1f", scale=100),
    "tpr_at_01": Measure("TPR at 0.1 % FPR", "%", ".2f", scale=100),
    "advantage": Measure("advantage", "", ".3f"),
    "epsilon": Measure("epsilon at least", "", ".2f"),
}
_YARDSTICK = {
    "top1": Measure("attack accuracy", "%", ".2f", scale=100),
    "knn": Measure("KNN distance", "", ".2f", ",.5g"),
    "centroid": Measure("distance to the centroid", "", ".2f", ",.5g"),
    "frechet": Measure("Fréchet distance", "", ".2f", ",.5g"),
    "kid": Measure("KID", "", ".4f", "#.3g"),
    "factors": Measure("error of the factors", "%", ".2f", scale=100),
}
_INVERSION = {
    **_YARDSTICK,
    "top5": Measure("top-5 attack accuracy", "%", ".2f", scale=100),
    "confidence": Measure("target's confidence", "%", ".2f", scale=100),
    "named": Measure("named by the target", "%", ".2f", scale=100),
    "face": Measure("face distance", "", ".4f", ",.5g"),
    "unreached": Measure("classes not reached", "", ".0f", ".4g"),
    "queries": Measure("queries", "thousand", ",.5g", ",.5g", scale=1e-3),
    "seconds": Measure("time", "s", ",.1f"),
}
_PRIOR = {
    "ceiling": Measure("initial selection alone", "%", ".2f", scale=100),
    "frechet": Measure("Fréchet distance to public pictures", "", ".2f", ",.5g"),
}
_COMPRESSION = {
    "weights": Measure("weights", "thousand", ",.5g", ",.2f", scale=1e-3),
    "kept": Measure("weights after pruning", "thousand", ",.5g", ",.2f", scale=1e-3),
    "ratio": Measure("ratio", "", ".2f"),
    "dense_megabytes": Measure("file before", "MB", ".5g", "#.3g", scale=1e-6),
    "megabytes": Measure("file", "MB", ".5g", "#.3g", scale=1e-6),
    "dense_macs": Measure("MACs before", "million", ".5g", "#.4g", scale=1e-6),
    "macs": Measure("MACs without zeros", "million", ".5g", "#.4g", scale=1e-6),
    "dense_milliseconds": Measure("time before", "ms", ".5g", "#.3g"),
    "milliseconds": Measure("time", "ms", ".5g", "#.3g"),
}
_TRAINING = {
    "seconds": Measure("training time", "s", ",.0f", ",.1f"),
    "ratio": Measure("training time, times", "", ".2f"),
    "parameters": Measure("trained parameters", "million", ".5g", "#.3g", scale=1e-6),
}
_NAMED: Mapping[str, tuple[Source, Mapping[str, Measure]]] = {
    "members": ("side", _TARGET),
    "nonmembers": ("side", _TARGET),
    "evaluator": ("evaluator", _TARGET),
    "floor": ("yardstick", _YARDSTICK),
    "ceiling": ("yardstick", _YARDSTICK),
    "head": ("half", _HALF),
    "tail": ("half", _HALF),
    "training": ("training", _TRAINING),
}
"""Columns of two words, the first of which is no attack."""
_FORMS = (
    '"accuracy", "utility/mAP", "members/accuracy", "ATTACK/train/mse", "ATTACK/infer/psnr", "ATTACK/attack_accuracy", '
    '"ATTACK/auc", "ATTACK/top1", "evaluator/accuracy", "prior/gan/ceiling", "floor/knn", "ceiling/knn", "head/parameters", '
    '"tail/milliseconds", "compression/ratio", "training/seconds", '
    '"certificate/NAME/VALUE", or "drop/", "ratio/" or "matched/" and one of these'
)


@dataclass(frozen=True)
class Column:
    """A column of a study.

    Attributes:
        text: as the study names it, such as "decoder/infer/mse".
        source: what its numbers are of.
        name: of the attack, the half, the side, the yardstick, the kind of prior or the certificate; "" for the target.
        part: "train" or "infer" for what an attack recovers, else "".
        key: of the measure, or of the certificate's value.
        measure: the kind of number.
        whole: the kind of number that this is a drop of, from the row that a row stands against; None where it is no drop. A
            drop is in percent of that row's number, or in points where the number is itself in percent. A row that stands
            against none shows the number.
        beside: what is shown of the number beside another row's.
    """

    text: str
    source: Source
    name: str
    part: str
    key: str
    measure: Measure
    whole: Measure | None = None
    beside: Beside = ""

    @property
    def heading(self) -> str:
        """The column's heading, with the unit."""
        unit = f" ({self.measure.unit})" if self.measure.unit else ""
        where = " ".join(part for part in ("prior" if self.source == "prior" else "", self.name, self.part) if part)
        return f"{where}: {self.measure.title}{unit}" if where else f"{self.measure.title}{unit}"

    def ours(self, interval: Interval, *, against: str = "") -> str:
        """Write a measured number, with its interval where it has one.

        Args:
            interval: the number.
            against: label of the row that its row stands against, or "".
        """
        measure, unit = self._shown(against)
        form = measure.form or measure.printed
        value, low, high = (show_number(number * measure.scale, form) for number in (interval.value, interval.low, interval.high))
        known = interval.low == interval.low and interval.low < interval.high
        return f"{value}{unit} ({low} to {high})" if known else f"{value}{unit}"

    def theirs(self, value: float, *, against: str = "") -> str:
        """Write a published number as the papers print it; it is in the unit of the heading, or of what the column is a drop of.

        Args:
            value: the number.
            against: label of the row that its row stands against, or "".
        """
        measure, unit = self._shown(against)
        return f"{show_number(value, measure.printed)}{unit}"

    def _shown(self, against: str) -> tuple[Measure, str]:
        """Return the kind of number in a cell, and its unit where the heading has another."""
        if self.whole is None or against:
            return self.measure, ""
        return self.whole, f" {self.whole.unit}".rstrip()


def read_column(text: str) -> Column:
    """Read a column as a study names it.

    Args:
        text: such as "accuracy" or "decoder/infer/mse".

    Raises:
        ConfigError: there is no such column.

    Example:
        >>> read_column("decoder/infer/mse").heading
        'decoder infer: MSE'
    """
    match text.split("/"):
        case [beside, *rest] if beside in _COMPARED and len(rest) > (beside == "ratio"):
            return _compared(text, beside, read_column("/".join(rest)))
        case ["accuracy"]:
            return Column(text, "target", "", "", "accuracy", _TARGET["accuracy"])
        case ["utility", key]:
            return Column(text, "target", "", "", key, _measure(text, key, _UTILITY))
        case ["compression", key]:
            return Column(text, "compression", "", "", key, _measure(text, key, _COMPRESSION))
        case ["prior", kind, key]:
            return Column(text, "prior", _kind(text, kind), "", key, _measure(text, key, _PRIOR))
        case [name, key] if name in _NAMED:
            source, known = _NAMED[name]
            times: Beside = "times" if (name, key) == ("training", "ratio") else ""
            return Column(text, source, "" if source == "training" else name, "", key, _measure(text, key, known), beside=times)
        case [name, key] if key not in _ATTACK:  # of features a part is missing, and all forms are told
            of_attack: Source = "inversion" if key in _INVERSION else "inference"
            return Column(text, of_attack, name, "", key, _measure(text, key, {**_INFERENCE, **_INVERSION}))
        case ["certificate", name, key]:
            return Column(text, "certificate", name, "", key, Measure(key.replace("_", " "), "", ".4g"))
        case [name, part, key] if part in ("train", "infer"):
            return Column(text, "attack", name, part, key, _measure(text, key, _ATTACK))
    raise ConfigError(f"expected a column such as {_FORMS}, found '{text}'")


def _measure(text: str, key: str, known: Mapping[str, Measure]) -> Measure:
    if key not in known:
        raise ConfigError(f"'{text}': no measure '{key}'{nearest(key, known)}; known: {', '.join(known)}")
    return known[key]


def _compared(text: str, beside: str, of: Column) -> Column:
    """Return the column that shows another one beside another row's."""
    percent = of.measure.unit == "%"
    if of.beside or not (percent or beside == "drop"):
        raise ConfigError(f"'{text}': expected a column in percent, such as 'gmi/top1', found '{of.text}'")
    title = of.measure.title
    if beside == "drop":
        shown = Measure(f"{title} drop", "points" if percent else "%", "", ".1f", scale=100)  # printed as the study has it
        return replace(of, text=text, measure=shown, whole=of.measure, beside="drop")
    if beside == "matched":
        shown = Measure(f"{title} below a run as accurate", "points", ".1f", scale=100)
        return replace(of, text=text, measure=shown, beside="matched")
    return replace(of, text=text, measure=Measure(f"drop of {title} / drop of accuracy", "", ".2f"), beside="ratio")


def _kind(text: str, kind: str) -> str:
    kinds = get_args(PriorKind)
    if kind not in kinds:
        raise ConfigError(f"'{text}': no kind of prior '{kind}'{nearest(kind, kinds)}; known: {', '.join(kinds)}")
    return kind
