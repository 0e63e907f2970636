# SPDX-License-Identifier: Apache-2.0
"""Text as Markdown: whatever it says is shown as it is.

Example:
    >>> print(table(["", "MSE"], [Row("no_defense", ("0.1",))]))
    |  | MSE |
    | --- | --- |
    | no_defense | 0.1 |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sfumato.tables import Row


def escape(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word is none."""
    return re.sub(r"([\\`*\[\]<>|&]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def items(sentences: Iterable[str], *, empty: str = "The records do not say.") -> str:
    """Return a list of sentences.

    Args:
        sentences: one for each item.
        empty: the only item where there are none.
    """
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences) or f"- {empty}"


def table(headings: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a table.

    Args:
        headings: that of the label, then one for each cell.
        rows: the lines.
    """
    cells = [headings, *((row.label, *row.cells) for row in rows)]
    first, *rest = (f"| {' | '.join(map(escape, line))} |" for line in cells)
    return "\n".join([first, f"| {' | '.join('---' for _ in headings)} |", *rest])
