# SPDX-License-Identifier: Apache-2.0
"""The command that exports a run: a bundle for devices and servers, and what each format on the wire costs and gives away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli_options import DataRoot, Device, Runs
from sfumato.display import console, progress, say
from sfumato.place import open_workplace

if TYPE_CHECKING:
    from sfumato.deploy.export import Export

WireName = Literal["float32", "float16", "uint8"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/demo/after.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", metavar="BUNDLE", help="Folder to write.", show_default=False)],
    wire: Annotated[WireName, typer.Option(help="Format of the numbers that the device sends.")] = "float32",
    only: Annotated[bool, typer.Option("--only", help="Measure this format alone, not the others beside it.")] = False,
    executorch: Annotated[bool, typer.Option("--executorch", help="Write the head for ExecuTorch too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    runs: Runs = Path("runs"),
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Export a run: the head for a device, the tail for a server, and what leaks through this very head."""
    from sfumato.deploy import export as exporting
    from sfumato.deploy.exporting.runs import open_run

    exporting.require_free(to, force=force)  # said before minutes of work are lost
    with progress("the same command goes on") as watch:
        opened = open_run(run, open_workplace(runs, data_root, device, watch=watch))
        made = exporting.export(
            opened.target,
            opened.data,
            to,
            name=opened.name,
            wire=wire,
            only=only,
            executorch=executorch,
            force=force,
            seed=opened.seed,
            audited=opened.audited,
            recipe=opened.recipe.text,
        )
    _print_export(made)


def _print_export(made: Export) -> None:
    """Print what each format costs and gives away, how the export compared, what it is and what to do with it."""
    from rich.table import Table

    from sfumato.deploy.exporting.formats import format_table

    manifest = made.manifest
    heads, rows = format_table(made.formats, manifest.wire)
    table = Table("", *heads)
    for row in rows:
        table.add_row(row.label, *(cell.replace(" (", "\n(") for cell in row.cells))
    console().print(table)
    say("\n".join([manifest.leak, _parity(made), *_advice(made)]))


def _parity(made: Export) -> str:
    from sfumato.deploy.exporting.parity import ALPHA

    found = made.manifest.parity
    tested = f"p = {found.noise_p:.2g} (refused below {ALPHA:g})"
    noise = f"; noise over {found.draws} releases of each, {tested}" if found.draws else ""
    return (
        f"ONNX Runtime beside PyTorch, {found.pictures} pictures: z within {found.features:.1g} beyond rounding, answers within "
        f"{found.answers:.1g}{noise}"
    )


def _advice(made: Export) -> list[str]:
    from sfumato.deploy.bundle import HEAD, REPOSITORY
    from sfumato.deploy.manifest import FILE
    from sfumato.quantity import show_bytes

    manifest, folder = made.manifest, made.folder
    size = sum((folder / name).stat().st_size for name in (FILE, HEAD))
    return [
        f"bundle: {folder}, model {manifest.name}, {manifest.bytes_per_picture:,} bytes of {manifest.wire} for each picture",
        f"to the device: {folder / FILE} and {folder / HEAD}, {show_bytes(size)}; there: sfumato infer BUNDLE --server HOST:PORT "
        "PICTURES",
        f"on the server: sfumato serve {folder}; for Triton, KServe or MLServer: {folder / REPOSITORY}",
    ]
