# SPDX-License-Identifier: Apache-2.0
"""Where a command of the command line works: the folder of runs, the data, the device. What is wrong with one is said at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import ConfigError, StorageError

if TYPE_CHECKING:
    import torch

    from sfumato.types import NamedWatch
    from sfumato.workplace import Workplace


def open_workplace(
    runs: Path,
    data_root: Path | None,
    device: str,
    *,
    resume: bool = False,
    restart: bool = False,
    skip_bad: bool = False,
    show_private: bool = False,
    watch: NamedWatch | None = None,
) -> Workplace:
    """Return where a command works.

    Args:
        runs: the folder of runs.
        data_root: the folder that holds data sets; None where nothing was said.
        device: "auto", or a device.
        resume: go on with training that was interrupted.
        restart: start interrupted training over.
        skip_bad: go on without pictures that cannot be decoded.
        show_private: put private pictures beside what attacks on weights made of their classes.
        watch: told of the progress.

    Raises:
        ConfigError: resume and restart exclude each other, or the device is not there.
        StorageError: the folder of runs cannot be written.
    """
    from sfumato.data.base import Reading
    from sfumato.store import Store
    from sfumato.workplace import Workplace

    sys.path.insert(0, str(Path.cwd()))  # where a model of the user's own is
    if resume and restart:
        raise ConfigError("--resume and --restart exclude each other; give one")
    return Workplace(
        store=Store(_writable(runs)),
        reading=Reading(root=data_root, skip_bad=skip_bad),
        device=_device(device),
        resume=resume,
        restart=restart,
        show_private=show_private,
        watch=watch,
    )


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    expected = f'--device must be "auto", "cpu" or a CUDA device that is there, got "{name}"; leave it out to take what is there'
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(expected) from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(expected)
    return device


def _writable(runs: Path) -> Path:
    """Return the folder of runs. That it cannot be written is said before minutes of work are lost."""
    whole = runs.absolute()
    there = next(folder for folder in (whole, *whole.parents) if os.path.exists(folder))  # noqa: PTH110 -- False where not allowed
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return runs
    found = "a folder that may not be written" if there.is_dir() else "a file"
    raise StorageError(f"--runs {runs}: expected a folder that can be written or made, but {there} is {found}; give another one")
