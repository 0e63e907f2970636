# SPDX-License-Identifier: Apache-2.0
"""What the columns of a study show, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sfumato.errors import ConfigError, nearest
from sfumato.tables import show_number
from sfumato.types import Interval

Source = Literal["target", "attack", "half", "certificate"]
"""What a number is of: the target, what an attack recovers, the head or the tail, or a certificate."""


@dataclass(frozen=True)
class Measure:
    """A kind of number.

    Attributes:
        title: for headings.
        unit: for headings, or "".
        printed: how the papers print it, a format.
        form: how ours is written, a format; as theirs where empty.
        scale: what a number is multiplied by to be in the unit.
    """

    title: str
    unit: str
    printed: str
    form: str = ""
    scale: float = 1.0


_TARGET = {"accuracy": Measure("accuracy", "%", ".2f", scale=100)}
_ATTACK = {
    "mse": Measure("MSE", "", ".4f", "#.3g"),
    "psnr": Measure("PSNR", "dB", ".2f"),
    "ssim": Measure("SSIM", "", ".3f"),
}
_HALF = {
    "parameters": Measure("parameters", "million", ".5g", "#.3g", scale=1e-6),
    "macs": Measure("MACs", "million", ".5g", "#.4g", scale=1e-6),
    "milliseconds": Measure("time", "ms", ".5g", "#.3g"),
}
_FORMS = '"accuracy", "ATTACK/train/mse", "ATTACK/infer/psnr", "head/parameters", "tail/milliseconds" or "certificate/NAME/VALUE"'


@dataclass(frozen=True)
class Column:
    """A column of a study.

    Attributes:
        text: as the study names it, such as "decoder/infer/mse".
        source: what its numbers are of.
        name: of the attack, the half or the certificate; "" for the target.
        part: "train" or "infer" for what an attack recovers, else "".
        key: of the measure, or of the certificate's value.
        measure: the kind of number.
    """

    text: str
    source: Source
    name: str
    part: str
    key: str
    measure: Measure

    @property
    def heading(self) -> str:
        """The column's heading, with the unit."""
        unit = f" ({self.measure.unit})" if self.measure.unit else ""
        where = " ".join(part for part in (self.name, self.part) if part)
        return f"{where}: {self.measure.title}{unit}" if where else f"{self.measure.title}{unit}"

    def ours(self, interval: Interval) -> str:
        """Write a measured number, with its interval where it has one."""
        value, low, high = (self._write(number * self.measure.scale) for number in (interval.value, interval.low, interval.high))
        known = interval.low == interval.low and interval.low < interval.high
        return f"{value} ({low} to {high})" if known else value

    def theirs(self, value: float) -> str:
        """Write a published number as the papers print it; it is in the unit of the heading."""
        return show_number(value, self.measure.printed)

    def _write(self, value: float) -> str:
        return show_number(value, self.measure.form or self.measure.printed)


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
        case ["accuracy"]:
            return Column(text, "target", "", "", "accuracy", _TARGET["accuracy"])
        case ["head" | "tail" as half, key]:
            return Column(text, "half", half, "", key, _measure(text, key, _HALF))
        case ["certificate", name, key]:
            return Column(text, "certificate", name, "", key, Measure(key.replace("_", " "), "", ".4g"))
        case [name, part, key] if part in ("train", "infer"):
            return Column(text, "attack", name, part, key, _measure(text, key, _ATTACK))
    raise ConfigError(f"expected a column such as {_FORMS}, found '{text}'")


def _measure(text: str, key: str, known: Mapping[str, Measure]) -> Measure:
    if key not in known:
        raise ConfigError(f"'{text}': no measure '{key}'{nearest(key, known)}; known: {', '.join(known)}")
    return known[key]
