# SPDX-License-Identifier: Apache-2.0
"""Audits as HTML, Markdown and JSON. Nothing is measured here: a report picks numbers out of records and shows them.

Example:
    >>> from sfumato.types import Audit, DataFacts, Interval, TargetFacts
    >>> target = TargetFacts("lenet", "c1", (), 10, (1, 28, 28), (2, 8, 8), {"float32": 512}, 80, 900, 90, 800)
    >>> data = DataFacts("digits", "00", {"test": 100})
    >>> audit = Audit("digits", target, data, Interval(0.97, 0.95, 0.98), (), (), (), (0,), {}, "cpu")
    >>> table([audit])[0]
    Row(label='Accuracy', cells=('97.0 % (95.0 to 98.0)',))
    >>> from_json(to_json(audit)) == audit
    True
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2
import numpy as np
import torch
from PIL import Image
from pydantic import PositiveInt, TypeAdapter, ValidationError

from sfumato.errors import ConfigError, StorageError
from sfumato.files import write_atomic
from sfumato.types import AttackResult, Audit, DataFacts, Exhibit, Interval, Part, Pixels, Selection, TargetFacts

ATTACK_COLUMNS = (
    "Attack", "Pictures of", "Weights", "Seed", "Access", "Pictures", "MSE", "PSNR (dB)", "PSNR, mean of pictures (dB)", "SSIM",
    "LPIPS", "Seconds", "Queries",
)  # fmt: skip
"""The headings of `attack_table`: that of the label, then one for each cell."""

_SELECTIONS: Mapping[Selection, str] = {"only": "", "best": "best epoch", "last": "last epoch"}


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        label: what the line shows.
        cells: one text for each column, ready to print.
    """

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class _PictureRecord:
    """An `Exhibit` as JSON holds it: one lossless PNG for each picture."""

    part: Part
    attack: str
    selection: Selection
    seed: int
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    png: tuple[str, ...]


@dataclass(frozen=True)
class _Bounds:
    low: float
    high: float


@dataclass(frozen=True)
class _Record:
    """The JSON of an audit, key by key."""

    format: Literal[1]
    title: str
    accuracy: float
    accuracy_interval: _Bounds
    target: TargetFacts
    data: DataFacts
    attacks: tuple[AttackResult, ...]
    exhibits: tuple[_PictureRecord, ...]
    untested: tuple[str, ...]
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    hardware: str


_RECORD = TypeAdapter(_Record)


def to_json(audit: Audit) -> dict[str, object]:
    """Turn an audit into plain values that `json.dumps` takes.

    Args:
        audit: the record.

    Returns:
        The keys `format` (1), `title`, `accuracy` (a plain number), `accuracy_interval`, `target`, `data`, `attacks`, `exhibits`,
        `untested`, `seeds`, `versions` and `hardware`. A number that is not finite, which JSON lacks, is the string "NaN",
        "Infinity" or "-Infinity". A picture is a PNG in base64. In the settings of an attack a tuple becomes a list, and a value
        that JSON has no form for becomes its text; everything else comes back exactly from `from_json`.
    """
    accuracy = audit.accuracy
    record = _Record(
        format=1,
        title=audit.title,
        accuracy=accuracy.value,
        accuracy_interval=_Bounds(accuracy.low, accuracy.high),
        target=audit.target,
        data=audit.data,
        attacks=audit.attacks,
        exhibits=tuple(_encode(exhibit) for exhibit in audit.exhibits),
        untested=audit.untested,
        seeds=audit.seeds,
        versions=audit.versions,
        hardware=audit.hardware,
    )
    return {item.name: _plain(getattr(record, item.name)) for item in fields(record)}


def from_json(record: object) -> Audit:
    """Make an audit of the values that `to_json` returned.

    Args:
        record: a record, as `json.loads` gives it; keys that this version does not know are passed over.

    Returns:
        The audit.

    Raises:
        ConfigError: the record is not one of an audit, or one of its pictures cannot be decoded.

    Example:
        >>> from_json({"format": 2})
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected the record of an audit, format 1; found: format: Input should be 1; ...
    """
    try:
        found = _RECORD.validate_python(record)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']}" for fault in error.errors()]
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise ConfigError(
            f"expected the record of an audit, format 1; found: {shown}; make one with audit.save('audit.json')"
        ) from error
    return Audit(
        title=found.title,
        target=found.target,
        data=found.data,
        accuracy=Interval(found.accuracy, found.accuracy_interval.low, found.accuracy_interval.high),
        attacks=found.attacks,
        exhibits=tuple(_decode(pictures) for pictures in found.exhibits),
        untested=found.untested,
        seeds=found.seeds,
        versions=found.versions,
        hardware=found.hardware,
    )


def _plain(value: object) -> object:
    """Turn a value of a record into one that JSON has a form for."""
    if isinstance(value, str):  # a file name may hold bytes that are not Unicode; readers of JSON refuse those
        return value.encode(errors="backslashreplace").decode()
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return _plain(str(value))


def _encode(exhibit: Exhibit) -> _PictureRecord:
    channels, height, width = exhibit.pixels.shape[1:]
    return _PictureRecord(
        exhibit.part,
        exhibit.attack,
        exhibit.selection,
        exhibit.seed,
        (channels, height, width),
        tuple(_png(picture) for picture in exhibit.pixels.cpu()),
    )


def _png(picture: torch.Tensor) -> str:
    """Encode one picture, (C, H, W) uint8; planes that are neither gray nor RGB lie side by side in gray."""
    rgb = picture.shape[0] == 3
    planes = picture.permute(1, 2, 0) if rgb else picture.permute(1, 0, 2).flatten(1)
    file = io.BytesIO()
    Image.fromarray(planes.contiguous().numpy()).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _decode(record: _PictureRecord) -> Exhibit:
    pictures = [_picture(text, record.shape) for text in record.png]
    pixels = torch.stack(pictures) if pictures else torch.empty((0, *record.shape), dtype=torch.uint8)
    return Exhibit(record.part, pixels, record.attack, record.selection, record.seed)


def _picture(text: str, shape: tuple[int, int, int]) -> Pixels:
    """Decode what `_png` wrote, (C, H, W) uint8."""
    channels, height, width = shape
    mode, size = ("RGB", (width, height)) if channels == 3 else ("L", (channels * width, height))
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            if (image.mode, image.size) != (mode, size):  # looked at before a pixel is decoded: a PNG can be a bomb
                raise ConfigError(f"expected a {mode} picture of {size}, found {image.mode} of {image.size} in exhibits")
            planes = torch.from_numpy(np.array(image))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"expected a PNG in base64, found something else in exhibits: {error}") from error
    return planes.permute(2, 0, 1) if channels == 3 else planes.reshape(height, channels, width).permute(1, 0, 2)


def save(audits: Sequence[Audit], path: str | Path) -> Path:
    """Write audits as one file, by the ending of its name.

    Args:
        audits: one or several; the order is that of the columns.
        path: ends in .html, .md or .json; its folder is made when missing.

    Returns:
        The path written.

    Raises:
        ConfigError: another ending, or no audit at all.
        StorageError: the file cannot be written; a file that was there stays as it was.

    Example:
        >>> save([], "audit.pdf")
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected a report ending in .html, .md, .json, got 'audit.pdf'; choose one of these
    """
    writers: Mapping[str, Callable[[Sequence[Audit]], str]] = {".html": to_html, ".md": to_markdown, ".json": _json_text}
    ending = Path(path).suffix.lower()
    if ending not in writers:
        raise ConfigError(f"expected a report ending in {', '.join(writers)}, got '{path}'; choose one of these")
    return write_atomic(path, writers[ending](audits).encode(errors="backslashreplace"))


def _json_text(audits: Sequence[Audit]) -> str:
    records = [to_json(audit) for audit in _some(audits)]
    return json.dumps(records[0] if len(records) == 1 else {"format": 1, "audits": records}, indent=1, ensure_ascii=False) + "\n"


def load(path: str | Path) -> list[Audit]:
    """Read the audits of a JSON file that `save` wrote.

    Args:
        path: a file with the record of one audit, or of several.

    Returns:
        The audits, in their order.

    Raises:
        ConfigError: the file is not JSON, or not the record of an audit.
        StorageError: the file is missing or cannot be read.

    Example:
        >>> load("nowhere/audit.json")
        Traceback (most recent call last):
        sfumato.errors.StorageError: expected the record of an audit at nowhere/audit.json: No such file or directory; ...
    """
    try:
        record = json.loads(Path(path).read_bytes())
    except OSError as error:
        advice = "give the path of a file that audit.save wrote"
        raise StorageError(f"expected the record of an audit at {path}: {error.strerror or error}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"expected JSON in {path}, found something else: {error}; make one with audit.save") from error
    records = record["audits"] if isinstance(record, dict) and "audits" in record else [record]
    if not isinstance(records, list):
        raise ConfigError(f"expected a list of audits in {path}, found {type(records).__name__}; make one with audit.save")
    try:
        return [from_json(item) for item in records]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _some(audits: Sequence[Audit]) -> Sequence[Audit]:
    if not audits:
        raise ConfigError("expected one audit or several to report, got none; run an audit first")
    return audits


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
        Accuracy; the strongest attack on pictures of inference time and its MSE, PSNR and SSIM, each with its 95 % interval; what
        the target costs.

    Example:
        >>> [row.label for row in table([])][:3]
        ['Accuracy', 'Strongest attack', 'MSE']
    """
    strongest = [audit.strongest() for audit in audits]
    targets = [audit.target for audit in audits]

    def scored(cell: Callable[[AttackResult], str]) -> tuple[str, ...]:
        return tuple("not scored" if result is None else cell(result) for result in strongest)

    return [
        Row("Accuracy", tuple(_accuracy(audit.accuracy) for audit in audits)),
        Row("Strongest attack", scored(_words)),
        Row("MSE", scored(lambda result: _interval(result.mse, "#.3g"))),
        Row("PSNR", scored(lambda result: _interval(result.psnr, ".2f", " dB"))),
        Row("SSIM", scored(lambda result: _interval(result.ssim, ".3f"))),
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
                _interval(result.mse, "#.3g"),
                _interval(result.psnr, ".2f"),
                _interval(result.psnr_mean, ".2f"),
                _interval(result.ssim, ".3f"),
                _interval(result.lpips, ".3f"),
                f"{result.seconds:,.1f}",
                f"{result.queries:,}",
            ),
        )
        for result in ordered
    ]


def _count(count: int | None) -> str:
    return "not recorded" if count is None else f"{count:,}"


def _number(value: float, form: str) -> str:
    if math.isfinite(value):
        return format(value, form).replace("-", "−")
    return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"


def _interval(interval: Interval | None, form: str, unit: str = "") -> str:
    if interval is None:
        return "not measured"
    return f"{_number(interval.value, form)}{unit} ({_number(interval.low, form)} to {_number(interval.high, form)})"


def _accuracy(accuracy: Interval) -> str:
    return _interval(Interval(100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high), ".1f", " %")


def _words(made: AttackResult | Exhibit) -> str:
    """Name an attack with the weights and the seed."""
    name = made.name if isinstance(made, AttackResult) else made.attack
    return ", ".join(part for part in (name, _SELECTIONS[made.selection], f"seed {made.seed}") if part)


def verdict(audits: Sequence[Audit]) -> list[str]:
    """Say in plain English what the numbers say.

    Args:
        audits: one or several; each is compared with the first.

    Returns:
        Sentences. Where the 95 % intervals of two errors overlap, they say that these pictures show no difference.

    Example:
        >>> verdict([])
        []
    """
    if len(audits) == 1:
        return [_alone(audits[0])]
    names = columns(audits)
    hardened = names == ["before", "after"]
    said = []
    for name, audit in zip(names[1:], audits[1:], strict=True):
        said.append(_compare("Hardening" if hardened else f"Compared with “{names[0]}”, “{name}”", audits[0], audit))
        if audit.data.fingerprint != audits[0].data.fingerprint:
            said.append("The two audits used different data, so part of the difference may come from the pictures.")
    return said


def _alone(audit: Audit) -> str:
    right = f"The target is right on {_number(100 * audit.accuracy.value, '.1f')} % of the test pictures."
    result = audit.strongest()
    if result is None:
        return f"No attack was scored on pictures of inference time: this audit says nothing about what leaks. {right}"
    numbers = f"MSE {_number(result.mse.value, '#.3g')}, PSNR {_number(result.psnr.value, '.1f')} dB"
    return (
        f"The strongest attack ({result.name}, which sees the {result.access}) rebuilds pictures that it never trained on "
        f"with {numbers} and SSIM {_number(result.ssim.value, '.2f')}. {right}"
    )


def _compare(subject: str, old: Audit, new: Audit) -> str:
    before, after = old.strongest(), new.strongest()
    cost = _cost(old.accuracy, new.accuracy)
    if before is None or after is None:
        return f"{subject} {cost}. What leaks cannot be compared: not every audit scored an attack on pictures of inference time."
    numbers = f"MSE {_number(before.mse.value, '#.3g')} → {_number(after.mse.value, '#.3g')}"
    if _overlap(before.mse, after.mse):
        return f"{subject} makes no difference to the adversary's error that these pictures can show ({numbers}), and {cost}."
    better = after.mse.value > before.mse.value
    low, high = sorted((before.mse.value, after.mse.value))
    ratio = high / low if low > 0 else math.inf
    factor = f" {ratio:,.{2 if ratio < 2 else 1}f} times" if math.isfinite(ratio) else ""
    change = f"raises the adversary's error{factor}" if better else f"makes it worse: the adversary's error is{factor} lower"
    split = better == (after.ssim.value > before.ssim.value) and not _overlap(before.ssim, after.ssim)
    doubt = " SSIM says the opposite: look at the pictures before you trust either." if split else ""
    return f"{subject} {change} ({numbers}) and {cost}.{doubt}"


def _cost(old: Interval, new: Interval) -> str:
    points = 100 * (new.value - old.value)
    if abs(points) < 0.05:
        return f"leaves accuracy at {_number(100 * new.value, '.1f')} %"
    doubt = " (the intervals overlap)" if _overlap(old, new) else ""
    return f"{'gains' if points > 0 else 'costs'} {_number(abs(points), '.1f')} points of accuracy{doubt}"


def _overlap(a: Interval, b: Interval) -> bool:
    return not (a.high < b.low or b.high < a.low)  # so that an interval that is not a number shows no difference


def to_markdown(audits: Sequence[Audit]) -> str:
    """Write audits as Markdown, without the pictures.

    Args:
        audits: one or several.

    Returns:
        The text; whatever a record says is escaped.

    Raises:
        ConfigError: no audit at all.
    """
    names = columns(_some(audits))
    blocks = [
        "# What the features give away",
        *(_escape(f"{name}: {audit.title}") for name, audit in zip(names, audits, strict=True)),
    ]
    blocks += map(_escape, verdict(audits))
    blocks += ["## Headline numbers", _lines(["", *names], table(audits)), "## Every attack"]
    for name, audit in zip(names, audits, strict=True):
        blocks += [f"### {_escape(name)}", _lines(ATTACK_COLUMNS, attack_table(audit)) if audit.attacks else "No attack was run."]
    blocks += ["## What was not tested", _items(_untested(audits)), "## How this was made"]
    for name, audit in zip(names, audits, strict=True):
        blocks += [f"### {_escape(name)}", _items(_origin(audit))]
    return "\n\n".join(blocks) + "\n"


def _origin(audit: Audit) -> list[str]:
    """Say what somebody needs to make the numbers again."""
    target, data = audit.target, audit.data
    return [
        f"target: {target.model}, cut after {target.cut}; defenses: {'; '.join(target.defenses) or 'none'}",
        f"data: {data.name}, {', '.join(f'{count:,} {part}' for part, count in data.counts.items())}; SHA-256 {data.fingerprint}",
        f"pictures left out: {len(data.skipped)}{''.join(f'; {name}' for name in data.skipped)}",
        f"the adversary's own pictures: {data.auxiliary}",
        f"seeds: {', '.join(map(str, audit.seeds))}; hardware: {audit.hardware}",
        *(f"version of {name}: {version}" for name, version in audit.versions.items()),
        *(f"settings of {name}: {text or 'none'}" for name, text in _settings(audit)),
    ]


def _settings(audit: Audit) -> list[tuple[str, str]]:
    """Return the hyper-parameters of each attack as (name, text), each different pair once."""
    pairs = ((result.name, ", ".join(f"{key} = {value}" for key, value in result.settings.items())) for result in audit.attacks)
    return list(dict.fromkeys(pairs))


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_escape(line)}" for line in lines) or "- The records do not say."


def _untested(audits: Sequence[Audit]) -> list[str]:
    return list(dict.fromkeys(sentence for audit in audits for sentence in audit.untested))


def _lines(headings: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [headings, ["---"] * len(headings), *((row.label, *row.cells) for row in rows)]
    return "\n".join(f"| {' | '.join(cell if cell == '---' else _escape(cell) for cell in line)} |" for line in lines)


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word is none."""
    return re.sub(r"([\\`*\[\]<>|&]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


@dataclass(frozen=True)
class _Panel:
    """Pictures of one exhibit, to show.

    Attributes:
        heading: a word or two to stand under each picture.
        note: which attack made them, and how well; empty for what was sent.
        alt: what a picture is, to follow its number.
        pictures: each a PNG in base64.
    """

    heading: str
    note: str
    alt: str
    pictures: tuple[str, ...]


def to_html(audits: Sequence[Audit]) -> str:
    """Write audits as one HTML page that needs nothing else: no network, no script.

    Args:
        audits: one or several.

    Returns:
        The page; whatever a record says is escaped.

    Raises:
        ConfigError: no audit at all.
    """
    names = columns(_some(audits))
    loader = jinja2.PackageLoader("sfumato")
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template("report.html.j2").render(
        names=names,
        audits=audits,
        verdict=verdict(audits),
        headline=table(audits),
        galleries=_galleries(names, audits),
        sheets=_sheets(names, audits),
        attack_columns=ATTACK_COLUMNS,
        attacks=[attack_table(audit) for audit in audits],
        untested=_untested(audits),
        settings=[_settings(audit) for audit in audits],
    )


def _galleries(names: Sequence[str], audits: Sequence[Audit]) -> list[list[_Panel]]:
    """Put the strongest attack of each audit beside what was sent; audits of different pictures get a gallery each."""
    shown = []
    for name, audit in zip(names if len(names) > 1 else ["rebuilt"], audits, strict=True):
        sent, seen = _exhibits(audit, "inference")
        shown.append([_panel(name, audit, exhibit) for exhibit in (*sent[:1], *seen[:1])])
    if len({panels[0].pictures for panels in shown if panels and not panels[0].note}) > 1:
        return [panels for panels in shown if panels]
    together = list(dict.fromkeys(panel for panels in shown for panel in panels))
    return [together] if together else []


def _sheets(names: Sequence[str], audits: Sequence[Audit]) -> list[tuple[str, list[_Panel]]]:
    """Lay out, part by part, what the galleries leave out."""
    sheets = []
    parts: Sequence[tuple[Part, str, int]] = (("inference", "Pictures of inference time", 1), ("train", "Training pictures", 0))
    for part, heading, skip in parts:
        pairs = [(name, audit, *_exhibits(audit, part)) for name, audit in zip(names, audits, strict=True)]
        panels = [_panel(name, audit, exhibit) for name, audit, sent, seen in pairs for exhibit in (*sent, *seen[skip:])]
        if any(panel.note for panel in panels):
            sheets.append((heading, list(dict.fromkeys(panels))))  # audits of the same pictures sent the same
    return sheets


def _exhibits(audit: Audit, part: Part) -> tuple[list[Exhibit], list[Exhibit]]:
    """Return what was sent and, strongest attack first, what the adversary made of it."""

    def error(made: Exhibit) -> float:
        result = _result(audit, made)
        return result.mse.value if result else math.inf

    shown = [exhibit for exhibit in audit.exhibits if exhibit.part == part and len(exhibit.pixels)]
    made = [exhibit for exhibit in shown if exhibit.attack]
    return [exhibit for exhibit in shown if not exhibit.attack], sorted(made, key=error)


def _result(audit: Audit, made: Exhibit) -> AttackResult | None:
    key = (made.part, made.attack, made.selection, made.seed)
    return next((result for result in audit.attacks if (result.part, result.name, result.selection, result.seed) == key), None)


def _panel(name: str, audit: Audit, exhibit: Exhibit) -> _Panel:
    pictures = _encode(exhibit).png
    if not exhibit.attack:
        sent = exhibit.part == "inference"
        return _Panel("sent", "", "as the user sent it" if sent else "as the adversary trained on it", pictures)
    result = _result(audit, exhibit)
    note = _words(exhibit) + (f": MSE {_interval(result.mse, '#.3g')}" if result else "")
    return _Panel(name, note, f"as the adversary rebuilds it ({name}), with the attack {_words(exhibit)}", pictures)
