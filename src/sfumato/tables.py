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
from functools import partial
from typing import NamedTuple

from sfumato.types import AttackResult, Audit, Exhibit, Interval, Recognition, Selection, TargetFacts

BLIND = "mean"
"""The attack that answers the same whatever it sees."""

_MEASURES = (
    "Attack", "Pictures of", "Weights", "Seed", "Access", "Pictures", "MSE", "PSNR (dB)", "PSNR, mean of pictures (dB)", "SSIM",
    "LPIPS",
)  # fmt: skip
_COSTS = ("Seconds", "Queries")
_UNITS = ("nats", "bits")
_NAMED: Mapping[str, Callable[[Recognition], str]] = {
    "named right": lambda told: show_share(told.accuracy),
    "named right as sent": lambda told: show_share(told.on_real),
    "guessed right": lambda told: f"{show_number(100 * told.chance, '.1f')} %",
}
_HEAD: Mapping[str, Callable[[TargetFacts], int | None]] = {
    "parameters": lambda target: target.head_parameters,
    "memory (bytes)": lambda target: target.head_memory,
    "MACs": lambda target: target.head_macs,
}
_WHOLE: Mapping[str, Callable[[TargetFacts], int | None]] = {
    "parameters": lambda target: target.head_parameters + target.tail_parameters,
    "MACs": lambda target: target.head_macs + target.tail_macs,
}
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


def shows_features(audits: Sequence[Audit]) -> bool:
    """Return whether there is anything to say of the features: an audit of predictions or weights only says nothing."""
    return any(audit.attacks for audit in audits) or not any(audit.membership or audit.inversion for audit in audits)


def table(audits: Sequence[Audit], more: Sequence[Row] = ()) -> list[Row]:
    """Return the headline numbers, one column for each audit.

    Args:
        audits: one or several; `columns` gives the headings of their columns.
        more: further rows, to stand before those of the costs.

    Returns:
        Accuracy, or the ranks and mAP of re-identification; the strongest attack on pictures of inference time and its MSE, PSNR
        and SSIM, each with its 95 % interval; its MSE inside and outside the private region, and what a classifier names in the
        reconstructions of the attack that shows most of it, where that was measured; the bits that a picture leaks at most, where
        that was certified; what the target costs. Nothing of features where only predictions or weights were asked about.

    Example:
        >>> [row.label for row in table([])][:3]
        ['Accuracy', 'Strongest attack', 'MSE']
    """
    targets = [audit.target for audit in audits]
    split = any(target.cut for target in targets)
    sent = tuple(_count(target.bytes_per_picture.get("float32")) for target in targets)
    return [
        *_utility_rows(audits),
        *(_feature_rows(audits) if shows_features(audits) else []),
        *more,
        *_sticky_row(targets),
        Row("Cut after", tuple(target.cut or "not split" for target in targets)),
        *([Row("Bytes sent per picture (float32)", sent)] if split else []),
        *(_size_rows(audits, "Head", _HEAD) if split else _size_rows(audits, "Model", _WHOLE)),
    ]


def _sticky_row(targets: Sequence[TargetFacts]) -> list[Row]:
    """Return which devices were taken to repeat their random draw for a picture that comes again, where any was."""
    cells = tuple("taken to be sticky: same bytes, same draw" if target.sticky else "not sticky" for target in targets)
    return [Row("Device", cells)] if any(target.sticky for target in targets) else []


def _feature_rows(audits: Sequence[Audit]) -> list[Row]:
    """Return what the strongest attack makes of the features, and what is certified of them."""
    strongest = [audit.strongest() for audit in audits]

    def scored(cell: Callable[[AttackResult], str]) -> tuple[str, ...]:
        return tuple("not scored" if result is None else cell(result) for result in strongest)

    bits = [_certified_bits(audit) for audit in audits]
    certified = [Row("Certified leak", tuple(cell or "not certified" for cell in bits))] if any(bits) else []
    return [
        Row("Strongest attack", scored(describe_scored)),
        Row("MSE", scored(lambda result: show_interval(result.mse, "#.3g"))),
        *_blind_row(audits),
        Row("PSNR", scored(lambda result: show_interval(result.psnr, ".2f", " dB"))),
        Row("SSIM", scored(lambda result: show_interval(result.ssim, ".3f"))),
        *(Row(label, scored(cell)) for label, cell in _region_cells(audits).items()),
        *(Row(label, tuple(_asked(audit, cell) for audit in audits)) for label, cell in _named_cells(audits).items()),
        *certified,
    ]


def attack_table(audit: Audit) -> list[Row]:
    """Return every attack result, those of inference time first and the strongest of a part first.

    Args:
        audit: the record.

    Returns:
        One row for each attack, part, selection of weights and seed; `attack_columns` gives the headings, the label's first.
    """
    further = {**_region_cells([audit]), **_named_cells([audit])}
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
                *(cell(result) for cell in further.values()),
                f"{result.seconds:,.1f}",
                f"{result.queries:,}",
            ),
        )
        for result in ordered
    ]


def attack_columns(audit: Audit) -> tuple[str, ...]:
    """Return the headings of `attack_table`: that of the label, then one for each cell."""
    return (*_MEASURES, *_region_cells([audit]), *_named_cells([audit]), *_COSTS)


_Cell = Callable[[AttackResult], str]


def _region_cells(audits: Sequence[Audit]) -> dict[str, _Cell]:
    """Return the cells of the errors in and beside the private region by their headings, where any audit knows of one."""
    there = any(result.regions for audit in audits for result in audit.attacks)
    return {f"MSE {side}": partial(_region_cell, side) for side in ("inside", "outside")} if there else {}


def _region_cell(side: str, result: AttackResult) -> str:
    return show_interval(result.regions.get(side), "#.3g")


def _named_cells(audits: Sequence[Audit]) -> dict[str, _Cell]:
    """Return the cells of what classifiers name by their headings, where any audit asked one."""
    told = (result.recognized for audit in audits for result in audit.attacks)
    things = dict.fromkeys(recognition.of for recognition in told if recognition)
    return {f"{of.capitalize()} {heading}": partial(_named_cell, of, show) for of in things for heading, show in _NAMED.items()}


def _named_cell(of: str, show: Callable[[Recognition], str], result: AttackResult) -> str:
    return show(result.recognized) if result.recognized and result.recognized.of == of else "not asked"


def _asked(audit: Audit, cell: _Cell) -> str:
    result = most_recognized(audit)
    return "not asked" if result is None else cell(result)


def most_recognized(audit: Audit) -> AttackResult | None:
    """Return the result of inference time in which a classifier names most right, or None where none was asked."""
    shares = [
        (result.recognized.accuracy.value, result) for result in audit.attacks if result.recognized and result.part == "inference"
    ]
    return max(shares, key=lambda pair: pair[0])[1] if shares else None


def headline(audit: Audit) -> str:
    """Name what `Audit.accuracy` is: "accuracy", or "rank-1" in re-identification."""
    return next(iter(audit.utility), "accuracy")


def title(name: str) -> str:
    """Write the name of a number as a heading.

    Example:
        >>> title("rank-1"), title("mAP")
        ('Rank-1', 'mAP')
    """
    return name.capitalize() if name.islower() else name


def _utility_rows(audits: Sequence[Audit]) -> list[Row]:
    """Return how useful the targets are on their tasks, a row for each number."""
    known = [audit.utility or {"accuracy": audit.accuracy} for audit in audits]
    names = list(dict.fromkeys(name for utility in known for name in utility)) or ["accuracy"]
    return [Row(title(name), tuple(_share(utility.get(name)) for utility in known)) for name in names]


def _share(share: Interval | None) -> str:
    return "another task" if share is None else show_share(share)


def _count(count: int | None) -> str:
    return "not recorded" if count is None else f"{count:,}"


def _size_rows(audits: Sequence[Audit], part: str, sizes: Mapping[str, Callable[[TargetFacts], int | None]]) -> list[Row]:
    """Return what a part of the targets takes, and how much less after hardening than before, where both end at the same cut."""
    targets = [audit.target for audit in audits]
    compared = columns(audits) == ["before", "after"] and targets[0].cut == targets[1].cut
    rows = []
    for label, size in sizes.items():
        found = [size(target) for target in targets]
        cells = [_count(count) for count in found]
        if compared:
            cells[1] += _difference(*found)
        rows.append(Row(f"{part} {label}", tuple(cells)))
    return rows


def _difference(before: int | None, after: int | None) -> str:
    if not before or after is None or after == before:
        return ""
    share = show_number(100 * abs(after / before - 1), ".1f")
    return f" ({share} % {'less' if after < before else 'more'})"


def _blind_row(audits: Sequence[Audit]) -> list[Row]:
    """Return what an adversary reaches that sees nothing, where any audit ran it: errors near it have recovered little."""
    errors = [
        next((result.mse for result in audit.attacks if (result.name, result.part) == (BLIND, "inference")), None)
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


def show_share(share: Interval) -> str:
    """Write a share in [0, 1] as a percentage with its 95 % interval.

    Example:
        >>> show_share(Interval(0.5, 0.25, 0.75))
        '50.0 % (25.0 to 75.0)'
    """
    return show_interval(percent(share), ".1f", " %")


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
    what = f"near-duplicates of each, off by {result.gray_levels}/255 at most" if result.gray_levels else "releases of each"
    seen = f", {result.releases} {what}" if result.releases > 1 else ""
    return f"{describe_attack(result)} ({result.pictures:,} {'picture' if result.pictures == 1 else 'pictures'}{seen})"
