# SPDX-License-Identifier: Apache-2.0
"""The command about layers: which matter to naming people and which to rebuilding them, and where to freeze a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli_options import DataRoot, Device, RecipePath, Restart, Resume, Runs, SkipBad
from sfumato.display import console, print_json, progress, say, say_skipped
from sfumato.errors import ConfigError
from sfumato.place import open_workplace

if TYPE_CHECKING:
    from sfumato.importance_record import FreezeSearch, Importance
    from sfumato.tables import Row


def fisher(
    recipe: RecipePath,
    accuracy: Annotated[
        float | None,
        typer.Option(help="Search where to freeze: the accuracy to keep, in percent, such as 90.", show_default=False),
    ] = None,
    trainings: Annotated[int, typer.Option(help="With --accuracy: train so many freeze points at most.", min=1)] = 5,
    attack: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="One attack on weights of the recipe; all if not said.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON, and nothing else.")] = False,
    runs: Runs = Path("runs"),
    data_root: DataRoot = None,
    device: Device = "auto",
    resume: Resume = False,
    restart: Restart = False,
    skip_bad: SkipBad = False,
) -> None:
    """Measure which layers name people and which rebuild them, and find where to freeze a model for a wanted accuracy.

    The recipe's target is trained with nothing frozen, or found trained, and attacked. The report goes to the run's folder.
    """
    wanted = None if accuracy is None else _share(accuracy)
    from sfumato import workplace
    from sfumato.fisher_report import save_importance
    from sfumato.importance import measure_importance
    from sfumato.importance_record import importance_to_json
    from sfumato.recipe import load_recipe

    loaded = load_recipe(recipe)
    with progress("the same command with --resume goes on") as watch:
        place = open_workplace(runs, data_root, device, resume=resume, restart=restart, skip_bad=skip_bad, watch=watch)
        data = workplace.read_data(loaded, place)
        found = measure_importance(loaded, data, place, attack=attack, wanted=wanted, trainings=trainings)
    with place.store.writing(loaded.name) as part:
        save_importance(found, place.store.root / part)
    if as_json:
        print_json(importance_to_json(found))
        return
    say_skipped(data.skipped)
    _print_importance(found)
    say(f"report: {place.store.root / loaded.name / 'fisher.html'}")


def _share(accuracy: float) -> float:
    """Return an accuracy in percent as a share."""
    if 0 < accuracy <= 1:
        raise ConfigError(f"--accuracy is in percent, got {accuracy:g}; write {100 * accuracy:g} for {100 * accuracy:g} %")
    if not 0 <= accuracy <= 100:
        raise ConfigError(f"--accuracy must be from 0 to 100 percent, got {accuracy:g}; 90 is usual")
    return accuracy / 100


def _print_importance(found: Importance) -> None:
    """Print what was measured, the layers and what they come to for each attack, what that says, and where to freeze."""
    from sfumato import fisher_drawing as layers
    from sfumato.fisher_report import lines_of
    from sfumato.fisher_words import facts, unmeasured, verdict
    from sfumato.tables import Row

    say("\n".join(facts(found)))
    for one in found.rebuilding:
        shown = lines_of(found, one)
        heads, rows = layers.headings(shown), layers.listing(shown)
        narrow = [Row(row.label, row.cells[1:]) for row in rows]  # the counts of parameters have no room in 80 columns
        _print_table([heads[0], *heads[2:]], narrow, f"share of the Fisher information, attack {one.attack}")
        _print_table(layers.SUMMARY, layers.summary(shown))
    for sentence in verdict(found):
        say(sentence)
    if found.freezing is not None:
        _print_search(found.freezing)
    say("not measured:\n" + "\n".join(f"- {sentence}" for sentence in unmeasured(found)))


def _print_search(search: FreezeSearch) -> None:
    from sfumato.fisher_report import POINTS, points
    from sfumato.fisher_words import recipe_lines, suggestion

    _print_table(POINTS, points(search), "where to freeze")
    say(suggestion(search))
    if lines := recipe_lines(search):
        say(f"in the recipe, before other defenses:\n\n{lines}\n")


def _print_table(headings: Sequence[str], rows: Sequence[Row], title: str = "") -> None:
    """Print a table in 80 columns: a number, and its interval below."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row.label, *(cell.replace(" (", "\n(") for cell in row.cells))
    console().print(table)
