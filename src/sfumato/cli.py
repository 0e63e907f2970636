# SPDX-License-Identifier: Apache-2.0
"""The command line. PyTorch is imported inside the commands, so that help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli_options import DataRoot, Device, RecipePath, Restart, Resume, Runs, SkipBad
from sfumato.deploy.quiet import quiet_grpc
from sfumato.display import console, print_audits, print_json, print_membership, progress, say, say_skipped, short
from sfumato.errors import ConfigError, SfumatoError
from sfumato.export_cli import export
from sfumato.fisher_cli import fisher
from sfumato.pairs_cli import pairs
from sfumato.place import open_workplace
from sfumato.prior_cli import prior
from sfumato.serve_cli import serve

if TYPE_CHECKING:
    from sfumato.studies.results import Results

app = typer.Typer(
    help="Find out what a vision model gives away, train it so that it doesn't, and ship it safely.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
study = typer.Typer(help="Run a paper's table or figure, and show ours beside the paper's.", no_args_is_help=True)
study.add_typer(pairs)
app.add_typer(study, name="study")
app.add_typer(prior, name="prior")

ShowPrivate = Annotated[
    bool, typer.Option("--show-private", help="Put private pictures beside what attacks on weights made of their classes.")
]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="A study of `sfumato study list`, or a TOML file.")]
SceneName = Literal["digits", "street"]
SizeName = Literal["smoke", "gpu", "full"]
ReadingName = Literal["scored", "trained"]
_HALVES = ("head\nmemory", "head\nparams", "head\nMACs", "tail\nparams", "tail\nMACs")


@app.command()
def demo(
    scene: Annotated[SceneName, typer.Argument(help="Handwritten digits, or vehicles and who drives them.")] = "digits",
    runs: Runs = Path("runs"),
    device: Device = "auto",
) -> None:
    """Audit a small target before and after hardening it, in a few minutes."""
    from sfumato import report
    from sfumato.demo import FOLDER, run_demo

    with progress("the same command goes on") as watch:
        audits = run_demo(scene, open_workplace(runs, None, device, resume=True, watch=watch))
    path = report.save(audits, runs / FOLDER[scene] / "report.html")
    print_audits(audits)
    say(f"report: {path}")


@app.command("list")
def list_names(
    what: Annotated[
        Literal["datasets", "models", "defenses", "attacks"] | None, typer.Argument(help="One table only.", show_default=False)
    ] = None,
) -> None:
    """List the names that a recipe may use."""
    from rich.table import Table

    from sfumato.registry import TABLE

    for family, entries in TABLE.items():
        if what in (None, family):
            table = Table("name", "what it is", title=family, title_justify="left")
            for name, entry in entries.items():
                table.add_row(name, entry.summary)
            console().print(table)


@app.command()
def cuts(
    model: Annotated[str, typer.Argument(help='A model of the zoo, "timm:NAME", or "module:function" of yours.')],
    classes: Annotated[int, typer.Option(help="How many classes.")] = 10,
    shape: Annotated[str, typer.Option(help="Channels, height and width of a picture.")] = "3,32,32",
    memory: Annotated[str | None, typer.Option(help='Only heads of at most so many bytes, such as "2.9MB".')] = None,
    macs: Annotated[str | None, typer.Option(help='Only heads of at most so many MACs, such as "300M".')] = None,
) -> None:
    """List every clean cut of a model: what crosses it and what each side costs."""
    import torch
    from rich import box
    from rich.table import Table

    from sfumato.device import DeviceBudget
    from sfumato.models.resolve import build_model
    from sfumato.quantity import show_bytes
    from sfumato.split import cuts as list_cuts

    sizes = _shape(shape)
    budget = DeviceBudget(memory=memory, macs=macs) if memory or macs else None
    sys.path.insert(0, str(Path.cwd()))  # where a model of the user's own is
    built = build_model(model, classes=classes, shape=sizes)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)  # nine columns in 80 characters
    table.add_column("\ncut", overflow="fold")
    table.add_column("shape\nof z", no_wrap=True)
    formats = ("float32", "uint8")  # float16 is half of the first
    for heading in (*(f"bytes\n{name}" for name in formats), *_HALVES):
        table.add_column(heading, justify="right", no_wrap=True)
    found = list_cuts(built, torch.zeros(1, *sizes))
    for cut in found if budget is None else budget.among(found):
        sent = (cut.bytes_per_picture[name] for name in formats)
        head = (show_bytes(cut.head.memory), short(cut.head.parameters), short(cut.head.macs))
        shown = (f"{count:,}" if count < 1_000_000 else short(count) for count in sent)
        table.add_row(cut.name, "x".join(map(str, cut.shape)), *shown, *head, short(cut.tail.parameters), short(cut.tail.macs))
    say(f"{model}, pictures {'x'.join(map(str, sizes))}, {classes} classes; all numbers are for one picture\n")
    if not table.rows and budget is not None:
        say(f"no head fits: {budget.smallest(found)}")
    else:
        console().print(table)


@app.command()
def train(
    recipe: RecipePath,
    runs: Runs = Path("runs"),
    data_root: DataRoot = None,
    device: Device = "auto",
    resume: Resume = False,
    restart: Restart = False,
    skip_bad: SkipBad = False,
) -> None:
    """Train the target of a recipe, defenses included."""
    from sfumato import targets, workplace
    from sfumato.device import finished_head
    from sfumato.publish import publish_target
    from sfumato.recipe import load_recipe

    loaded = load_recipe(recipe)
    with progress("the same command with --resume goes on") as watch:
        place = open_workplace(runs, data_root, device, resume=resume, restart=restart, skip_bad=skip_bad, watch=watch)
        data = workplace.read_data(loaded, place)
        target, stage = targets.train_recipe(loaded, data, place)
    folder = publish_target(loaded, stage, place.store, loaded.name)
    say_skipped(data.skipped)
    utility = stage.facts()["utility"]
    for name, reached in utility.items() if isinstance(utility, dict) else ():
        say(f"{name} {reached['value']:.3f} ({reached['low']:.3f} to {reached['high']:.3f})")
    if loaded.split.cut:
        say(f"head: {finished_head(target, data.shape).describe()}")
    else:
        everything = sum(parameter.numel() for parameter in target.split.parameters())
        say(f"trained: {stage.facts()['parameters']:,} of {everything:,} parameters")
    say(f"run: {folder}")


@app.command()
def audit(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A recipe (TOML).", show_default=False)] = None,
    logits: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="MEMBERS NONMEMBERS",
            help="In place of a recipe: what a model answered about examples that it was trained on, and about others; .npz "
            "files with the arrays logits and labels.",
            show_default=False,
        ),
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="With --logits: an attack to run; repeat it.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A report; ends in .html, .md or .json.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON, and nothing else.")] = False,
    show_private: ShowPrivate = False,
    runs: Runs = Path("runs"),
    data_root: DataRoot = None,
    device: Device = "auto",
    resume: Resume = False,
    restart: Restart = False,
    skip_bad: SkipBad = False,
) -> None:
    """Train the target of a recipe, or find it trained, and attack it; or attack what a model answered, with --logits."""
    from sfumato.surface_report import report_ending

    if output is not None:
        report_ending(output)  # said before minutes of work are lost
    if logits is not None and recipe is None:
        _audit_answers(logits, attack or None, output, as_json=as_json)
        return
    if recipe is None or logits is not None:
        raise ConfigError(
            f"an audit needs a recipe or --logits MEMBERS NONMEMBERS, got {'both' if recipe else 'neither'}; give one: sfumato "
            "audit RECIPE trains and attacks a target, sfumato audit --logits members.npz nonmembers.npz attacks its answers"
        )
    if attack:
        raise ConfigError(f"--attack goes with --logits, got it with {recipe}; a recipe names its attacks in [[attacks]]")
    from sfumato import pipeline, report, workplace
    from sfumato.publish import publish_audit
    from sfumato.recipe import load_recipe
    from sfumato.record import to_json

    loaded = load_recipe(recipe)
    with progress("the same command with --resume goes on") as watch:
        place = open_workplace(
            runs,
            data_root,
            device,
            resume=resume,
            restart=restart,
            skip_bad=skip_bad,
            show_private=show_private,
            watch=watch,
        )
        data = workplace.read_data(loaded, place)
        made, stage = pipeline.audit_recipe(loaded, data, place)
    folder = publish_audit(loaded, made, stage, place.store, loaded.name, show_private=show_private)
    if output is not None:
        report.save([made], output, show_private=show_private)
    if as_json:
        print_json(to_json(made))
        return
    say_skipped(data.skipped)
    print_audits([made])
    say(f"report: {output or folder / 'report.html'}")


def _audit_answers(logits: tuple[Path, Path], attacks: list[str] | None, output: Path | None, *, as_json: bool) -> None:
    """Attack what a model answered about members and others."""
    from sfumato.membership import audit_answers
    from sfumato.membership_record import membership_to_json
    from sfumato.membership_report import save_membership

    found = audit_answers(*logits, attacks=attacks)
    if output is not None:
        save_membership([found], output)
    if as_json:
        print_json(membership_to_json(found))
        return
    print_membership(found)
    if output is not None:
        say(f"report: {output}")


@app.command()
def report(
    run: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or records that --json printed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Ends in .html, .md or .json.")] = Path("report.html"),
    show_private: ShowPrivate = False,
) -> None:
    """Show the audits of several runs side by side."""
    from sfumato import report as reports
    from sfumato.inversion_report import load_inversions, save_inversion
    from sfumato.membership_report import load_memberships, save_membership

    records = [_record(path) for path in run]
    answers = [found for path in records for found in load_memberships(path)]
    rebuilt = [found for path in records for found in load_inversions(path)]
    if answers or rebuilt:
        if max(len(answers), len(rebuilt)) < len(run):
            raise ConfigError("records of different kinds cannot stand side by side; report them apart")
        path = save_membership(answers, output) if answers else save_inversion(rebuilt, output, show_private=show_private)
        say(f"report: {path}")
        return
    audits = [audit for path in records for audit in reports.load(path)]
    path = reports.save(audits, output, show_private=show_private)
    print_audits(audits)
    say(f"report: {path}")


app.command()(fisher)
app.command()(export)
app.command()(serve)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def infer(context: typer.Context) -> None:
    """Run the head of a bundle on pictures and ask the server that has its tail; runs on devices, without PyTorch."""
    quiet_grpc()
    try:
        from sfumato.deploy.infer import main as run_infer
    except ModuleNotFoundError as error:
        raise ConfigError(f"sfumato infer needs {error.name}, which is not installed; pip install 'sfumato[edge]'") from error
    raise typer.Exit(run_infer(context.args))


@study.command("list")
def list_studies() -> None:
    """List the studies that come with Sfumato."""
    from rich.table import Table

    from sfumato.studies.load import shipped_titles

    table = Table("name", "what it is")
    for name, title in shipped_titles().items():
        table.add_row(name, title)
    console().print(table)


@study.command("show")
def show_study(name: StudyName) -> None:
    """Show a study: its sizes, its rows, and what the paper has for them."""
    from rich.table import Table

    from sfumato.studies.load import load_study
    from sfumato.studies.table import paper_table

    loaded = load_study(name)
    sizes = [f"{size}: {loaded.describe(size)}" for size in loaded.sizes]
    say("\n".join([loaded.keys.title, f"paper: {loaded.keys.source}", *sizes]))
    headings, rows = paper_table(loaded)
    table = Table(*headings)
    for row in rows:
        table.add_row(row.label, *row.cells)
    console().print(table)
    say("\n".join(f"- {note}" for note in loaded.keys.notes))


@study.command("run")
def run_study(
    name: StudyName,
    size: Annotated[
        SizeName, typer.Option(help="Minutes on a CPU, meant for an hour on a large GPU, or the paper's own.")
    ] = "smoke",
    seeds: Annotated[int, typer.Option(help="Train and attack every row with this many seeds.", min=1)] = 1,
    reading: Annotated[ReadingName, typer.Option(help="The pictures scored, or those that the adversary trained on.")] = "scored",
    runs: Runs = Path("runs"),
    data_root: DataRoot = None,
    device: Device = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Run a study, or what of it is not there yet; exit with status 1 where a cell failed."""
    from sfumato.studies import runner
    from sfumato.studies.load import load_study
    from sfumato.studies.report import save_study

    loaded = load_study(name)
    with progress("the same command goes on") as watch:
        place = open_workplace(runs, data_root, device, skip_bad=skip_bad, watch=watch)
        found = runner.run_study(loaded, size, place, seeds=range(seeds), reading=reading)
    folder = _study_folder(runs, loaded.name, size, reading)
    save_study(found, folder)
    _print_study(found)
    say(f"report: {folder / 'report.html'}")
    if found.failed:
        raise typer.Exit(1)  # after the table: what else was run is worth seeing


@study.command("report")
def report_study(
    name: StudyName,
    size: Annotated[SizeName | None, typer.Option(help="One size only.", show_default=False)] = None,
    reading: Annotated[ReadingName | None, typer.Option(help="One reading only.", show_default=False)] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Show what a study came to again. Nothing is computed."""
    from sfumato.studies.results import read_results
    from sfumato.studies.study import SIZES

    stem = Path(name).stem if name.endswith(".toml") else name
    readings: tuple[ReadingName, ...] = (reading,) if reading else ("scored", "trained")
    paths = [_study_folder(runs, stem, one, made) / "study.json" for one in ([size] if size else SIZES) for made in readings]
    found = [path for path in paths if path.exists()]
    if not found:
        raise ConfigError(
            f"expected the study '{stem}' in {runs / 'studies'}, found no {' or '.join(path.parent.name for path in paths)}; "
            f"run it with: sfumato study run {name}{f' --reading {reading}' if reading else ''}"
        )
    for path in found:
        _print_study(read_results(path))


def _study_folder(runs: Path, name: str, size: str, reading: ReadingName) -> Path:
    """Return where a study is written: runs of another size or reading stay."""
    return runs / "studies" / (f"{name}-{size}" if reading == "scored" else f"{name}-{size}-{reading}")


def _print_study(results: Results) -> None:
    """Print a study: what the numbers are, ours beside the paper's, the gains, what is missing."""
    from rich.table import Table

    from sfumato.studies.table import facts, gains, remarks, study_table

    shown = study_table(results)
    say("\n".join([results.study.keys.title, *facts(results)]))
    cells = zip(shown.columns, shown.sources, strict=True)
    heads = [text for column, (first, *others) in cells for text in (f"{column}\n{first}", *(f"\n{one}" for one in others))]
    table = Table("", *heads)
    for row in shown.rows:
        table.add_row(row.label, *(cell.replace(" (", "\n(") for cell in row.cells))
    console().print(table)
    say("\n".join([*gains(results), *(f"- {remark}" for remark in remarks(results))]))


def main() -> None:
    """Run the command line: an error of ours is one message and exit status 2."""
    try:
        app(prog_name="sfumato")
    except SfumatoError as error:
        print(f"sfumato: {error}", file=sys.stderr)
        sys.exit(2)


def _record(run: Path) -> Path:
    """Return the record of a run, given as its folder or as the record itself."""
    path = run / "audit.json" if run.is_dir() else run
    if not path.exists():
        raise ConfigError(f"expected the folder of an audited run at {run}, found no {path}; make one with: sfumato audit RECIPE")
    return path


def _shape(text: str) -> tuple[int, int, int]:
    sizes = tuple(int(part) if part.isdecimal() else 0 for part in text.replace("x", ",").split(","))
    if len(sizes) != 3 or min(sizes) < 1:
        raise ConfigError(f'--shape must be channels, height and width, such as "3,32,32", got "{text}"')
    return sizes
