# SPDX-License-Identifier: Apache-2.0
"""What there is to show of each audit of the weights: facts, pictures, tables. Nothing is measured here.

Example:
    >>> sections(["portraits"], [None])
    []
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.inversion_gallery import GalleryRow, gallery_rows, withheld
from sfumato.inversion_tables import (
    CLASS_COLUMNS,
    PRIOR_COLUMNS,
    class_table,
    inversion_columns,
    inversion_table,
    ordered,
    prior_table,
)
from sfumato.inversion_types import Inversion
from sfumato.inversion_words import between, describe_evaluator, warning
from sfumato.tables import Row, show_number


@dataclass(frozen=True)
class WeightsSection:
    """What there is to show of one audit.

    Attributes:
        name: of the audit.
        facts: about the classes and the judge, a sentence each.
        below: that nothing is concluded, a sentence, or "" where the evaluator may judge.
        gallery: the classes to look at, a row each.
        withheld: why no private picture is among them, a sentence, or "".
        columns: headings of the attacks' table.
        rows: the attacks, between the two yardsticks.
        prior_columns: headings of the priors' table.
        priors: its rows.
        by: the attack whose classes are shown one by one, or "".
        class_columns: headings of its table.
        classes: its rows.
    """

    name: str
    facts: tuple[str, ...]
    below: str
    gallery: tuple[GalleryRow, ...]
    withheld: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    prior_columns: tuple[str, ...]
    priors: tuple[Row, ...]
    by: str
    class_columns: tuple[str, ...]
    classes: tuple[Row, ...]


def sections(names: Sequence[str], inversions: Sequence[Inversion | None]) -> list[WeightsSection]:
    """Lay out what there is to show, one section for each audit that asked about the weights.

    Args:
        names: a heading for each audit.
        inversions: what was found; None where nobody asked. Private pictures are shown where they are there.
    """
    return [_section(name, found) for name, found in zip(names, inversions, strict=True) if found is not None]


def _section(name: str, found: Inversion) -> WeightsSection:
    strongest = found.strongest()
    return WeightsSection(
        name=name,
        facts=tuple(facts_of(found)),
        below=warning(found.evaluator),
        gallery=tuple(gallery_rows(found.gallery, trusted=found.evaluator.trusted, order=[one.name for one in ordered(found)])),
        withheld=withheld(found.gallery),
        columns=inversion_columns(found),
        rows=tuple(inversion_table(found)) if found.results else (),
        prior_columns=PRIOR_COLUMNS,
        priors=tuple(prior_table(found.priors)),
        by=strongest.name if strongest and strongest.classes else "",
        class_columns=CLASS_COLUMNS,
        classes=tuple(class_table(strongest.classes)) if strongest else (),
    )


def facts_of(found: Inversion) -> list[str]:
    """Say which classes were attacked, who judges, and how near the strongest attack came."""
    strongest = found.strongest()
    left = "public picture was" if found.overlap == 1 else "public pictures were"
    return [
        f"{found.identities:,} of the target's {found.outputs:,} classes were attacked{_pictures(found)}; chance is "
        f"{show_number(100 * found.chance, '.1f')} %.",
        describe_evaluator(found.evaluator),
        *([between(found, strongest)] if strongest else []),
        *([f"{found.overlap:,} {left} left out, being private too."] if found.overlap else []),
    ]


def _pictures(found: Inversion) -> str:
    """Say how many pictures there were of each class."""
    counts = sorted({result.per_class for result in found.results})
    if not counts:
        return ""
    pictures = "picture" if counts == [1] else "pictures"
    return f", with {' to '.join(f'{count:,}' for count in dict.fromkeys((counts[0], counts[-1])))} {pictures} of each"
