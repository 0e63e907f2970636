# SPDX-License-Identifier: Apache-2.0
"""The numbers of audits as tables: rows of text, ready to print. Nothing is measured here.

Example:
    >>> from sfumato.types import Audit, DataFacts, Interval, TargetFacts
    >>> target = TargetFacts("lenet", "c1", (), 10, (1, 28, 28), (2, 8, 8), {"float32": 512}, 80, 900, 90, 800)
    >>> data = DataFacts("digits", "00", {"test": 100})
    >>> audit = Audit("digits", target, data, Interval(0.97, 0.95, 0.98), (), (), (), (0,), {}, "cpu")
    >>> table([audit])[0]
    Row(label='Accuracy', cells=('97.0 % (95.0 to 98.0)',))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sfumato.types import AttackResult, Audit, Exhibit, Interval, Selection

ATTACK_COLUMNS = (
    "Attack", "Pictures of", "Weights", "Seed", "Access", "Pictures", "MSE", "PSNR (dB)", "PSNR, mean of pictures (dB)", "SSIM",
    "LPIPS", "Seconds", "Queries",
)  # fmt: skip
"""The headings of `attack_table`: that of the label, then one for each cell."""

_UNITS = ("nats", "bits")
_SELECTIONS: Mapping[Selection, str] = {"only": "", "best": "best epoch", "last": "last epoch"}


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        label: what the line shows.
        cells: one text for each column, ready to print.
    """

    label: str
    cells: tuple[str, ...]


def columns(audits: Sequence[Audit]) -> list[str]:
    """Return the heading of each audit's column.

    Args:
        audits: one or several.

    Returns:
        "before" and "after" for an undefended target followed by a defended one; otherwise the titles, numbered where two agree.

    Example:
        >>> columns([])
        []
    """
    if len(audits) == 2 and not audits[0].target.defenses and audits[1].target.defenses:
        return ["before", "after"]
    titles = [audit.title for audit in audits]
    return [f"{title} ({number})" if titles.count(title) > 1 else title for number, title in enumerate(titles, 1)]


def table(audits: Sequence[Audit]) -> list[Row]:
    """Return the headline numbers, one column for each audit.

    Args:
        audits: one or several; `columns` gives the headings of their columns.

    Returns:
        Accuracy; the strongest attack on pictures of inference time and its MSE, PSNR and SSIM, each with its 95 % interval; the
        bits that a picture leaks at most, where that was certified; what the target costs.

    Example:
        >>> [row.label for row in table([])][:3]
        ['Accuracy', 'Strongest attack', 'MSE']
    """
    strongest = [audit.strongest() for audit in audits]
    targets = [audit.target for audit in audits]

    def scored(cell: Callable[[AttackResult], str]) -> tuple[str, ...]:
        return tuple("not scored" if result is None else cell(result) for result in strongest)

    bits = [_certified_bits(audit) for audit in audits]
    certified = [Row("Certified leak", tuple(cell or "not certified" for cell in bits))] if any(bits) else []
    return [
        Row("Accuracy", tuple(show_interval(percent(audit.accuracy), ".1f", " %") for audit in audits)),
        Row("Strongest attack", scored(describe_scored)),
        Row("MSE", scored(lambda result: show_interval(result.mse, "#.3g"))),
        *_blind_row(audits),
        Row("PSNR", scored(lambda result: show_interval(result.psnr, ".2f", " dB"))),
        Row("SSIM", scored(lambda result: show_interval(result.ssim, ".3f"))),
        *certified,
        Row("Bytes sent per picture (float32)", tuple(_count(target.bytes_per_picture.get("float32")) for target in targets)),
        Row("Head parameters", tuple(f"{target.head_parameters:,}" for target in targets)),
        Row("Head MACs", tuple(f"{target.head_macs:,}" for target in targets)),
    ]


def attack_table(audit: Audit) -> list[Row]:
    """Return every attack result, those of inference time first and the strongest of a part first.

    Args:
        audit: the record.

    Returns:
        One row for each attack, part, selection of weights and seed; `ATTACK_COLUMNS` are its headings, that of the label first.
    """
    ordered = sorted(audit.attacks, key=lambda result: (result.part, result.mse.value))
    return [
        Row(
            result.name,
            (
                result.part,
                _SELECTIONS[result.selection] or "none",
                str(result.seed),
                result.access,
                f"{result.pictures:,}",
                show_interval(result.mse, "#.3g"),
                show_interval(result.psnr, ".2f"),
                show_interval(result.psnr_mean, ".2f"),
                show_interval(result.ssim, ".3f"),
                show_interval(result.lpips, ".3f"),
                f"{result.seconds:,.1f}",
                f"{result.queries:,}",
            ),
        )
        for result in ordered
    ]


def _count(count: int | None) -> str:
    return "not recorded" if count is None else f"{count:,}"


def _blind_row(audits: Sequence[Audit]) -> list[Row]:
    """Return what an adversary reaches that sees nothing, where any audit ran it: errors near it have recovered little."""
    errors = [
        next((result.mse for result in audit.attacks if (result.name, result.part) == ("mean", "inference")), None)
        for audit in audits
    ]
    cells = tuple("not run" if error is None else show_interval(error, "#.3g") for error in errors)
    return [Row("MSE of the mean picture", cells)] if any(errors) else []


def _certified_bits(audit: Audit) -> str:
    """Write the bound on what features tell of a picture, or "" where none was certified."""
    for certificate in audit.certificates:
        if "information_bits" in certificate.values:
            if audit.beaten(certificate):
                return "refuted (an attack got below its floor)"
            return f"at most {show_value('information_bits', certificate.values['information_bits'])[1]} per picture"
    return ""


def percent(share: Interval) -> Interval:
    """Return a share in [0, 1] as a percentage.

    Example:
        >>> percent(Interval(0.5, 0.25, 0.75))
        Interval(value=50.0, low=25.0, high=75.0)
    """
    return Interval(100 * share.value, 100 * share.low, 100 * share.high)


def show_value(name: str, value: float) -> tuple[str, str]:
    """Write a number whose name may end in its unit.

    Args:
        name: words joined by underscores.
        value: any float.

    Returns:
        The name in words, and the number with its unit.

    Example:
        >>> show_value("information_bits", 1234.5), show_value("noise_std", 0.025)
        (('information', '1,234 bits'), ('noise std', '0.025'))
    """
    *words, unit = name.split("_")
    form = ",.0f" if 1000 <= abs(value) < 1e15 else ".3g"
    number = show_number(value, form)
    return (" ".join(words), f"{number} {unit}") if words and unit in _UNITS else (name.replace("_", " "), number)


def show_number(value: float, form: str) -> str:
    """Write a number for people.

    Args:
        value: any float.
        form: a format specification, such as ".2f".

    Returns:
        The number with a true minus sign, or a word or sign for one that is not finite.

    Example:
        >>> show_number(-1.5, ".2f"), show_number(float("nan"), ".2f")
        ('−1.50', 'not a number')
    """
    if math.isfinite(value):
        return format(value, form).replace("-", "−")
    return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"


def show_interval(interval: Interval | None, form: str, unit: str = "") -> str:
    """Write a number with its 95 % interval.

    Args:
        interval: None where it was not measured.
        form: a format specification, such as ".2f".
        unit: follows the number, with its space.

    Returns:
        The number, its unit, and the bounds in parentheses.

    Example:
        >>> show_interval(Interval(20.0, 19.8, 20.2), ".1f", " dB")
        '20.0 dB (19.8 to 20.2)'
    """
    if interval is None:
        return "not measured"
    return f"{show_number(interval.value, form)}{unit} ({show_number(interval.low, form)} to {show_number(interval.high, form)})"


def describe_attack(made: AttackResult | Exhibit) -> str:
    """Name an attack with the weights and the seed.

    Args:
        made: a result of the attack, or pictures that it made.

    Returns:
        Such as "decoder, best epoch, seed 0".

    Example:
        >>> import torch
        >>> describe_attack(Exhibit("train", torch.empty(0, 1, 2, 2), "decoder", "best", seed=3))
        'decoder, best epoch, seed 3'
    """
    name = made.name if isinstance(made, AttackResult) else made.attack
    return ", ".join(part for part in (name, _SELECTIONS[made.selection], f"seed {made.seed}") if part)


def describe_scored(result: AttackResult) -> str:
    """Name an attack with the weights, the seed, how many pictures it was scored on and how often it saw each."""
    seen = f", {result.releases} releases of each" if result.releases > 1 else ""
    return f"{describe_attack(result)} ({result.pictures:,} {'picture' if result.pictures == 1 else 'pictures'}{seen})"
