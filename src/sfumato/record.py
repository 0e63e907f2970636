# SPDX-License-Identifier: Apache-2.0
"""An audit as JSON: plain values, with the pictures as PNG. What `to_json` writes, `from_json` reads back.

What one attack came to with one seed has a record of its own, so that an audit can be put together from what is there.

Example:
    >>> from sfumato.types import Audit, DataFacts, Interval, TargetFacts
    >>> target = TargetFacts("lenet", "c1", (), 10, (1, 28, 28), (2, 8, 8), {"float32": 512}, 80, 900, 90, 800)
    >>> data = DataFacts("digits", "00", {"test": 100})
    >>> audit = Audit("digits", target, data, Interval(0.97, 0.95, 0.98), (), (), (), (0,), {}, "cpu")
    >>> from_json(to_json(audit)) == audit
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from pydantic import PositiveInt, TypeAdapter

from sfumato.inversion_record import InversionRecord
from sfumato.inversion_record import record_of as inversion_of
from sfumato.membership_record import MembershipRecord, record_of
from sfumato.plain import plain, validate
from sfumato.png import picture, png
from sfumato.types import (
    AttackResult,
    Audit,
    Certificate,
    Compression,
    DataFacts,
    Exhibit,
    Findings,
    Interval,
    Part,
    Selection,
    TargetFacts,
    TaskName,
)


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
    certificates: tuple[Certificate, ...] = ()
    task: TaskName = "classification"
    utility: Mapping[str, Interval] = field(default_factory=dict)
    membership: MembershipRecord | None = None
    inversion: InversionRecord | None = None


@dataclass(frozen=True)
class _FindingsRecord:
    """The JSON of what one attack came to, key by key."""

    format: Literal[1]
    results: tuple[AttackResult, ...]
    exhibits: tuple[_PictureRecord, ...]
    hardware: str


_RECORD = TypeAdapter(_Record)
_FINDINGS = TypeAdapter(_FindingsRecord)
_CERTIFICATES = TypeAdapter(tuple[Certificate, ...])
_COMPRESSION = TypeAdapter(Compression)


def to_json(audit: Audit) -> dict[str, object]:
    """Turn an audit into plain values that `json.dumps` takes.

    Args:
        audit: the record.

    Returns:
        The keys `format` (1), `title`, `accuracy` (a plain number), `accuracy_interval`, `target`, `data`, `attacks`, `exhibits`,
        `untested`, `seeds`, `versions`, `hardware`, `certificates`, `task`, `utility`, `membership` (what `membership_to_json`
        returns, or null) and `inversion` (what `inversion_to_json` returns, or null). A number that is not finite, which JSON
        lacks, is the string "NaN", "Infinity" or "-Infinity". A picture is a PNG in base64. In the settings of an attack a tuple
        becomes a list, and a value that JSON has no form for becomes its text; everything else comes back exactly from
        `from_json`.
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
        certificates=audit.certificates,
        task=audit.task,
        utility=audit.utility,
        membership=None if audit.membership is None else record_of(audit.membership),
        inversion=None if audit.inversion is None else inversion_of(audit.inversion),
    )
    return {item.name: plain(getattr(record, item.name)) for item in fields(record)}


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
    found = validate(_RECORD, record, "the record of an audit, format 1", "make one with audit.save('audit.json')")
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
        certificates=found.certificates,
        task=found.task,
        utility=found.utility,
        membership=None if found.membership is None else found.membership.opened(),
        inversion=None if found.inversion is None else found.inversion.opened(),
    )


def certificates_to_json(certificates: tuple[Certificate, ...]) -> dict[str, object]:
    """Turn the certificates of a target into plain values that `json.dumps` takes."""
    return {"certificates": plain(certificates)}


def certificates_from_json(record: object) -> tuple[Certificate, ...]:
    """Make certificates of the values that `certificates_to_json` returned.

    Raises:
        ConfigError: the record is not one of certificates.

    Example:
        >>> certificates_from_json(certificates_to_json(()))
        ()
    """
    held = record["certificates"] if isinstance(record, Mapping) and "certificates" in record else record
    return validate(_CERTIFICATES, held, "the certificates of a target", "remove the stage to measure them again")


def compression_to_json(compression: Compression) -> dict[str, object]:
    """Turn what pruning left of a model into plain values that `json.dumps` takes."""
    return {item.name: plain(getattr(compression, item.name)) for item in fields(compression)}


def compression_from_json(record: object) -> Compression:
    """Make a record of the values that `compression_to_json` returned.

    Raises:
        ConfigError: it is another record.

    Example:
        >>> found = Compression(640, 64, 2560, 400, 640, 64, (0.2, 0.1))
        >>> compression_from_json(compression_to_json(found)) == found
        True
    """
    return validate(_COMPRESSION, record, "what pruning left of a model", "remove the stage to measure it again")


def findings_to_json(findings: Findings) -> dict[str, object]:
    """Turn what one attack came to into plain values, as `to_json` does with an audit.

    Args:
        findings: the record.

    Returns:
        The keys `format` (1), `results`, `exhibits` and `hardware`.
    """
    record = _FindingsRecord(1, findings.results, tuple(_encode(exhibit) for exhibit in findings.exhibits), findings.hardware)
    return {item.name: plain(getattr(record, item.name)) for item in fields(record)}


def findings_from_json(record: object) -> Findings:
    """Make a record of the values that `findings_to_json` returned.

    Args:
        record: as `json.loads` gives it.

    Raises:
        ConfigError: it is another record, or one of its pictures cannot be decoded.

    Example:
        >>> findings_from_json(findings_to_json(Findings((), (), "cpu")))
        Findings(results=(), exhibits=(), hardware='cpu')
    """
    found = validate(_FINDINGS, record, "the findings of an attack, format 1", "remove the stage to compute it again")
    return Findings(found.results, tuple(_decode(pictures) for pictures in found.exhibits), found.hardware)


def _encode(exhibit: Exhibit) -> _PictureRecord:
    channels, height, width = exhibit.pixels.shape[1:]
    return _PictureRecord(
        exhibit.part,
        exhibit.attack,
        exhibit.selection,
        exhibit.seed,
        (channels, height, width),
        tuple(png(picture) for picture in exhibit.pixels.cpu()),
    )


def _decode(record: _PictureRecord) -> Exhibit:
    pictures = [picture(text, record.shape) for text in record.png]
    pixels = torch.stack(pictures) if pictures else torch.empty((0, *record.shape), dtype=torch.uint8)
    return Exhibit(record.part, pixels, record.attack, record.selection, record.seed)
