# SPDX-License-Identifier: Apache-2.0
"""The commands about priors: training one on public pictures, before any target is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.display import progress, say, say_skipped
from sfumato.errors import ConfigError
from sfumato.place import open_workplace

if TYPE_CHECKING:
    from sfumato.data.base import Data, Pictures
    from sfumato.priors.settings import PriorSettings
    from sfumato.types import Watch

prior = typer.Typer(help="Train a prior: what an adversary knows of pictures like the private ones.", no_args_is_help=True)

_KINDS = Literal["gan", "style"]
_SCALES = Literal["smoke", "full"]


@prior.callback()
def _about() -> None:
    """Train a prior: what an adversary knows of pictures like the private ones."""


@prior.command("train")
def train_command(
    data: Annotated[str, typer.Option(help="A data set of `sfumato list datasets`, or the path of a folder of pictures.")],
    kind: Annotated[
        _KINDS, typer.Option(help="A plain GAN, or one with styles. The kinds that learn from a target are trained by its audit.")
    ] = "gan",
    size: Annotated[int | None, typer.Option(help="Side in pixels, that of the target's pictures.", show_default=False)] = None,
    private_identities: Annotated[
        int | None,
        typer.Option(
            help="Leave out so many people, those whom a recipe with as many private_identities and this seed takes.",
            min=2,
            show_default=False,
        ),
    ] = None,
    scale: Annotated[_SCALES, typer.Option(help="Minutes on a CPU at 32 pixels, or the papers' constants.")] = "smoke",
    steps: Annotated[int | None, typer.Option(help="Updates of the generator.", min=1, show_default=False)] = None,
    width: Annotated[int | None, typer.Option(help="Channels of its last layer.", min=1, show_default=False)] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures an update.", min=2, show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    to: Annotated[
        Path | None, typer.Option(help="A safetensors file; runs/priors/NAME-KIND-SIZE/prior.safetensors.", show_default=False)
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder that holds data sets.", envvar="SFUMATO_DATA")] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1".')] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training run that was interrupted.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Start an interrupted training run over.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be decoded, and list them.")
    ] = False,
) -> None:
    """Train a prior on public pictures, with sample grids beside it.

    The kinds "inversion" (KEDMI) and "conditional" (PLG) learn from the target: the audit of a recipe trains them.
    """
    from sfumato.data.load import load_data
    from sfumato.priors.settings import SCALES, prior_settings
    from sfumato.types import told_as

    if to is not None and to.suffix != ".safetensors":
        raise ConfigError(f"--to must end in .safetensors, got {to}")
    given = {"steps": steps, "width": width, "batch_size": batch}
    table = {name: value for name, value in given.items() if value is not None}
    settings = prior_settings(kind, table, base=SCALES[scale])
    with progress("the same command with --resume goes on") as watch:
        place = open_workplace(
            Path("runs") if to is None else to.parent, data_root, device, resume=resume, restart=restart, skip_bad=skip_bad
        )
        pictures = load_data(data, size=size, root=data_root, skip_bad=skip_bad, seed=seed)
        path = to or Path("runs") / "priors" / f"{pictures.name}-{kind}-{pictures.shape[1]}" / "prior.safetensors"
        checkpoint = _checkpoint(path, resume=resume, restart=restart)
        public = _public(pictures, private_identities, seed)
        source = f"{settings.steps} steps on {len(public)} pictures of {pictures.name}"
        watched = told_as(watch, f"{kind} prior on {pictures.name}")
        _train(path, checkpoint, public, kind, settings, source=source, seed=seed, device=str(place.device), watch=watched)
    say_skipped(pictures.skipped)
    say(f"prior of kind {kind}: {source}")
    say(f"sample grids: {_samples(path)}")
    say(f"prior: {path}")


def _samples(path: Path) -> Path:
    """Return the folder of the sample grids of a prior: beside it, of its name where that is not "prior"."""
    return path.parent / ("samples" if path.stem == "prior" else f"{path.stem}-samples")


def _checkpoint(path: Path, *, resume: bool, restart: bool) -> Path:
    """Return where the state of a training run is, if it may go on, or be started over."""
    checkpoint = path.with_name(f"{path.stem}-checkpoint.safetensors")
    if checkpoint.exists() and not resume:
        if not restart:
            raise ConfigError(
                f"an interrupted training run of this prior is at {checkpoint}; go on with --resume, or start over with --restart"
            )
        checkpoint.unlink()
    return checkpoint


def _public(pictures: Data, private_identities: int | None, seed: int) -> Pictures:
    """Return the pictures to learn from: all, or those of nobody who is private."""
    from sfumato.data.identities import by_identity

    if private_identities is None:
        return pictures.part("train")
    return by_identity(pictures, private=private_identities, seed=seed).part("public")


def _train(
    path: Path,
    checkpoint: Path,
    public: Pictures,
    kind: _KINDS,
    settings: PriorSettings,
    *,
    source: str,
    seed: int,
    device: str,
    watch: Watch | None,
) -> None:
    """Train a prior and write it; what was only there to go on is removed."""
    from sfumato.priors.saved import save_prior
    from sfumato.priors.train import train_prior

    made = train_prior(
        kind, public, settings, seed=seed, device=device, checkpoint=checkpoint, samples=_samples(path), watch=watch
    )
    save_prior(path, made, settings, source=source)
    checkpoint.unlink(missing_ok=True)
