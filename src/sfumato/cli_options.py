# SPDX-License-Identifier: Apache-2.0
"""What several commands of the command line take: the recipe, where they work and how they go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (TOML).", show_default=False)]
Runs = Annotated[Path, typer.Option(help="Folder of runs.", envvar="SFUMATO_RUNS")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder that holds data sets.", envvar="SFUMATO_DATA")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1".')]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training run that was interrupted.")]
Restart = Annotated[bool, typer.Option("--restart", help="Start an interrupted training run over.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be decoded, and list them.")]
