# SPDX-License-Identifier: Apache-2.0
"""A report of one surface alone, as HTML, Markdown and JSON: what the predictions and the weights have in common.

Example:
    >>> report_ending("audit.HTML")
    '.html'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from sfumato import markdown
from sfumato.errors import ConfigError
from sfumato.files import read_json, write_atomic
from sfumato.inversion_types import Inversion, InversionResult
from sfumato.membership_types import Membership, MembershipResult
from sfumato.page import render
from sfumato.tables import Row
from sfumato.types import AttackResult

_Found = TypeVar("_Found", bound=Membership | Inversion)
_ENDINGS = (".html", ".md", ".json")


@dataclass(frozen=True)
class SurfaceReport(Generic[_Found]):
    """How what was found of one surface is written down.

    Args:
        surface: its name, as records have it.
        title: heading of the report.
        scored: what intervals are over.
        words: the template that says what the words mean.
        section: the template of the surface's section, under the heading `surface`.
        verdict: what the numbers say, in sentences.
        rows: the headline numbers.
        blocks: the section as blocks of Markdown.
        write: from a record to plain values.
        read: back.
        advice: how such a record is made, for messages.
        shown: what else the section's template needs.
    """

    surface: str
    title: str
    scored: str
    words: str
    section: str
    verdict: Callable[[Sequence[str], Sequence[_Found]], list[str]]
    rows: Callable[[Sequence[_Found]], list[Row]]
    blocks: Callable[[Sequence[str], Sequence[_Found]], list[str]]
    write: Callable[[_Found], dict[str, object]]
    read: Callable[[object], _Found]
    advice: str
    shown: Callable[[Sequence[str], Sequence[_Found]], Mapping[str, Any]] = field(repr=False)

    def save(self, found: Sequence[_Found], path: str | Path) -> Path:
        """Write audits as one file, by the ending of its name, and return the path.

        Raises:
            ConfigError: another ending, or nothing to write.
            StorageError: the file cannot be written; a file that was there stays as it was.
        """
        writers = {".html": self.to_html, ".md": self.to_markdown, ".json": self.to_json}
        return write_atomic(path, writers[report_ending(path)](found).encode(errors="backslashreplace"))

    def load(self, path: str | Path) -> list[_Found]:
        """Read what `save` wrote as JSON; nothing where the file holds the record of something else.

        Raises:
            ConfigError: the file is not JSON, or such a record is not whole.
            StorageError: the file is missing or cannot be read.
        """
        record = read_json(path, expected="the record of an audit", advice=self.advice)
        if not isinstance(record, dict) or record.get("surface") != self.surface:
            return []
        held = record["audits"] if isinstance(record.get("audits"), list) else [record]
        return [self.read(one) for one in held]

    def to_json(self, found: Sequence[_Found]) -> str:
        """Write audits as JSON: the record of one, or a table of several."""
        records = [self.write(one) for one in _some(found)]
        held = records[0] if len(records) == 1 else {"format": 1, "surface": self.surface, "audits": records}
        return json.dumps(held, indent=1, ensure_ascii=False) + "\n"

    def to_markdown(self, found: Sequence[_Found]) -> str:
        """Write audits as Markdown."""
        names = names_of(_some(found))
        blocks = [f"# {self.title}", *map(markdown.escape, self.verdict(names, found))]
        blocks += ["## Headline numbers", markdown.table(["", *names], self.rows(found))]
        blocks += [*self.blocks(names, found), "## What was not tested", markdown.items(untested_of(found))]
        return "\n\n".join([*blocks, *_origin_blocks(names, found)]) + "\n"

    def to_html(self, found: Sequence[_Found]) -> str:
        """Write audits as one HTML page that needs nothing else: no network, no script."""
        names = names_of(_some(found))
        return render(
            "surface.html.j2",
            section=self.section,
            words=self.words,
            link=self.surface.capitalize(),
            scored=self.scored,
            title=self.title,
            names=names,
            found=found,
            verdict=self.verdict(names, found),
            headline=self.rows(found),
            untested=untested_of(found),
            settings=[settings_of(one.results) for one in found],
            **self.shown(names, found),
        )


def report_ending(path: str | Path) -> str:
    """Return the ending of a report's name, in small letters.

    Raises:
        ConfigError: it is none of .html, .md and .json.
    """
    ending = Path(path).suffix.lower()
    if ending not in _ENDINGS:
        raise ConfigError(f"expected a report ending in {', '.join(_ENDINGS)}, got '{path}'; choose one of these")
    return ending


def settings_of(results: Iterable[AttackResult | MembershipResult | InversionResult]) -> list[tuple[str, str]]:
    """Return the hyper-parameters of attacks as (name, text), each different pair once."""
    pairs = ((result.name, ", ".join(f"{key} = {value}" for key, value in result.settings.items())) for result in results)
    return list(dict.fromkeys(pairs))


def names_of(found: Sequence[Membership | Inversion]) -> list[str]:
    """Return a heading for each: its title, numbered where two agree."""
    titles = [one.title or "answers" for one in found]
    return [f"{title} ({number})" if titles.count(title) > 1 else title for number, title in enumerate(titles, 1)]


def untested_of(found: Sequence[Membership | Inversion]) -> list[str]:
    """Return what none of several audits says anything about, each sentence once."""
    return list(dict.fromkeys(sentence for one in found for sentence in one.untested))


def _origin_blocks(names: Sequence[str], found: Sequence[Membership | Inversion]) -> list[str]:
    """Return what somebody needs to make the numbers again, as blocks of Markdown."""
    blocks = ["## How this was made"]
    for name, one in zip(names, found, strict=True):
        facts = [
            f"seeds: {', '.join(map(str, one.seeds))}; hardware: {one.hardware}",
            *(f"version of {library}: {version}" for library, version in one.versions.items()),
            *(f"settings of {attack}: {text or 'none'}" for attack, text in settings_of(one.results)),
        ]
        blocks += [f"### {markdown.escape(name)}", markdown.items(facts)]
    return blocks


def _some(found: Sequence[_Found]) -> Sequence[_Found]:
    if not found:
        raise ConfigError("expected one audit or several to report, got none; run an audit first")
    return found
