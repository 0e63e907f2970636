# SPDX-License-Identifier: Apache-2.0
"""Audits as HTML, Markdown and JSON. Nothing is measured here: a report picks numbers out of records and shows them.

Example:
    >>> from sfumato.types import Audit, DataFacts, Interval, TargetFacts
    >>> target = TargetFacts("lenet", "c1", (), 10, (1, 28, 28), (2, 8, 8), {"float32": 512}, 80, 900, 90, 800)
    >>> data = DataFacts("digits", "00", {"test": 100})
    >>> audit = Audit("digits", target, data, Interval(0.97, 0.95, 0.98), (), (), (), (0,), {}, "cpu")
    >>> to_markdown([audit]).splitlines()[0]
    '# What the features give away'
    >>> to_html([audit]).splitlines()[0]
    '<!DOCTYPE html>'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sfumato import markdown
from sfumato.curve import NARROW, WIDE, Axis, draw, listing, trade_off
from sfumato.errors import ConfigError
from sfumato.files import read_json, write_atomic
from sfumato.gallery import galleries, sheets
from sfumato.inversion_report import markdown_blocks as weight_blocks
from sfumato.inversion_report import without_private
from sfumato.inversion_sections import sections as weight_sections
from sfumato.membership_report import markdown_blocks, overview, sections
from sfumato.membership_tables import compression_table, headline_table
from sfumato.page import render
from sfumato.record import from_json, to_json
from sfumato.surface_report import report_ending, settings_of
from sfumato.tables import attack_columns, attack_table, columns, headline, show_value, shows_features, title
from sfumato.types import Audit, Certificate
from sfumato.verdict import closest, failure, refuted, verdict

_ERROR = Axis("MSE of the strongest attack", better="higher hides more")
_UNCERTIFIED = "no certificate; nothing is claimed about attacks that were not run."


def save(audits: Sequence[Audit], path: str | Path, *, show_private: bool = False) -> Path:
    """Write audits as one file, by the ending of its name.

    Args:
        audits: one or several; the order is that of the columns.
        path: ends in .html, .md or .json; its folder is made when missing.
        show_private: write the private pictures of an inversion's gallery too, where it has any.

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
    write = writers[report_ending(path)]
    shown = [replace(one, inversion=without_private(one.inversion, kept=show_private)) for one in audits]
    return write_atomic(path, write(shown).encode(errors="backslashreplace"))


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
    record = read_json(path, expected="the record of an audit", advice="make one with audit.save")
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


def to_markdown(audits: Sequence[Audit]) -> str:
    """Write audits as Markdown, without the pictures.

    Args:
        audits: one or several.

    Returns:
        The text; whatever a record says is escaped.

    Raises:
        ConfigError: no audit at all.

    Example:
        >>> to_markdown([])
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected one audit or several to report, got none; run an audit first
    """
    names = columns(_some(audits))
    blocks = [
        f"# {_title(audits)}",
        *(markdown.escape(f"{name}: {audit.title}") for name, audit in zip(names, audits, strict=True)),
    ]
    blocks += map(markdown.escape, verdict(audits))
    blocks += map(_warning, refuted(audits))
    blocks += ["## Headline numbers", markdown.table(["", *names], headline_table(audits))]
    blocks += _attack_blocks(names, audits) if shows_features(audits) else []
    blocks += _certificate_blocks(names, audits) if _shows_certificates(audits) else []
    blocks += markdown_blocks(names, [audit.membership for audit in audits])
    blocks += weight_blocks(names, [audit.inversion for audit in audits])
    left = compression_table(audits)
    blocks += ["## What pruning left", markdown.table(["", *names], left)] if left else []
    blocks += ["## What was not tested", markdown.items(_untested(audits)), "## How this was made"]
    for name, audit in zip(names, audits, strict=True):
        blocks += [f"### {markdown.escape(name)}", markdown.items(_origin(audit))]
    return "\n\n".join(blocks) + "\n"


def _title(audits: Sequence[Audit]) -> str:
    """Return the heading of a report: what gives something away."""
    asked = {
        "the features": shows_features(audits),
        "the predictions": any(audit.membership for audit in audits),
        "the weights": any(audit.inversion for audit in audits),
    }
    *others, last = (surface for surface, there in asked.items() if there)
    before = f"{', '.join(others)} and " if others else ""
    return f"What {before}{last} give away"


def _scored(audits: Sequence[Audit]) -> str:
    """Return what 95 % intervals are over."""
    if shows_features(audits):
        return "pictures"
    asked = {"examples": any(audit.membership for audit in audits), "classes": any(audit.inversion for audit in audits)}
    return " or ".join(what for what, there in asked.items() if there)


def _shows_certificates(audits: Sequence[Audit]) -> bool:
    """Return whether there is anything to say of certificates: of features that there is none, of predictions what there is."""
    return shows_features(audits) or any(audit.certificates for audit in audits)


def _attack_blocks(names: Sequence[str], audits: Sequence[Audit]) -> list[str]:
    """Return what attacks made of the features."""
    blocks = ["## Every attack"]
    for name, audit in zip(names, audits, strict=True):
        blocks += [
            f"### {markdown.escape(name)}",
            markdown.table(attack_columns(audit), attack_table(audit)) if audit.attacks else "No attack was run.",
        ]
    return blocks


def _certificate_blocks(names: Sequence[str], audits: Sequence[Audit]) -> list[str]:
    """Return what is certified."""
    blocks = ["## What is certified"]
    for name, audit in zip(names, audits, strict=True):
        blocks += [f"### {markdown.escape(name)}", *_certified(audit)]
    return blocks


def _warning(sentence: str) -> str:
    return f"**⚠ {markdown.escape(sentence)}**"


def _certified(audit: Audit) -> list[str]:
    """Return the paragraphs about an audit's certificates."""
    blocks = []
    for certificate in audit.certificates:
        blocks += [
            f"#### {markdown.escape(certificate.name.capitalize())}",
            markdown.escape(f"{certificate.statement} {closest(audit, certificate)}"),
        ]
        blocks += map(_warning, filter(None, [failure(audit, certificate)]))
        blocks += [
            markdown.items(f"{name}: {number}" for name, number in _values(certificate)),
            "It assumes:",
            markdown.items(certificate.assumptions),
        ]
    return blocks or [_UNCERTIFIED.capitalize()]


def _values(certificate: Certificate) -> list[tuple[str, str]]:
    return [show_value(name, value) for name, value in certificate.values.items()]


def _origin(audit: Audit) -> list[str]:
    """Say what somebody needs to make the numbers again."""
    target, data = audit.target, audit.data
    where = f"cut after {target.cut}" if target.cut else "not split"
    return [
        f"target: {target.model}, {where}; defenses: {'; '.join(target.defenses) or 'none'}",
        f"data: {data.name}, {', '.join(f'{count:,} {part}' for part, count in data.counts.items())}; SHA-256 {data.fingerprint}",
        *([f"starts from {audit.target.start}"] if audit.target.start else []),
        f"pictures left out: {len(data.skipped)}{''.join(f'; {name}' for name in data.skipped)}",
        f"the adversary's own pictures: {data.auxiliary}",
        f"seeds: {', '.join(map(str, audit.seeds))}; hardware: {audit.hardware}",
        *(f"version of {name}: {version}" for name, version in audit.versions.items()),
        *(f"settings of {name}: {text or 'none'}" for name, text in _settings(audit)),
    ]


def _settings(audit: Audit) -> list[tuple[str, str]]:
    asked = [found.results for found in (audit.membership, audit.inversion) if found]
    return settings_of([*audit.attacks, *(result for results in asked for result in results)])


def _untested(audits: Sequence[Audit]) -> list[str]:
    told = (found.untested for audit in audits for found in (audit, audit.membership, audit.inversion) if found)
    return list(dict.fromkeys(sentence for sentences in told for sentence in sentences))


def to_html(audits: Sequence[Audit]) -> str:
    """Write audits as one HTML page that needs nothing else: no network, no script.

    Args:
        audits: one or several.

    Returns:
        The page; whatever a record says is escaped.

    Raises:
        ConfigError: no audit at all.

    Example:
        >>> to_html([])
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected one audit or several to report, got none; run an audit first
    """
    names = columns(_some(audits))
    asked = [audit.membership for audit in audits]
    series = trade_off(names, audits) if len(audits) > 1 else []
    useful = Axis(title(" or ".join(dict.fromkeys(map(headline, audits)))), "%", ".1f", "higher is better")
    certificates = [
        [(one, closest(audit, one), failure(audit, one), _values(one)) for one in audit.certificates] for audit in audits
    ]
    return render(
        "report.html.j2",
        title=_title(audits),
        features=shows_features(audits),
        certified=_shows_certificates(audits),
        split=any(audit.target.cut for audit in audits),
        names=names,
        audits=audits,
        verdict=verdict(audits),
        refuted=refuted(audits),
        drawings={name: draw(series, useful, _ERROR, width=width) for name, width in (("wide", WIDE), ("narrow", NARROW))},
        points=listing(series, useful, _ERROR),
        point_columns=("Series", "Point", useful.title, _ERROR.title),
        certificates=certificates,
        uncertified=_UNCERTIFIED,
        headline=headline_table(audits),
        galleries=galleries(names, audits),
        sheets=sheets(names, audits),
        attack_columns=[attack_columns(audit) for audit in audits],
        attacks=[attack_table(audit) for audit in audits],
        sections=sections(names, asked),
        weights=weight_sections(names, [audit.inversion for audit in audits]),
        scored=_scored(audits),
        overview=overview(names, asked),
        compression=compression_table(audits),
        untested=_untested(audits),
        settings=[_settings(audit) for audit in audits],
    )
