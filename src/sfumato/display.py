# SPDX-License-Identifier: Apache-2.0
"""What the command line shows: progress bars, tables, lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from sfumato.inversion_types import Inversion
    from sfumato.membership_types import Membership
    from sfumato.tables import Row
    from sfumato.types import Audit, NamedWatch

_BARS = 20  # at once: of more, those that are done go
_FILE_WIDTH = 200  # of tables that go to a file or another program, where nothing must be cut off


@contextmanager
def progress(how: str) -> Iterator[NamedWatch]:
    """Show one bar for each thing that is being done; where it is interrupted, exit and say how to go on.

    Args:
        how: how to go on, as the end of a sentence.

    Yields:
        A function to tell what is being done, the work done and the work in all.

    Raises:
        Exit: with status 130, on an interrupt.
    """
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console(stderr=True))
    bars: dict[str, TaskID] = {}

    def watch(name: str, done: int, total: int) -> None:
        if not progress.console.is_terminal:  # a log gets a line at the start of each thing and one at its end
            if name not in bars or done == total:
                progress.console.print(f"{name}: {'done' if done == total else 'started'}", highlight=False)
            bars.setdefault(name, TaskID(0))
            return
        progress.start()  # at the first news only: a command that is refused shows no empty display
        if name not in bars:
            bars[name] = progress.add_task(name, total=total)
            for task in progress.tasks[:-_BARS]:
                progress.update(task.id, visible=not task.finished)
        progress.update(bars[name], completed=done)

    try:
        try:
            yield watch
        finally:
            if bars:  # stopping what never started would print an empty line before the message
                progress.stop()
    except KeyboardInterrupt as interrupt:
        print(f"\nsfumato: stopped; what is done is kept, and {how}", file=sys.stderr)
        raise typer.Exit(130) from interrupt


def print_audits(audits: Sequence[Audit]) -> None:
    """Print the headline numbers, a column for each audit, every attack on predictions and weights, and what they say."""
    from rich.table import Table

    from sfumato.membership_tables import headline_table
    from sfumato.verdict import refuted, verdict

    shown = Table("", *(audit.title for audit in audits))
    for row in headline_table(audits):
        shown.add_row(row.label, *row.cells)
    console().print(shown)
    for audit in audits:
        if audit.membership is not None:
            _print_membership(audit.membership, f"the predictions of {audit.title}")
        if audit.inversion is not None:
            _print_inversion(audit.inversion, f"the weights of {audit.title}")
    for sentence in (*verdict(audits), *refuted(audits)):
        say(sentence)


def print_membership(membership: Membership) -> None:
    """Print every attack on the predictions, the strongest first, and what the numbers say."""
    from sfumato.membership_report import facts_of
    from sfumato.membership_verdict import membership_alone

    _print_membership(membership, membership.title)
    for sentence in (*facts_of(membership), *membership_alone(membership)):
        say(sentence)


def print_inversion(inversion: Inversion) -> None:
    """Print every attack on the weights, the strongest first, and what the numbers say."""
    from sfumato.inversion_verdict import inversion_alone

    _print_inversion(inversion, inversion.title)
    for sentence in inversion_alone(inversion):
        say(sentence)


def _print_membership(membership: Membership, title: str) -> None:
    from sfumato.membership_tables import EPSILON, brief_table

    headings, rows = brief_table(membership)
    _print_attacks(headings, rows, title, EPSILON)


def _print_inversion(inversion: Inversion, title: str) -> None:
    from sfumato.inversion_tables import brief_table
    from sfumato.inversion_words import JUDGED, warning

    if not inversion.evaluator.trusted:
        say(warning(inversion.evaluator))
    headings, rows = brief_table(inversion)
    _print_attacks(headings, rows, title, JUDGED)


def _print_attacks(headings: Sequence[str], rows: Sequence[Row], title: str, caption: str) -> None:
    """Print a table of attacks in 80 columns: a number, and its interval below."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(
            heading, overflow="fold", no_wrap=place not in (0, 3)
        )  # a name, or words in place of a number, may be long
    for row in rows:
        table.add_row(row.label, *row.cells)
    table.caption, table.caption_justify = caption, "left"
    console().print(table)


def print_json(record: object) -> None:
    """Print a record and nothing else, in letters that every terminal and every program takes."""
    print(json.dumps(record, indent=1))


def say_skipped(skipped: Sequence[str]) -> None:
    """Print which pictures were left out, if any."""
    if skipped:
        more = ", ..." if len(skipped) > 5 else ""
        count = "1 picture" if len(skipped) == 1 else f"{len(skipped)} pictures"
        say(f"left out {count} that could not be decoded: {', '.join(skipped[:5])}{more}")


def say(text: str) -> None:
    """Print a line, of any length, as it is."""
    console().print(text, highlight=False, markup=False, soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """Return the terminal; what goes to a file or another program is wide, so that nothing is cut off."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _FILE_WIDTH)


def short(number: int) -> str:
    """Write a count with three digits.

    Example:
        >>> short(512), short(1920), short(4_500_992), short(999_999)
        ('512', '1.92k', '4.50M', '1.00M')
    """
    if number < 1000:
        return str(number)
    value, units = float(f"{number:.3g}"), iter("kMGTP")
    while value >= 1000:
        value, unit = value / 1000, next(units)
    return f"{value:#.3g}".rstrip(".") + unit
