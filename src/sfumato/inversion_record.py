# SPDX-License-Identifier: Apache-2.0
"""What an audit found of the weights, as JSON, its pictures as PNG. What `inversion_to_json` writes, `inversion_from_json` reads.

Example:
    >>> from sfumato.types import Interval
    >>> share = Interval(0.9, 0.85, 0.95)
    >>> yardstick = Yardstick(share, share, 1.0, 0.1, share)
    >>> judge = EvaluatorFacts("resnet18", share, 0.8, 11_000_000)
    >>> found = Inversion((), 20, 40, judge, yardstick, yardstick, (), 0, (), (0,), {}, "cpu", "portraits")
    >>> inversion_from_json(inversion_to_json(found)) == found
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from pydantic import PositiveInt, TypeAdapter
from torch import Tensor

from sfumato.errors import ConfigError
from sfumato.inversion_types import (
    EvaluatorFacts,
    Inversion,
    InversionExhibit,
    InversionResult,
    PriorFacts,
    Rebuilt,
    Yardstick,
)
from sfumato.plain import plain, validate
from sfumato.png import picture, png


@dataclass(frozen=True)
class _RebuiltRecord:
    attack: str
    seed: int
    png: tuple[str, ...]
    confidence: tuple[float, ...]
    right: tuple[bool, ...]
    reached: bool


@dataclass(frozen=True)
class _ExhibitRecord:
    """An `InversionExhibit` as JSON holds it: one lossless PNG for each picture."""

    name: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    private: tuple[str, ...] | None
    rebuilt: tuple[_RebuiltRecord, ...]


@dataclass(frozen=True)
class InversionRecord:
    """The JSON of an `Inversion`, key by key; `attacks` are its results."""

    format: Literal[1]
    surface: Literal["weights"]
    title: str
    identities: int
    outputs: int
    attacks: tuple[InversionResult, ...]
    evaluator: EvaluatorFacts
    floor: Yardstick
    ceiling: Yardstick
    priors: tuple[PriorFacts, ...]
    overlap: int
    untested: tuple[str, ...]
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    hardware: str
    gallery: tuple[_ExhibitRecord, ...] = ()

    def opened(self) -> Inversion:
        """Return what was recorded.

        Raises:
            ConfigError: a picture of the gallery cannot be decoded, or has no confidence or verdict of its own.
        """
        return Inversion(
            results=self.attacks,
            identities=self.identities,
            outputs=self.outputs,
            evaluator=self.evaluator,
            floor=self.floor,
            ceiling=self.ceiling,
            priors=self.priors,
            overlap=self.overlap,
            untested=self.untested,
            seeds=self.seeds,
            versions=self.versions,
            hardware=self.hardware,
            title=self.title,
            gallery=tuple(_decode(exhibit) for exhibit in self.gallery),
        )


_RECORD = TypeAdapter(InversionRecord)
_RESULT = TypeAdapter(InversionResult)
_PRIOR = TypeAdapter(PriorFacts)


def record_of(inversion: Inversion) -> InversionRecord:
    """Return an `Inversion` in the form that JSON holds."""
    return InversionRecord(
        format=1,
        surface="weights",
        title=inversion.title,
        identities=inversion.identities,
        outputs=inversion.outputs,
        attacks=inversion.results,
        evaluator=inversion.evaluator,
        floor=inversion.floor,
        ceiling=inversion.ceiling,
        priors=inversion.priors,
        overlap=inversion.overlap,
        untested=inversion.untested,
        seeds=inversion.seeds,
        versions=inversion.versions,
        hardware=inversion.hardware,
        gallery=tuple(_encode(exhibit) for exhibit in inversion.gallery),
    )


def inversion_to_json(inversion: Inversion) -> dict[str, object]:
    """Turn what was found of the weights into plain values that `json.dumps` takes.

    Args:
        inversion: the record.

    Returns:
        The keys `format` (1), `surface` ("weights"), `title`, `identities`, `outputs`, `attacks`, `evaluator`, `floor`,
        `ceiling`, `priors`, `overlap`, `untested`, `seeds`, `versions`, `hardware` and `gallery`. Each of `attacks` has the
        attributes of `InversionResult`: `top1`, `top5`, `confidence`, `named`, `knn` and `centroid` with `value`, `low` and
        `high`; `face` and `factors` with these, or null. Each of `gallery` has `name`, `shape`, `private` (null, or PNGs in
        base64) and `rebuilt`. A number that is not finite is the string "NaN", "Infinity" or "-Infinity".
    """
    record = record_of(inversion)
    return {item.name: plain(getattr(record, item.name)) for item in fields(record)}


def inversion_from_json(record: object) -> Inversion:
    """Make a record of the values that `inversion_to_json` returned.

    Args:
        record: as `json.loads` gives it; keys that this version does not know are passed over.

    Raises:
        ConfigError: it is another record, or one of its pictures cannot be decoded.

    Example:
        >>> inversion_from_json({"format": 1, "surface": "predictions"})
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected the record of an inversion audit, format 1; found: surface: Input should be ...
    """
    advice = "make one with audit.save('audit.json')"
    return validate(_RECORD, record, "the record of an inversion audit, format 1", advice).opened()


def inversion_result_to_json(result: InversionResult) -> dict[str, object]:
    """Turn what one attack came to with one seed into plain values that `json.dumps` takes."""
    return {item.name: plain(getattr(result, item.name)) for item in fields(result)}


def inversion_result_from_json(record: object) -> InversionResult:
    """Make a result of the values that `inversion_result_to_json` returned.

    Args:
        record: as `json.loads` gives it.

    Raises:
        ConfigError: it is another record.

    Example:
        >>> inversion_result_from_json({})
        Traceback (most recent call last):
        sfumato.errors.ConfigError: expected the result of an inversion attack; found: name: Field required; ...
    """
    return validate(_RESULT, record, "the result of an inversion attack", "remove the stage to compute it again")


def prior_facts_from_json(record: object) -> PriorFacts:
    """Make the facts of a prior of plain values.

    Args:
        record: as `json.loads` gives it.

    Raises:
        ConfigError: it is another record.
    """
    return validate(_PRIOR, record, "the record of a prior", "measure it again")


def _encode(exhibit: InversionExhibit) -> _ExhibitRecord:
    shapes = [tuple(one.pixels.shape[1:]) for one in exhibit.rebuilt] or [(1, 1, 1)]  # no attack: no picture to have a shape
    if exhibit.private is not None:
        shapes = [tuple(exhibit.private.shape[1:])]
    channels, height, width = shapes[0]
    return _ExhibitRecord(
        name=exhibit.name,
        shape=(channels, height, width),
        private=None if exhibit.private is None else _pngs(exhibit.private),
        rebuilt=tuple(
            _RebuiltRecord(one.attack, one.seed, _pngs(one.pixels), one.confidence, one.right, one.reached)
            for one in exhibit.rebuilt
        ),
    )


def _pngs(pixels: Tensor) -> tuple[str, ...]:
    return tuple(png(one) for one in pixels.cpu())


def _decode(record: _ExhibitRecord) -> InversionExhibit:
    for one in record.rebuilt:
        if not len(one.png) == len(one.confidence) == len(one.right):
            raise ConfigError(
                f"expected one confidence and one verdict for each picture of '{record.name}' by {one.attack}, found "
                f"{len(one.png)} pictures, {len(one.confidence)} confidences and {len(one.right)} verdicts; save the audit again"
            )
    return InversionExhibit(
        name=record.name,
        private=None if record.private is None else _pixels(record.private, record.shape),
        rebuilt=tuple(
            Rebuilt(one.attack, one.seed, _pixels(one.png, record.shape), one.confidence, one.right, one.reached)
            for one in record.rebuilt
        ),
    )


def _pixels(texts: tuple[str, ...], shape: tuple[int, int, int]) -> Tensor:
    return torch.stack([picture(text, shape) for text in texts]) if texts else torch.empty((0, *shape), dtype=torch.uint8)
