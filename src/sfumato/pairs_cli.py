# SPDX-License-Identifier: Apache-2.0
"""The commands about pairs: a page that asks people which of two reconstructions is closer, and what they answered."""

from __future__ import annotations

import ipaddress
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.display import console, say
from sfumato.errors import ConfigError
from sfumato.place import open_workplace

if TYPE_CHECKING:
    from sfumato.studies.answers import AnswerBook
    from sfumato.studies.pairs import Pairs

pairs = typer.Typer()

RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a study that was run, as runs/studies/NAME-SIZE.", show_default=False)
]
AnswersPath = Annotated[
    Path | None, typer.Option(help="Where answers are stored: pairs.jsonl in RUN if not said.", show_default=False)
]


@pairs.command()
def serve_pairs(
    run: RunPath,
    rows: Annotated[
        list[str] | None,
        typer.Option(help="A row of the study; give it twice. Needed where more than two are there.", show_default=False),
    ] = None,
    attack: Annotated[
        str, typer.Option(help="Whose reconstructions. Needed where more than one attack was run.", show_default=False)
    ] = "",
    seed: Annotated[int | None, typer.Option(help="Of the rows: the first if not said.", show_default=False)] = None,
    count: Annotated[
        int | None, typer.Option("--pairs", help="Show so many classes, drawn at random.", min=1, show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Show a pair so long at most.", min=1, max=3600)] = 60,
    participant: Annotated[str, typer.Option(help="Who answers; the page asks if not said.", show_default=False)] = "",
    answers: AnswersPath = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; at any other than this, others may see private pictures.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes one that is free.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder of runs: the one that RUN is in if not said.", envvar="SFUMATO_RUNS", show_default=False),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder that holds data sets.", envvar="SFUMATO_DATA")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="As the study was run.")] = False,
) -> None:
    """Ask people which of two reconstructions is closer to a real picture, on a page on this machine.

    The page shows a private picture of a class and what an attack made of the class on two rows of a study. Ctrl-C stops; the
    same command goes on.
    """
    from sfumato.studies.answers import open_answers
    from sfumato.studies.pairs import load_pairs
    from sfumato.studies.results import read_results
    from sfumato.studies.sittings import check_name

    folder = _folder(run)
    results = read_results(folder / "study.json")
    place = open_workplace(runs or folder.absolute().parent.parent, data_root, "cpu", skip_bad=skip_bad)
    name = check_name(participant)
    shown = load_pairs(results, place, rows=rows or (), attack=attack, seed=seed, count=count)
    path = answers or folder / "pairs.jsonl"
    if not _is_loopback(host):
        say(
            f"warning: the page shows private pictures; at {host} whoever has its address sees them from other machines, and "
            "they travel there unencrypted"
        )
    with open_answers(path, shown.facts) as book:
        _serve(shown, book, host=host, port=port, seconds=seconds, participant=name, browser=browser)
    say(f"answers: {path}; what they come to: sfumato study pairs-report {run}{f' --answers {answers}' if answers else ''}")


def _serve(shown: Pairs, book: AnswerBook, *, host: str, port: int, seconds: float, participant: str, browser: bool) -> None:
    """Answer the browser until interrupted."""
    from sfumato.studies.pairs_server import PairsServer
    from sfumato.studies.sittings import Sittings

    sittings = Sittings(shown, book, seconds=seconds)
    with PairsServer(shown, sittings, host=host, port=port, seconds=seconds, participant=participant) as server:
        first, second = shown.facts.rows
        say(f"{len(shown)} pairs of '{first}' and '{second}', attack {shown.facts.attack}; {len(book.answers)} answers so far")
        say(f"page: {server.url}")
        say("Ctrl-C stops; everything answered is stored, and the same command goes on")
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            say("")  # after the ^C that the terminal shows


@pairs.command()
def pairs_report(run: RunPath, answers: AnswersPath = None) -> None:
    """Show which of two rows people found closer, and write pairs.json and pairs.md beside the study."""
    from rich.table import Table

    from sfumato.files import write_atomic, write_json
    from sfumato.studies.answers import read_answers
    from sfumato.studies.preferences import preference, sentences, tally_table, to_json, to_markdown

    folder = _folder(run)
    found = preference(*read_answers(answers or folder / "pairs.jsonl"))
    headings, rows = tally_table(found)
    table = Table(*headings)
    for row in rows:
        table.add_row(row.label, *row.cells)
    console().print(table)
    say("\n".join(sentences(found)))
    stem = folder / "pairs" if answers is None else answers.with_suffix("")
    write_json(stem.with_name(f"{stem.name}.json"), to_json(found))
    say(f"report: {write_atomic(stem.with_name(f'{stem.name}.md'), to_markdown(found).encode(errors='backslashreplace'))}")


def _folder(run: Path) -> Path:
    """Return the folder of a study that was run."""
    folder = run.parent if run.name == "study.json" else run
    if not (folder / "study.json").is_file():
        raise ConfigError(
            f"expected the folder of a study that was run at {run}, found no {folder / 'study.json'}; make one with: "
            "sfumato study run NAME, which prints where its report is"
        )
    return folder


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
