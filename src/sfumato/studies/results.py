# SPDX-License-Identifier: Apache-2.0
"""What a study came to: the record `study.json`, which holds the study itself and every number that was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from sfumato.errors import ConfigError, StorageError
from sfumato.files import write_json
from sfumato.inversion_record import InversionRecord
from sfumato.membership_types import Membership
from sfumato.plain import plain, validate
from sfumato.studies.load import read_study
from sfumato.studies.study import Study
from sfumato.studies.subject import Trace
from sfumato.types import AttackResult, Certificate, DataFacts, Interval, TargetFacts

Reading = Literal["scored", "trained"]
"""What the columns train and infer of the CEM tables mean. "scored": the adversary trains on the training pictures, and the
columns say which pictures it is scored on. "trained": they say which it trains on, the training pictures (scored on the test
pictures) or 90 % of the test pictures (scored on the others); this is what the paper's released code computes."""


@dataclass(frozen=True)
class Training:
    """What training a target cost.

    Attributes:
        seconds: wall time of all epochs; what it was pretrained with is not in it.
        parameters: how many are trained.
    """

    seconds: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one row came to with one seed.

    Attributes:
        row: its label.
        seed: of training and attacks.
        recipe: SHA-256 of its recipe, hexadecimal.
        target: key of the trained target.
        facts: what the target is and what it costs.
        accuracy: of the target, [0, 1].
        utility: every number of the target on its task, [0, 1], by name.
        data: the pictures.
        attacks: results, by where the adversary's pictures come from.
        membership: what the predictions say of who was trained on, without the curves of the attacks; None where nobody asked.
        inversion: what the weights show of the classes, without the gallery and the single classes; None where nobody asked.
        certificates: what can be said about every adversary.
        training: what training the target cost.
        milliseconds: wall time of a batch, by half.
        pictures: PNG in base64, by "sent" or the name of the attack that made them.
        traces: what was recorded along an axis, by name.
        hardware: the device it ran on.
        error: why there are no numbers, or "".
    """

    row: str
    seed: int
    recipe: str = ""
    target: str = ""
    facts: TargetFacts | None = None
    accuracy: Interval | None = None
    utility: Mapping[str, Interval] = field(default_factory=dict)
    data: DataFacts | None = None
    attacks: Mapping[str, tuple[AttackResult, ...]] = field(default_factory=dict)
    membership: Membership | None = None
    inversion: InversionRecord | None = None
    certificates: tuple[Certificate, ...] = ()
    training: Training | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    traces: Mapping[str, Trace] = field(default_factory=dict)
    hardware: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a study came to at one size.

    Attributes:
        study: the study.
        size: name of the size.
        reading: what the columns train and infer mean.
        seeds: every row was run with each.
        data: the pictures, those of the first row where rows differ.
        cells: those that were tried, in order.
        versions: of Sfumato, PyTorch and Python.
    """

    study: Study
    size: str
    reading: Reading
    seeds: tuple[int, ...]
    data: DataFacts | None = None
    cells: tuple[Cell, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def of(self, row: str) -> list[Cell]:
        """Return the cells of a row that have numbers."""
        return [cell for cell in self.cells if cell.row == row and not cell.error]

    @property
    def pictures(self) -> list[tuple[DataFacts, list[str]]]:
        """The data sets, each with the rows that were run on it."""
        found: dict[str, tuple[DataFacts, list[str]]] = {}
        for cell in self.cells:
            if cell.data is not None:
                key = f"{cell.data.name} {cell.data.fingerprint} {sorted(cell.data.counts.items())}"
                rows = found.setdefault(key, (cell.data, []))[1]
                rows += [cell.row] if cell.row not in rows else []
        return list(found.values()) or ([] if self.data is None else [(self.data, [])])

    @property
    def failed(self) -> list[Cell]:
        """The cells that failed; a row whose defenses this version does not have is not one of them."""
        known = {row.label for row in self.study.rows if not row.missing}
        return [cell for cell in self.cells if cell.error and cell.row in known]


@dataclass(frozen=True)
class _Record:
    """The JSON of results, key by key."""

    format: Literal[1]
    name: str
    study: Mapping[str, Any]
    size: str
    reading: Reading
    seeds: tuple[int, ...]
    data: DataFacts | None
    versions: Mapping[str, str]
    cells: tuple[Cell, ...]


_RECORD = TypeAdapter(_Record)


def write_results(results: Results, path: str | Path) -> Path:
    """Write results as JSON.

    Args:
        results: the record.
        path: the file; its folder is made when missing.

    Raises:
        StorageError: it cannot be written; a file that was there stays as it was.
    """
    study, size, reading = results.study, results.size, results.reading
    record = _Record(1, study.name, study.table, size, reading, results.seeds, results.data, results.versions, results.cells)
    values = plain(record)
    assert isinstance(values, dict)  # noqa: S101 -- a record becomes a dictionary
    return write_json(path, values)


def read_results(path: str | Path) -> Results:
    """Read what `write_results` wrote.

    Args:
        path: the file.

    Raises:
        StorageError: there is no such file.
        ConfigError: it is no record of a study.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise StorageError(f"expected the record of a study at {path}: {error.strerror or error}; run the study first") from error
    except ValueError as error:
        raise ConfigError(f"expected JSON in {path}, found something else: {error}; run the study again") from error
    found = validate(_RECORD, values, f"the record of a study, format 1, in {path}", "run the study again")
    return Results(
        study=read_study(found.study, name=found.name),
        size=found.size,
        reading=found.reading,
        seeds=found.seeds,
        data=found.data,
        cells=found.cells,
        versions=found.versions,
    )
